"""What was learnt: each passage's own pairs, asked without context, with and without its adapter."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pandas as pd

from ..base.fetch import fingerprint
from ..core import work
from ..core.values import Position
from ..core.work import Item, Work, in_batches, key
from ..data.prompts import Prompter
from ..plan import layout
from . import learnt
from .predict import answerer, check_ids
from .source import Source

if TYPE_CHECKING:
    from .generate import Answerer

log = logging.getLogger(__name__)

PASSAGES_PER_BATCH = 16
NUMERICS = 1
WITH = ("bare", "own", "other")
COLUMNS = ["type", "did", "pid", "question", "passage", "pairs"]
COLUMNS += [f"{measure}_{adapter}" for measure in ("nll", "recall") for adapter in WITH] + ["other"]


def test_passages(
    output: str,
    finished: str,
    kind: str,
    rows: list[dict[str, Any]],
    others: list[Position | None],
    prompter: Prompter,
    source: Source,
    model: str,
    precision: str,
    threads: int,
) -> None:
    """For the passages of some rows of a table (of the type `kind`): the mean negative log-likelihood (nats a token,
    mean over its pairs) of the answers of its own pairs without context, and the share of them that greedy decoding
    gives exactly (recall); with the bare model, with its own adapter, and with that of another passage (`others`: a
    position, or None).

    Writes a line a passage; what is finished is kept in `finished`. Raises LoraryError.
    """
    settings = [NUMERICS, fingerprint(model)["weights"], precision]
    items, lines, failures = [], [], []
    for row, other in zip(rows, others, strict=True):
        own, other = (row["did"], row["pid"]), other and (other[0], other[1])
        place = layout.place(*own)
        answers = [pair["full_answer" if prompter.with_cot else "answer"] for pair in row["pairs"]]
        try:
            pairs = [prompter.answer_ids(pair["question"], a) for pair, a in zip(row["pairs"], answers, strict=True)]
        except Exception as error:  # whatever this tokenizer or its chat template raises over this text
            failures.append(f"{place}: its pairs cannot be asked: {type(error).__name__}: {error}")
            continue
        decides = pairs, source.digest(own), other and source.digest(other)
        items.append(Item(key(settings, decides), place, {"pairs": pairs, "own": own, "other": other}))
        texts = {
            name: " ".join((row[name] or "").split()) for name in ("question", "passage")
        }  # on one line of the table
        about = {"type": kind, "did": row["did"], "pid": row["pid"], **texts, "pairs": len(pairs)}
        lines.append({**about, "other": other and layout.passage_name(kind, *other)})

    @contextmanager
    def begin() -> Iterator[Work]:
        with answerer(model, precision, threads, source, items[0].content["own"]) as ready:
            yield in_batches(
                PASSAGES_PER_BATCH,
                lambda batch: _measure(ready, source, batch),
                "passages",
                lambda item: "its pairs do not fit into memory",
            )

    measured = work.results(finished, items, begin, ("passage", "passages"), failures)
    learnt.write(output, COLUMNS, ({**line, **figures} for line, figures in zip(lines, measured, strict=True)))


def gather(types: dict[str, dict[str, Any]], folder: str, output: str) -> None:
    """One knowledge.tsv of the types of a run, as `learnt.gather` has it. Raises LoraryError."""
    learnt.gather(types, ".tsv", COLUMNS, folder, output)


def read(path: str) -> pd.DataFrame:
    """Raises LoraryError."""
    return learnt.read(path, COLUMNS[6:])


def _measure(ready: "Answerer", source: Source, items: list[Item]) -> list[dict[str, float | None]]:
    figures: list[dict[str, float | None]] = [{} for _ in items]
    passages = [item.content for item in items]
    for ids, _ in (pair for passage in passages for pair in passage["pairs"]):
        check_ids(ids, ready, len(ids))
    for which in WITH:
        asked = [i for i, passage in enumerate(passages) if which == "bare" or passage[which]]
        adapters = {i: [] if which == "bare" else [source.load(passages[i][which])] for i in asked}
        pairs = [(i, pair) for i in asked for pair in passages[i]["pairs"]]
        found = ready.likelihood([pair for _, pair in pairs], [adapters[i] for i, _ in pairs]) if pairs else []
        for i, figure in enumerate(figures):
            mine = [result for (owner, _), result in zip(pairs, found, strict=True) if owner == i]
            figure[f"nll_{which}"] = round(sum(nll for nll, _ in mine) / len(mine), 4) if mine else None
            figure[f"recall_{which}"] = round(sum(exact for _, exact in mine) / len(mine), 4) if mine else None
    return figures
