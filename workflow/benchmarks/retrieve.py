"""The benchmark of retrieval: what an index of passages costs, by its size, and which passages it finds.

The passages are invented, their words as frequent as in a language (Zipf); or a user's corpus, whose questions may have
golden passages to be found. Each measurement is a process of its own (`python -m benchmarks.retrieve`, which reads the
arguments of `measure` as JSON), so that its peak memory is its own. Index files that are mapped do not count in it.
"""

import json
import logging
import math
import re
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.machine import in_a_process, machine, own_memory
from lorary.raw import question_sets, tables
from lorary.raw.index import Index, make
from lorary.raw.passages import RawPassage
from lorary.raw.words import STOP_WORDS

log = logging.getLogger("lorary.benchmarks")

SIZES = (15_000, 100_000, 1_000_000)
WIKIPEDIA = 21_015_324  # passages of DPR's psgs_w100.tsv, which the reference searches
WORDS, TITLE_WORDS = 83, 2  # of a passage
VOCABULARY = 1_000_000
SYLLABLES = [consonant + vowel for consonant in "bcdfghjklmnprstvwxyz" for vowel in "aeiou"]
QUESTIONS = 500
FREQUENT = sorted(STOP_WORDS)
TOPS = (3, 10)


def bench_retrieval(corpus: str | None, questions: str | None, output: str) -> str:
    """Measure invented passages of each size, and the corpus; write TSV. Returns a table for reading."""
    invented = [_measured(None, size) for size in SIZES]
    lines = [*invented, _further(invented, WIKIPEDIA)]
    if corpus:
        lines.append(_measured(corpus, None, questions))
    columns = list(lines[-1])
    rows = ["\t".join(columns), *("\t".join(f"{line.get(key, math.nan):.6g}" for key in columns) for line in lines)]
    Path(output).write_text("\n".join(rows) + "\n", encoding="utf-8")
    return _table(lines)


def measure(way: str, **arguments: Any) -> dict[str, float]:
    by_name: dict[str, Callable[..., dict[str, float]]] = {"make": measure_make, "search": measure_search}
    return by_name[way](**arguments)


def measure_make(folder: str, corpus: str | None = None, size: int | None = None) -> dict[str, float]:
    """Index a corpus, or so many invented passages. What it takes to read or to invent them does not count."""
    spent = {"seconds": 0.0, "cpu_seconds": 0.0}
    passages = tables.read(corpus) if corpus else invented(size or 0)
    began, began_cpu = time.perf_counter(), time.process_time()
    with own_memory() as memory:
        count = make(_timed(passages, spent), folder)
    disk = sum(path.stat().st_size for path in Path(folder).rglob("*") if path.is_file())
    return {
        "passages": count,
        "seconds": time.perf_counter() - began - spent["seconds"],
        "cpu_seconds": time.process_time() - began_cpu - spent["cpu_seconds"],
        "index_memory_gb": memory[-1],
        "disk_gb": disk / 1e9,
    }


def measure_search(folder: str, questions: list[str]) -> dict[str, float]:
    """Ten passages for each question, one question after the other."""
    with own_memory() as memory:
        index = Index(folder)
        index.search(questions[0], 10)
        began = time.perf_counter()
        for question in questions:
            index.search(question, 10)
        seconds = time.perf_counter() - began
    return {"questions_a_second": len(questions) / seconds, "search_memory_gb": memory[-1]}


def invented(count: int) -> Iterator[RawPassage]:
    """Passages of words that nobody knows, but for the most frequent ones; always the same."""
    rng = np.random.default_rng(0)
    for start in range(0, count, 1000):
        ranks = (VOCABULARY ** rng.random((min(1000, count - start), TITLE_WORDS + WORDS))).astype(int)
        for row in ranks.tolist():
            words = [_word(rank) for rank in row]
            yield RawPassage(" ".join(words[TITLE_WORDS:]), " ".join(words[:TITLE_WORDS]))


def asked(passages: Iterable[RawPassage]) -> list[str]:
    """A question of each passage: words of its title and its text."""
    rng = np.random.default_rng(1)
    return [f"{passage.title} {' '.join(rng.choice(passage.text.split() or [''], 10))}?" for passage in passages]


def recall(questions: str, folder: str) -> dict[str, float]:
    """The share of the golden passages of questions that are among the first 3, and 10, that are found."""
    index = Index(folder)
    asked = [question for kind in question_sets.load(questions).values() for question in kind]
    found, golden = dict.fromkeys(TOPS, 0), 0
    for question in asked:
        wanted = {_letters(text) for text in question.extra.get("golden_passages", [])}
        passages = index.passages([number for number, _ in index.search(question.question, max(TOPS))])
        golden += len(wanted)
        for top in TOPS:
            found[top] += len(wanted & {_letters(passage.text) for passage in passages[:top]})
    return {f"recall_at_{top}": number / golden for top, number in found.items()} if golden else {}


def _measured(corpus: str | None, size: int | None, questions: str | None = None) -> dict[str, float]:
    log.info("indexing %s", corpus or f"{size:,} invented passages")
    with tempfile.TemporaryDirectory() as folder:
        where = {"folder": f"{folder}/index", "corpus": corpus, "size": size}
        made = in_a_process("benchmarks.retrieve", {"way": "make", **where})
        some = asked(islice(tables.read(corpus) if corpus else invented(QUESTIONS), QUESTIONS))
        found = in_a_process("benchmarks.retrieve", {"way": "search", "folder": where["folder"], "questions": some})
        return made | found | (recall(questions, f"{folder}/index") if questions else {})


def _further(lines: list[dict[str, float]], passages: int) -> dict[str, float]:
    """What so many would take, on the line through the last two that were measured; no less than the last."""
    one, two = ({**line, "seconds_a_question": 1 / line["questions_a_second"]} for line in lines[-2:])
    ratio = (passages - one["passages"]) / (two["passages"] - one["passages"])
    line = {key: max(one[key] + ratio * (two[key] - one[key]), two[key]) for key in one}
    line["questions_a_second"] = 1 / line.pop("seconds_a_question")
    return line


def _table(lines: list[dict[str, float]]) -> str:
    told = [
        f"On {machine(1)}, one passage and one question after the other ({WIKIPEDIA:,} by the line through the last"
        " two before them):",
        "",
        "| passages | indexed in | CPU time | memory | disk | questions a second | memory |",
        "|" + " --- |" * 7,
    ]
    for line in lines:
        cells = [f"{line['passages']:,.0f}", f"{line['seconds']:,.1f} s", f"{line['cpu_seconds']:,.1f} s"]
        cells += [f"{line['index_memory_gb']:.2f} GB", f"{line['disk_gb']:.3f} GB"]
        cells += [f"{line['questions_a_second']:,.0f}", f"{line['search_memory_gb']:.2f} GB"]
        told.append(f"| {' | '.join(cells)} |")
    if found := [
        f"{lines[-1][f'recall_at_{top}']:.1%} among the first {top}" for top in TOPS if "recall_at_3" in lines[-1]
    ]:
        told += ["", f"Of the questions' golden passages there are {', and '.join(found)}."]
    return "\n".join(told) + "\n"


def _timed(passages: Iterator[RawPassage], spent: dict[str, float]) -> Iterator[RawPassage]:
    while True:
        began, began_cpu = time.perf_counter(), time.thread_time()
        some = list(islice(passages, 1000))
        spent["seconds"] += time.perf_counter() - began
        spent["cpu_seconds"] += time.thread_time() - began_cpu
        if not some:
            return
        yield from some


def _word(rank: int) -> str:
    if rank <= len(FREQUENT):
        return FREQUENT[rank - 1]
    word = ""
    while rank:
        rank, syllable = divmod(rank, len(SYLLABLES))
        word += SYLLABLES[syllable]
    return word


def _letters(text: str) -> str:
    """The text as sets write it differently: without blanks and punctuation."""
    return re.sub(r"\W", "", text).lower()


if __name__ == "__main__":
    print(json.dumps(measure(**json.loads(sys.stdin.read()))))
