"""From the config, as Snakemake hands it over, to checked runs: one complete setting each."""

import dataclasses
import difflib
import json
import os
import sys
import typing
from datetime import date
from pathlib import Path
from typing import Any

import jsonschema
import yaml

from ..core.errors import report
from ..core.twice import refuse_twice
from ..core.values import chat_date
from . import layout
from .methods import METHODS
from .run import Run

SCHEMA = Path(__file__).parents[2] / "schemas" / "config.schema.yaml"


def resolve(config: dict[str, Any]) -> list[Run]:
    """The runs of a config: defaults, overridden by the config, overridden by each entry of `runs`.

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
    settings = [] if faults else [{**defaults, **config, **override} for override in overrides or [{}]]
    for i, setting in enumerate(settings):
        if setting["with_cot"] and not setting["fewshot"]:
            where = f"runs[{i}]." if overrides else ""
            faults.append(f"{where}with_cot: true needs fewshot, a JSON list of {{question, answer}}")
    if faults:
        raise report(faults, "The config has values that are not allowed (config.yaml, --configfile or --config):")
    return [_run(setting) for setting in settings]


def check_files(files: list[str | Path]) -> None:
    """Raises LoraryError where a config file, which Snakemake has read, gives a key twice."""
    for file in files:
        refuse_twice(str(file), Path(file).read_text(encoding="utf-8"))


def load_schema() -> dict[str, Any]:
    """The schema of a config, which lets `inference_methods` be those of the table."""
    schema = yaml.safe_load(SCHEMA.read_text(encoding="utf-8"))
    methods = schema["properties"]["inference_methods"]
    methods |= {"items": {"enum": list(METHODS)}, "default": list(METHODS)}
    methods["description"] = f"a list of {', '.join(METHODS)}, which may be empty"
    return schema


def table() -> str:
    """Every key with its default, what it may be and what it is, in Markdown."""
    lines = ["| key | default | what it is | what it may be |", "| --- | --- | --- | --- |"]
    for key, rule in load_schema()["properties"].items():
        default = json.dumps(rule["default"]).replace('"', "")
        cells = [f"`{key}`", f"`{default}`", rule["title"], rule["description"]]
        lines.append(f"| {' | '.join(cells)} |".replace("<", "\\<"))
    return "\n".join(lines) + "\n"


def _run(setting: dict[str, Any]) -> Run:
    """The checked setting with what follows from other keys: names, and the folders of the project's own files."""
    setting["augment_model"] = setting["augment_model"] or setting["model_name"]
    setting["data_dir"] = layout.one_spelling(setting["data_dir"] or str(layout.DEMO))
    setting["projector_data_dir"] = setting["projector_data_dir"] or f"{setting['data_dir']}_projector"
    setting["prompt_templates"] = setting["prompt_templates"] or str(layout.TEMPLATES)
    for key in ("projector_data_dir", "prompt_templates", "adapter_dir", "store_dir"):
        setting[key] = layout.one_spelling(setting[key])
    for key in ("fewshot", "base_weight"):
        setting[key] = setting[key] and os.path.expanduser(setting[key])
    setting["learning_rate"] = float(setting["learning_rate"])  # 1 and 1.0 are one path: lr=1.0
    groups = typing.get_type_hints(Run).values()
    return Run(*(group(**{key.name: setting[key.name] for key in dataclasses.fields(group)}) for group in groups))


def _read(value: Any, rule: dict[str, Any]) -> Any:
    """Undo what YAML 1.1 and the command line do to a value: 3e-4, true and null can arrive as strings, 2 as 2.0."""
    allowed = rule.get("type") or [option.get("type") for option in rule.get("anyOf", [])]
    if isinstance(value, float) and value.is_integer() and allowed != "number":
        return int(value)
    if isinstance(value, dict) and allowed == "object":
        return {key: _read_scalar(item) for key, item in value.items()}
    if not isinstance(value, str):
        return value
    if "null" in allowed and value == "null":
        return None
    if allowed == "boolean" and value.lower() in ("true", "false"):
        return value.lower() == "true"
    if allowed == "number":
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
    for key in ("learning_rate", "chat_template_kwargs"):
        value = config.get(key)
        if any(map(_is_no_float, value.values() if isinstance(value, dict) else [value])):
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
