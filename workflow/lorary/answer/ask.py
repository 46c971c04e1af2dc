"""Ask a question of an existing tree of adapters: the bare model's answer and the adapters', side by side."""

import contextlib
import logging
import textwrap
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from ..base.fetch import fingerprint
from ..core.device import cores
from ..core.errors import LoraryError, damaged
from ..core.files import read_json
from ..data import rows
from ..data.prompts import Prompter, load_prompter
from ..plan import layout
from ..plan.export import by_name, chosen
from ..plan.methods import METHODS, ROUTED, SUM, variant
from ..plan.run import Prompts
from ..raw.index import Index
from ..raw.passages import RawPassage
from ..train.index import types_of
from .predict import answerer
from .search import in_order, kept, numbers
from .source import Source, Trained

if TYPE_CHECKING:
    from ..adapters.lora import Adapter
    from .generate import Answerer

log = logging.getLogger(__name__)


class NothingFound(LoraryError):
    """No passage shares a word with a question."""


@dataclass(frozen=True)
class Found:
    """A passage that goes with a question."""

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
    with contextlib.closing(open_run(root, run)) as opened:
        found = opened.named(passages, "--passages") if passages else opened.search(question, top)
        active = opened.active(question, found, way)
    setting = opened.setting(passage.kind for passage in found)
    prompts = {method: setting.prompt_ids(question, method, found) for method in methods}
    if setting.source.task_adapter is None and (lone := [method for method in methods if METHODS[method].task]):
        raise LoraryError(f"--methods {lone[0]}: these adapters were trained over no task adapter.")
    adapters = setting.load(active)
    answers = {}
    with answerer(setting.model, setting.precision, cores(), setting.source, active[0].name) as ready:
        for method, ids in prompts.items():
            (said,) = ready.generate_mixed([ids], [at_work(ready, method, adapters)], tokens or setting.max_new_tokens)
            answers[method] = setting.prompter.tokenizer.decode(said, skip_special_tokens=True)
    return _shown(question, opened.folder, found, answers, active[0] if way == ROUTED else None)


@dataclass(frozen=True)
class Setting:
    """What passages of a run have in common that are asked together."""

    model: str  # the base model's directory
    precision: str
    max_new_tokens: int  # where nobody says how many
    prompter: Prompter
    source: Source

    def prompt_ids(self, question: str, method: str, found: list[Found]) -> list[int]:
        texts = [passage.text for passage in found if passage.text is not None]
        return self.prompter.prompt_ids(question, texts if METHODS[method].passages else [])

    def load(self, active: list[Found]) -> list["Adapter"]:
        """The adapters of passages. Raises LoraryError where one is not what was trained."""
        for passage in active:
            self.source.digest(passage.name)
        return [self.source.load(passage.name) for passage in active]


def at_work(ready: "Answerer", method: str, adapters: list["Adapter"]) -> list[list["Adapter"]]:
    """The sets of adapters that answer a question with this method, of those of its passages."""
    from .generate import together

    alone = [ready.task] if METHODS[method].task and ready.task else []
    return together(adapters if METHODS[method].adapters else alone, METHODS[method].together)


@dataclass(frozen=True)
class Indexed:
    """Passages, to be found."""

    names: list[str]  # by their numbers in the index
    numbers: dict[str, int]  # by name: also of those whose text the index has under another
    index: Index


class Opened:
    """A run's passages, to be found for questions; what indexes that takes stay open."""

    def __init__(self, folder: Path, types: dict[str, dict[str, Any]], table: pd.DataFrame):
        """`types`: of each what run.json says; `table`: a line an adapter."""
        self.folder, self.types, self.table = folder, types, table
        self.kinds = list(table["type"].unique())
        kinds_and_texts = zip(table["type"], table["passage"], strict=True)
        self._passages: dict[str, tuple[str, str | None]] = dict(zip(table["name"], kinds_and_texts, strict=True))
        self._names = by_name(self._passages)
        self._indexes: dict[str | None, Indexed] = {}
        self._open = contextlib.ExitStack()

    def close(self) -> None:
        self._open.close()

    def search(self, question: str, top: int) -> list[Found]:
        """The passages that go best with the question, each text once; stop words count only where it has nothing else.
        Raises NothingFound."""
        indexed = self.index()
        found = [(indexed.names[number], score) for number, score in indexed.index.search(question, top)]
        if not found:
            raise NothingFound("No passage shares a word with this question; name some with --passages.")
        return [Found(name, *self._passages[name], score) for name, score in found]

    def named(self, wanted: list[str], key: str) -> list[Found]:
        """Those that somebody has named, under this `key`. Raises LoraryError."""
        names = chosen(self._names, wanted, key, str(self.folder))
        return [Found(name, *self._passages[name], None) for name in names]

    def active(self, question: str, found: list[Found], way: str) -> list[Found]:
        """Those whose adapters answer, where they work together in this way (of TOGETHER)."""
        return [self._best(question, found)] if way == ROUTED else found

    def _best(self, question: str, found: list[Found]) -> Found:
        """Of some passages the one that goes best with the question: the first in the order that a routed method has,
        which knows the passages of their type; where they are of several, the first among those of all types."""
        kinds = {passage.kind for passage in found}
        indexed = self.index(kinds.pop() if len(kinds) == 1 else None)
        (order,) = in_order(indexed.index, [(question, [indexed.numbers.get(passage.name) for passage in found])])
        return found[order[0][0]]

    def index(self, kind: str | None = None) -> Indexed:
        """All passages of a type that have a text; or those of all types, each text once."""
        if kind not in self._indexes:
            there = self.table[["name", "type", "passage", "title"]].dropna(subset="passage")
            there = there if kind is None else there[there["type"] == kind]
            some = there.drop_duplicates("passage") if kind is None else there
            passages = list(map(RawPassage, some["passage"], some["title"]))
            # Each text once: its number is that of the first which has it.
            known = pd.factorize(there["passage"])[0].tolist() if kind is None else numbers(passages)
            of_name = dict(zip(there["name"], known, strict=True))
            self._indexes[kind] = Indexed(list(some["name"]), of_name, self._open.enter_context(kept(passages)))
        return self._indexes[kind]

    def setting(self, kinds: Iterable[str]) -> Setting:
        """For passages of these types. Raises LoraryError where they cannot be asked together, and where the base model
        here is not theirs."""
        of_these = [self.types[kind] for kind in dict.fromkeys(kinds)]
        config = _one_config([{**about["config"][0], **_under(about)} for about in of_these])
        model = layout.MODEL.format(model=config["model_name"])
        _check_model(model, [about["model"] for about in of_these])
        lines = self.table.set_index("name")[["path", "sha256", "config_sha256"]].to_dict("index")
        source = Trained(lines, of_these[0].get("task_adapter"))
        tokens = 128 if config["with_cot"] else 32
        return Setting(model, config["precision"], tokens, load_prompter(model, config), source)


def open_run(root: str, name: str | None) -> Opened:
    """The run of this name (see `find_run`). Raises LoraryError."""
    folder = find_run(root, name)
    types = types_of(read_json(folder / layout.ABOUT))
    return Opened(folder, types, _passages(folder, types))


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


def _under(about: dict[str, Any]) -> dict[str, Any]:
    """The task adapter as what run.json says of a type has it, in the place of its path."""
    return {"task_adapter": about["task_adapter"]} if "task_adapter" in about else {}


def _one_config(configs: list[dict[str, Any]]) -> dict[str, Any]:
    """Of passages of several types, which calls with other settings may have made. Raises LoraryError where they cannot
    be asked together."""
    keys = [*Prompts.__dataclass_fields__, "precision", "lora_target_modules", "task_adapter"]
    if differing := [key for key in keys if any(config.get(key) != configs[0].get(key) for config in configs)]:
        raise LoraryError(
            f"These passages are of types that were encoded with different {', '.join(differing)}, and cannot be asked"
            " together (nor served): name some of one type with `ask --passages`."
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
    index, parts = read_index(folder).drop(columns="name"), []
    for kind, about in types.items():
        if (table := _table(kind, about)) is None:
            log.warning("the passages of type %s are not here any more: it is left out", kind)
            continue
        passages = rows.read(table, 0, None, ["did", "pid", "passage", "extra"])
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


def read_index(folder: Path) -> pd.DataFrame:
    """name, type, did, pid, path, sha256 and config_sha256 of each adapter of a run. Raises LoraryError."""
    columns = ["type", "did", "pid", "path", "sha256", "config_sha256"]
    try:
        types = {"type": str}
        index = pd.read_csv(folder / layout.INDEX, sep="\t", keep_default_na=False, dtype=types, usecols=columns)
        index = index[columns]
    except (OSError, ValueError, LookupError) as error:
        raise damaged(folder / layout.INDEX, error) from None
    return index.assign(name=list(map(layout.passage_name, index["type"], index["did"], index["pid"])))


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
