"""From the config, as Snakemake hands it over, to checked runs: one complete setting each."""

import dataclasses
import difflib
import json
import os
import re
import sys
import typing
from collections.abc import Iterator, Sequence
from datetime import date
from pathlib import Path
from typing import Any

import jsonschema
import yaml

from ..core.errors import report
from ..core.twice import refuse_twice
from ..core.values import NAME, chat_date
from ..data.objectives import CONTEXTS, SEQUENCES
from . import layout
from .methods import METHODS, ROUTED, ROUTING, TOGETHER, named
from .recipes import RECIPES
from .run import LATER, TRANSLATOR, Run
from .translate import KINDS, of_kind

SAMPLE = 300  # questions, as the papers
SCHEMA = Path(__file__).parents[2] / "schemas" / "config.schema.yaml"


def resolve(config: dict[str, Any]) -> list[Run]:
    """The runs of a config: defaults, overridden by the recipe, by the config, and by each entry of `runs`. An entry
    that names a recipe has that one, over which the keys of the config stand as well as its own.

    Raises LoraryError that names every wrong key and what is allowed there.
    """
    schema = load_schema()
    properties = schema["properties"]
    defaults = {key: rule["default"] for key, rule in properties.items()}

    config = {key: _read(value, properties.get(key, {})) for key, value in config.items()}
    faults = _faults(config, schema, where="")
    overrides = config.get("runs", [])
    if isinstance(overrides, list):
        overrides = list(overrides)
        one_run = {**schema, "properties": {key: rule for key, rule in properties.items() if key != "runs"}}
        for i, override in enumerate(overrides):
            if isinstance(override, dict):
                overrides[i] = override = {k: _read(v, properties.get(k, {})) for k, v in override.items()}
                faults += _faults(override, one_run, where=f"runs[{i}].")
    settings = []
    for i, override in enumerate([] if faults else overrides or [{}]):
        given = {**config, **override}
        recipe = given.get("recipe", defaults["recipe"])
        bundle = {key: value for key, value in RECIPES[recipe].items() if key not in given}
        settings.append({**defaults, **bundle, **given})
        where = f"runs[{i}]." if overrides else ""
        for fault in _not_together(settings[-1]):
            of_recipe = [f"{key}: {value}" for key, value in bundle.items() if re.search(rf"\b{key}\b", fault)]
            faults.append(f"{where}{fault}" + (f" (recipe: {recipe} sets {', '.join(of_recipe)})" if of_recipe else ""))
    if faults:
        raise report(faults, "The config has values that are not allowed (config.yaml, --configfile or --config):")
    return [_run(setting) for setting in settings]


def check_files(files: list[str | Path]) -> None:
    """Raises LoraryError where a config file, which Snakemake has read, gives a key twice."""
    for file in files:
        refuse_twice(str(file), Path(file).read_text(encoding="utf-8"))


def load_schema() -> dict[str, Any]:
    """The schema of a config, which lets keys be what the tables of methods, ways, recipes and objectives have."""
    schema = yaml.safe_load(SCHEMA.read_text(encoding="utf-8"))
    properties = schema["properties"]
    properties["inference_methods"] |= {
        "items": {"enum": named()},
        "default": [name for name in named() if not METHODS[name].task],
        "description": f"a list of {', '.join(named())}, which may be empty",
    }
    way = {"enum": list(TOGETHER)}
    properties["combine_adapters"] |= {
        "anyOf": [way, {"type": "array", "items": way, "minItems": 1, "uniqueItems": True}],
        "description": f"{', '.join(TOGETHER)}, or a list of these, each once",
    }
    tables: dict[str, list[str | None]] = {"recipe": [*RECIPES], "objective": [*SEQUENCES]}
    tables |= {"contexts": [*CONTEXTS, None], "translator": [*KINDS, None]}
    for key, names in tables.items():
        properties[key] |= {"enum": names, "description": _one_of(names)}
    return schema


def _one_of(names: Sequence[str | None]) -> str:
    *first, last = (name or "null" for name in names)
    return f"{', '.join(first)} or {last}"


def table() -> str:
    """Every key with its default, what it may be and what it is, in Markdown."""
    lines = ["| key | default | what it is | what it may be |", "| --- | --- | --- | --- |"]
    for key, rule in load_schema()["properties"].items():
        default = json.dumps(rule["default"]).replace('"', "")
        cells = [f"`{key}`", f"`{default}`", rule["title"], rule["description"]]
        lines.append(f"| {' | '.join(cells)} |".replace("<", "\\<"))
    return "\n".join(lines) + "\n"


# What each source needs, and what it may have besides.
SOURCES: dict[str, tuple[list[str], list[str]]] = {
    "augmented": ([], []),
    "passages": (["corpus"], ["questions"]),
    "documents": (["documents"], ["questions"]),
    "questions": (["questions", "corpus"], []),
}


def _not_together(setting: dict[str, Any]) -> Iterator[str]:
    """What is wrong with values that are allowed, each on its own."""
    if setting["with_cot"] and not setting["fewshot"]:
        yield "with_cot: true needs fewshot, a JSON list of {question, answer}"
    if (task := setting["task_adapter"]) and task == setting["base_weight"]:
        yield "task_adapter and base_weight are one adapter, which would be counted twice: leave one at null"
    lone, kind = [name for name in setting["inference_methods"] if METHODS[name].task], KINDS.get(setting["translator"])
    if lone and not task and not (kind and kind.shared):
        yield f"inference_methods: {lone[0]} asks the task adapter alone, and task_adapter is null"
    yield from _translator_with(setting)
    if setting["projector"] and (setting["objective"] != "reference" or setting["contexts"] not in (None, "both")):
        yield "projector: true makes the training pairs of a translator: leave objective at reference, contexts at null"
    if setting["projector"] and (kept := setting["heldout_pairs"]):
        yield f"heldout_pairs: {kept} and projector: true: a translator's training pairs are never asked; leave it at 0"
    if SEQUENCES[setting["objective"]].teacher:
        if setting["contexts"] not in (None, "none"):
            yield f"contexts is {setting['contexts']}, and with objective: distill only the teacher sees the passage"
    else:
        for key in ("distill_top_k", "distill_temperature", "distill_answers"):
            if setting[key] != LATER[key]:
                yield f"{key} is given, and objective is {setting['objective']}; objective: distill reads it"
    if setting["keep_questions"] and not (setting["keep_directions"] or setting["keep_sequences"]):
        yield "keep_questions is given, and keep_directions and keep_sequences are 0; one of them reads it"
    if setting["keep_directions"] and setting["base_weight"] and not setting["translator"]:
        yield (
            "keep_directions and base_weight: what adapters start with would lose a part; a task_adapter keeps all"
            " of it (docs/warm_up.md)"
        )
    if setting["projector"] and (setting["keep_directions"] or setting["keep_sequences"]):
        yield "projector: true makes the training pairs of a translator: leave keep_directions, keep_sequences at 0"
    ways = _ways(setting)
    if ROUTED not in ways:
        for key in ROUTING:
            if setting[key] != LATER[key]:
                yield f"{key} is given, and combine_adapters is {', '.join(ways)}; combine_adapters: routed reads it"
    source = setting["source"]
    needed, allowed = SOURCES[source]
    for key in ("documents", "corpus", "questions"):
        if key in needed and not setting[key]:
            yield f"source: {source} needs {key}"
        if key not in [*needed, *allowed] and setting[key]:
            others = [other for other, (needs, may) in SOURCES.items() if key in [*needs, *may]]
            yield f"{key} is given, and source: {source} does not read it; source: {' or '.join(others)} does"
    if source == "augmented":
        if setting["augment_with"] == "server" or setting["augment_model_path"]:
            yield "augment_with and augment_model_path are of raw text, and source: augmented needs no more"
        return
    if setting["data_dir"]:
        yield f"data_dir is of augmented data, and source is {source}"
    if (kept := setting["heldout_pairs"]) >= setting["pairs"]:
        yield f"heldout_pairs: {kept} of {setting['pairs']} pairs of a passage leave none to train on; raise pairs"
    if setting["augment_style"] == "reference" and setting["pairs"] != 3:
        yield "augment_style: reference makes three pairs; leave pairs at 3"
    if setting["projector"]:
        yield f"projector: true reads augmented data, and source is {source}"
    if setting["augment_with"] == "server":
        if setting["augment_model_path"]:
            yield "augment_model_path is of a model here; at a server (augment_with) augment_server_model names one"
        for key in ("augment_base_url", "augment_model"):
            if not setting[key]:
                yield f"augment_with: server needs {key}"
        return
    for key in ("augment_base_url", "augment_server_model"):
        if setting[key]:
            yield f"{key} is given, and augment_with is local; augment_with: server asks there"
    own = setting["augment_model"] not in (None, setting["model_name"])
    if setting["augment_model_path"] and not own:
        yield "augment_model_path needs augment_model, the label of that model in paths, other than model_name"
    if own and not setting["augment_model_path"]:
        yield "augment_model names another model than model_name, and augment_model_path does not say where it is"
    if setting["augment_model_revision"] and not setting["augment_model_path"]:
        yield "augment_model_revision is given, and augment_model_path is not"


def _translator_with(setting: dict[str, Any]) -> Iterator[str]:
    """What is wrong with a translator beside other keys."""
    name = setting["translator"]
    if not name:
        for key in TRANSLATOR:
            if setting[key] != LATER[key]:
                yield f"{key} is given, and translator is null; translator: {' or '.join(KINDS)} reads it"
        return
    if setting["projector"]:
        yield (
            f"translator: {name} and projector: true: that reads the pairs which a translator learns from, and this"
            " reads them by itself; leave projector at false"
        )
    if SEQUENCES[setting["objective"]].teacher:
        yield f"translator: {name} learns from no teacher, and objective is {setting['objective']}: give it another one"
    if setting["task_adapter"]:
        yield f"translator: {name} is not trained over a task_adapter; leave that at null"
    for key in ("keep_directions", "keep_sequences"):
        if setting[key] and KINDS[name].learns_from_adapters:
            yield f"{key}: translator: {name} learns from adapters, and from no general questions; leave it at 0"


def _run(setting: dict[str, Any]) -> Run:
    """The checked setting with what follows from other keys: names, and the folders of the project's own files."""
    for key in ("documents", "corpus", "questions", "augment_prompts"):
        setting[key] = setting[key] and layout.one_spelling(setting[key])
    is_demo = setting["source"] == "augmented" and not setting["data_dir"] and not setting["projector"]
    if is_demo and setting["dataset"] in (None, layout.DEMO_DATASET):
        setting["heldout_questions"] = setting["heldout_questions"] or str(layout.DEMO_HELDOUT)
        setting["general_questions"] = setting["general_questions"] or "default"
    if setting["general_questions"] == "default":
        setting["general_questions"] = str(layout.GENERAL)
    for key in ("heldout_questions", "general_questions", "keep_questions"):
        setting[key] = setting[key] and layout.one_spelling(setting[key])
    if setting["sample"] is None:
        setting["sample"] = SAMPLE if setting["source"] in ("augmented", "questions") else -1
    brought = setting["documents"] or setting["questions"] or setting["corpus"]
    setting["dataset"] = setting["dataset"] or (_label(brought) if brought else layout.DEMO_DATASET)
    setting["augment_model"] = setting["augment_model"] or setting["model_name"]
    setting["data_dir"] = layout.one_spelling(setting["data_dir"] or str(layout.DEMO))
    setting["projector_data_dir"] = setting["projector_data_dir"] or f"{setting['data_dir']}_projector"
    setting["prompt_templates"] = setting["prompt_templates"] or str(layout.TEMPLATES)
    for key in ("projector_data_dir", "prompt_templates", "adapter_dir", "store_dir"):
        setting[key] = layout.one_spelling(setting[key])
    for key in ("fewshot", "base_weight", "task_adapter"):
        setting[key] = setting[key] and os.path.expanduser(setting[key])
    if setting["contexts"] == SEQUENCES[setting["objective"]].contexts:
        setting["contexts"] = None  # what it has anyway
    for key in ("learning_rate", "distill_temperature", "keep_directions"):
        setting[key] = float(setting[key])  # 1 and 1.0 are one path: lr=1.0
    setting |= {key: None for key, usual in of_kind(setting["translator"]).items() if setting[key] == usual}
    if setting["translator_learning_rate"] is not None:
        setting["translator_learning_rate"] = float(setting["translator_learning_rate"])
    setting["combine_adapters"] = _ways(setting)
    groups = typing.get_type_hints(Run).values()
    return Run(*(group(**{key.name: setting[key.name] for key in dataclasses.fields(group)}) for group in groups))


def _ways(setting: dict[str, Any]) -> list[str]:
    ways = setting["combine_adapters"]
    return ways if isinstance(ways, list) else [ways]


def _label(path: str) -> str:
    """A name for a folder, of a file or folder of a user's."""
    name = re.sub(r"[^A-Za-z0-9_.+=@-]+", "_", Path(path).stem).lstrip(".+=@-")[:64]
    return name if re.fullmatch(NAME, name) and name != "base_weight" else "data"


def _read(value: Any, rule: dict[str, Any]) -> Any:
    """Undo what YAML 1.1 and the command line do to a value: 3e-4, true and null can arrive as strings, 2 as 2.0."""
    allowed = rule.get("type") or [option.get("type") for option in rule.get("anyOf", [])]
    if isinstance(value, float) and value.is_integer() and allowed != "number":
        return int(value)
    if isinstance(value, dict) and allowed == "object":
        return {key: _read_scalar(item) for key, item in value.items()}
    if not isinstance(value, str):
        return value
    if value == "null" and ("null" in allowed or None in rule.get("enum", [])):
        return None
    if allowed == "boolean" and value.lower() in ("true", "false"):
        return value.lower() == "true"
    if "number" in allowed:
        try:
            return float(value)
        except ValueError:
            pass
    return value


def _read_scalar(value: Any) -> Any:
    """A value inside a mapping: what reads as a number, true, false or null is that, since the command line hands over
    text only; so text like this takes quotes of its own ('"5"')."""
    if not isinstance(value, str):
        return value
    try:
        read = json.loads(value.lower() if value.lower() in ("true", "false", "null") else value)
    except (ValueError, RecursionError):
        return value
    return value if isinstance(read, list | dict) else read


def _faults(config: dict[str, Any], schema: dict[str, Any], where: str) -> list[str]:
    properties = schema["properties"]
    faults = {}
    for key in config:
        if key not in properties:
            close = difflib.get_close_matches(str(key), properties, n=1)
            hint = f"did you mean {close[0]}?" if close else "the keys are those of config.yaml"
            faults[key] = f"{where}{key}: unknown key; {hint}"
    for error in jsonschema.Draft202012Validator(schema).iter_errors(config):
        if error.absolute_path:
            key = str(error.absolute_path[0])
            faults[key] = _fault(where, key, config, properties)
    for key in (
        "learning_rate",
        "distill_temperature",
        "keep_directions",
        "keep_sequences",
        "translator_learning_rate",
        "chat_template_kwargs",
        "augment_prices",
    ):
        value = config.get(key)
        values = value.values() if isinstance(value, dict) else value if isinstance(value, list) else [value]
        if any(map(_is_no_float, values)):
            faults[key] = _fault(where, key, config, properties)
    if isinstance(date := config.get("chat_date"), str):
        try:
            chat_date(date)
        except ValueError:
            faults["chat_date"] = _fault(where, "chat_date", config, properties)
    return list(faults.values())


def _is_no_float(value: Any) -> bool:
    """Whether a value is NaN, an infinity, or a whole number beyond them."""
    return isinstance(value, int | float) and not abs(value) <= sys.float_info.max


def _fault(where: str, key: str, config: dict[str, Any], properties: dict[str, Any]) -> str:
    value = repr(config[key])
    value = value if len(value) <= 100 else value[:100] + "..."
    hint = ""
    if isinstance(config[key], int | float | date) and "string" in properties[key].get("type", ()):
        text = str(config[key]) if isinstance(config[key], date) else json.dumps(config[key])
        hint = (
            f"; as text it takes quotes ({key}: \"{text}\"), on the command line !!str (--config '{key}=!!str {text}')"
        )
    return f"{where}{key}: {value} is not allowed; expected {properties[key]['description']}{hint}"
