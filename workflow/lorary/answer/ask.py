"""Ask a question of an existing tree of adapters: the bare model's answer and the adapters', side by side."""

import logging
import textwrap
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from ..base.fetch import fingerprint
from ..core.device import cores
from ..core.errors import LoraryError, damaged
from ..core.files import read_json
from ..data import rows
from ..data.prompts import load_prompter
from ..plan import layout
from ..plan.export import chosen
from ..plan.methods import METHODS, ROUTED, SUM, variant
from ..plan.run import Prompts
from ..raw.passages import RawPassage
from ..train.index import types_of
from .predict import answerer
from .search import best, in_order, kept
from .source import Trained

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Found:
    """A passage whose adapter is loaded."""

    name: str  # <type>/data_<did>/passage_<pid>
    kind: str  # its type
    text: str | None  # None: its adapter was made of pairs alone
    score: float | None  # BM25's; None: the user named it


def ask(
    question: str,
    run: str | None,
    passages: list[str],
    top: int,
    methods: list[str],
    tokens: int | None,
    root: str,
    way: str = SUM,
) -> str:
    """The answers of each method, as text to show. `passages` name what to load, as <type>/data_<did> (a question's) or
    <type>/data_<did>/passage_<pid>; without any, BM25 finds the `top` best ones for the question. Their adapters work
    together in one `way` (of TOGETHER).

    Raises LoraryError.
    """
    methods = [variant(method, way) for method in methods]
    folder = find_run(root, run)
    types = types_of(read_json(folder / layout.ABOUT))
    table = _passages(folder, types)
    found = _named(table, passages, folder) if passages else search(table, question, top)
    active = [_best(table, question, found)] if way == ROUTED else found
    of_these = [types[kind] for kind in dict.fromkeys(passage.kind for passage in found)]
    config = _one_config([{**about["config"][0], **_under(about)} for about in of_these])
    model = layout.MODEL.format(model=config["model_name"])
    _check_model(model, [about["model"] for about in of_these])
    prompter = load_prompter(model, config)
    texts = [passage.text for passage in found if passage.text is not None]
    prompts = {m: prompter.prompt_ids(question, texts if METHODS[m].passages else []) for m in methods}
    answers = {}
    source = Trained(table.set_index("name").to_dict("index"), of_these[0].get("task_adapter"))
    if source.task_adapter is None and (lone := [method for method in methods if METHODS[method].task]):
        raise LoraryError(f"--methods {lone[0]}: these adapters were trained over no task adapter.")
    for passage in active:
        source.digest(passage.name)
    with answerer(model, config["precision"], cores(), source, active[0].name) as ready:
        from .generate import together

        adapters = [source.load(passage.name) for passage in active]
        for method, ids in prompts.items():
            alone = [ready.task] if METHODS[method].task and ready.task else []
            mixture = together(adapters if METHODS[method].adapters else alone, METHODS[method].together)
            limit = tokens or (128 if config["with_cot"] else 32)
            (said,) = ready.generate_mixed([ids], [mixture], limit)
            answers[method] = prompter.tokenizer.decode(said, skip_special_tokens=True)
    return _shown(question, folder, found, answers, active[0] if way == ROUTED else None)


def find_run(root: str, name: str | None) -> Path:
    """The folder of a run (which holds run.json) below `root`: the only one, or the only one whose path has `name`."""
    runs = layout.finished_runs(root)
    matching = [run for run in runs if name is None or name in f"{run}/"]
    if len(matching) == 1:
        return matching[0]
    if not runs:
        raise LoraryError(f"{root}: there is no finished run below this folder. `snakemake --cores all` makes one.")
    listed = "\n".join(f"  {run}" for run in matching or runs)
    which = f"--run {name} names {len(matching) or 'none'} of the runs" if name else "There are several runs"
    raise LoraryError(f"{which}; choose with --run and a part of the path that only one has:\n{listed}")


def search(table: pd.DataFrame, question: str, top: int) -> list[Found]:
    """The passages that go best with the question (`search.best`), each text once. Raises LoraryError where none shares
    a word with it."""
    lines = table.dropna(subset="passage").drop_duplicates("passage").to_dict("records")
    found = best([RawPassage(line["passage"], line["title"]) for line in lines], question, top)
    if not found:
        raise LoraryError("No passage shares a word with this question; name some with --passages.")
    return [
        Found(lines[number]["name"], lines[number]["type"], lines[number]["passage"], score) for number, score in found
    ]


def _best(table: pd.DataFrame, question: str, found: list[Found]) -> Found:
    """Of some passages the one that goes best with the question: the first in the order that a routed method has,
    which knows the passages of their type."""
    kinds = {passage.kind for passage in found}
    lines = table[table["type"].isin(kinds)].dropna(subset="passage").to_dict("records")
    passages = {line["name"]: RawPassage(line["passage"], line["title"]) for line in lines}
    among = list(passages.values())
    with kept(among) as index:
        (order,) = in_order(index, among, [(question, [passages.get(passage.name) for passage in found])])
    return found[order[0][0]]


def _named(table: pd.DataFrame, wanted: list[str], folder: Path) -> list[Found]:
    lines = table.set_index("name")
    names = chosen(list(lines.index), wanted, "--passages", str(folder))
    return [Found(name, lines["type"][name], lines["passage"][name], None) for name in names]


def _under(about: dict[str, Any]) -> dict[str, Any]:
    """The task adapter as what run.json says of a type has it, in the place of its path."""
    return {"task_adapter": about["task_adapter"]} if "task_adapter" in about else {}


def _one_config(configs: list[dict[str, Any]]) -> dict[str, Any]:
    """Of passages of several types, which calls with other settings may have made. Raises LoraryError where they cannot
    be asked together."""
    keys = [*Prompts.__dataclass_fields__, "precision", "lora_target_modules", "task_adapter"]
    if differing := [key for key in keys if any(config.get(key) != configs[0].get(key) for config in configs)]:
        raise LoraryError(
            f"These passages are of types that were encoded with different {', '.join(differing)}: ask the one or the"
            " other with --passages."
        )
    return configs[0]


def _check_model(model: str, trained: list[dict[str, Any]]) -> None:
    """Raises LoraryError where what lies under the model's name is not what adapters were trained on."""
    if not Path(model).is_dir():
        raise LoraryError(f"There is no {model} here ({Path.cwd()}): ask where Snakemake was called.")
    here = fingerprint(model)
    for part in ("weights", "tokenizer"):
        if other := next((about for about in trained if about[part] != here[part]), None):
            raise LoraryError(
                f"{model} is not the base model that these adapters were trained on: its {part} differ"
                f" (sha256 {here[part]:.12}, and it was {other[part]:.12}, of {other.get('source', 'unknown source')})."
                " `snakemake` with the config of that run fetches the one, or trains the other again."
            )


def _passages(folder: Path, types: dict[str, dict[str, Any]]) -> pd.DataFrame:
    """name, type, title, passage (text), and path, sha256 and config_sha256 of each adapter of a run."""
    try:
        index = pd.read_csv(folder / layout.INDEX, sep="\t", keep_default_na=False, dtype={"type": str})
        index = index[["type", "did", "pid", "path", "sha256", "config_sha256"]]
    except (OSError, ValueError, LookupError) as error:
        raise damaged(folder / layout.INDEX, error) from None
    parts = []
    for kind, about in types.items():
        if (table := _table(kind, about)) is None:
            log.warning("the passages of type %s are not here any more: it is left out", kind)
            continue
        passages = rows.read(table, 0, None)
        texts = pd.DataFrame(passages, columns=["did", "pid", "passage"])
        texts["passage"] = texts["passage"].astype(object).where(texts["passage"].notna(), None)
        texts = texts.assign(type=kind, title=list(map(rows.title_of, passages)))
        parts.append(index.merge(texts, on=["type", "did", "pid"]))
    if not parts:
        raise LoraryError(
            "The passages are not here any more; `snakemake` with the config of that run makes them again."
        )
    joined = pd.concat(parts)
    return joined.assign(name=list(map(layout.passage_name, joined["type"], joined["did"], joined["pid"])))


def _table(kind: str, about: dict[str, Any]) -> str | None:
    """Where the passages of a type lie: seen from here, or from where the call for this type was made."""
    table = about["tables"][kind]
    there = [path for path in (Path(table), Path(about.get("called_in", ""), table)) if path.is_file()]
    return str(there[0]) if there else None


def _shown(question: str, folder: Path, found: list[Found], answers: dict[str, str], alone: Found | None) -> str:
    """`alone`: the one whose adapter answers, where it is not all of them."""
    lines = [question, "", f"Adapters of {folder}:"]
    for passage in found:
        score = "" if passage.score is None else f"  (BM25 {passage.score:.2f})"
        lines += [
            f"  {passage.name}{score}{'  (its adapter answers)' if passage is alone else ''}",
            textwrap.indent(textwrap.shorten(passage.text or "(no passage)", 100), "    "),
        ]
    width = max(len(METHODS[method].title) for method in answers)
    lines.append("")
    for method, text in answers.items():
        first, *rest = text.strip().splitlines() or ["(nothing)"]
        lines += [
            f"{METHODS[method].title:{width}} | {first}",
            *(f"{'':{width}} | {line}" for line in rest if line.strip()),
        ]
    return "\n".join(lines)
