"""What was learnt: each passage's own pairs, asked without context, with and without its adapter."""

import csv
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pandas as pd

from ..base.fetch import fingerprint
from ..core import work as journal
from ..core.errors import LoraryError, damaged, report
from ..core.files import written_whole
from ..data import rows as dataset
from ..data.prompts import Prompter
from .predict import Trained, answerer

log = logging.getLogger(__name__)

PASSAGES_PER_BATCH = 16
NUMERICS = 1
WITH = ("bare", "own", "other")
COLUMNS = ["type", "did", "pid", "question", "passage", "pairs"]
COLUMNS += [f"{measure}_{adapter}" for measure in ("nll", "recall") for adapter in WITH] + ["other"]


def test_passages(
    output: str,
    journal_file: str,
    table: str,
    rows: tuple[int, int],
    others: list[tuple[int, int] | None],
    prompter: Prompter,
    records: list[str],
    model: str,
    precision: str,
    threads: int,
) -> None:
    """For the passages of some rows of a table: the mean negative log-likelihood (nats a token, mean over its pairs) of
    the answers of its own pairs without context, and the share of them that greedy decoding gives exactly (recall);
    with the bare model, with its own adapter, and with that of another passage (`others`: a position, or None).

    Writes a line a passage. Raises LoraryError.
    """
    trained = Trained(records)
    passages, failures = [], []
    for row, other in zip(dataset.read(table, *rows), others, strict=True):
        place = f"data_{row['did']}/passage_{row['pid']}"
        answers = [pair["full_answer" if prompter.with_cot else "answer"] for pair in row["pairs"]]
        try:
            pairs = [prompter.answer_ids(pair["question"], a) for pair, a in zip(row["pairs"], answers, strict=True)]
        except Exception as error:  # whatever this tokenizer or its chat template raises over this text
            failures.append(f"{place}: its pairs cannot be asked: {type(error).__name__}: {error}")
            continue
        own = trained.adapter((row["did"], row["pid"]))
        another = trained.adapter(tuple(other)) if other else None
        texts = {key: " ".join(row[key].split()) for key in ("question", "passage")}  # on one line of the table
        passages.append({"did": row["did"], "pid": row["pid"], **texts, "pairs": pairs, "own": own, "other": another})
    if failures:
        raise report(failures, "Some passages failed:")
    settings = [NUMERICS, fingerprint(model)["weights"], precision]
    batches = [
        journal.Batch(
            journal.key(settings, [(p["pairs"], p["own"][1], p["other"] and p["other"][1]) for p in some]), some
        )
        for some in (passages[i : i + PASSAGES_PER_BATCH] for i in range(0, len(passages), PASSAGES_PER_BATCH))
    ]

    @contextmanager
    def begin() -> Iterator[Callable[[list[dict]], list[dict]]]:
        with answerer(model, precision, threads, [passages[0]["own"][0]]) as ready:
            yield lambda some: _measure(ready, some)

    measured = journal.finish(journal_file, batches, begin, "passages")
    with written_whole(output) as temporary, temporary.open("w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS[1:], delimiter="\t", lineterminator="\n")
        writer.writeheader()
        for passage, figures in zip(passages, (figures for batch in measured for figures in batch), strict=True):
            about = {key: passage[key] for key in ("did", "pid", "question", "passage")}
            other = passage["other"] and "/".join(Path(passage["other"][0]).parts[-3:])
            writer.writerow({**about, **figures, "pairs": len(passage["pairs"]), "other": other})


def gather(parts: list[str], types: list[str], output: str) -> None:
    """One knowledge.tsv out of the tables of its jobs (`types`: the type of each). Raises LoraryError."""
    tables = []
    for part, kind in zip(parts, types, strict=True):
        tables.append(read(part).assign(type=kind))
    pd.concat(tables)[COLUMNS].to_csv(output, sep="\t", index=False)


def read(path: str) -> pd.DataFrame:
    """Raises LoraryError."""
    empty = {column: [""] for column in COLUMNS[6:]}
    try:
        return pd.read_csv(path, sep="\t", keep_default_na=False, na_values=empty, dtype={"type": str})
    except (OSError, ValueError) as error:
        raise damaged(path, error) from None


def _measure(ready: Any, passages: list[dict]) -> list[dict[str, float | None]]:
    from ..base.decoder import out_of_memory
    from .generate import load_adapter

    figures: list[dict[str, float | None]] = [{} for _ in passages]
    for which in WITH:
        asked = [i for i, passage in enumerate(passages) if which == "bare" or passage[which]]
        adapters = {i: [] if which == "bare" else [load_adapter(passages[i][which][0])] for i in asked}
        pairs = [(i, pair) for i in asked for pair in passages[i]["pairs"]]
        try:
            found = ready.likelihood([pair for _, pair in pairs], [adapters[i] for i, _ in pairs]) if pairs else []
        except Exception as error:
            if not out_of_memory(error):
                raise
            found = None
        if found is None:
            return _one_by_one(ready, passages)
        for i, figure in enumerate(figures):
            mine = [result for (owner, _), result in zip(pairs, found, strict=True) if owner == i]
            figure[f"nll_{which}"] = round(sum(nll for nll, _ in mine) / len(mine), 4) if mine else None
            figure[f"recall_{which}"] = round(sum(exact for _, exact in mine) / len(mine), 4) if mine else None
    return figures


def _one_by_one(ready: Any, passages: list[dict]) -> list[dict[str, float | None]]:
    """Where passages do not fit into memory together. Raises LoraryError where one does not."""
    if ready.device.type == "cuda":
        import torch

        torch.cuda.empty_cache()
    if len(passages) == 1:
        place = f"data_{passages[0]['did']}/passage_{passages[0]['pid']}"
        raise LoraryError(f"{place}: its pairs do not fit into memory")
    log.warning("%d passages do not fit into memory together: going on one by one", len(passages))
    return [one for passage in passages for one in _measure(ready, [passage])]
