"""What was learnt beyond what was trained on: pairs kept out of training, written questions, and general ones."""

import logging
import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pandas as pd

from ..base.fetch import end_tokens, fingerprint
from ..core import work
from ..core.files import written_whole
from ..core.values import Position
from ..core.work import Item, Work, in_batches, key
from ..data import heldout
from ..data.prompts import Prompter
from ..plan import layout
from . import learnt
from .predict import QUESTIONS_PER_BATCH, answerer, check_ids
from .score import cut, ended, first_line, holds, score
from .source import Source
from .tables import bootstrap

if TYPE_CHECKING:
    from .generate import Answerer

log = logging.getLogger(__name__)

NUMERICS = 2
MEASURES = [f"{measure}_{adapter}" for measure in ("nll", "exact") for adapter in ("bare", "own", "other")]
MEASURES += [f"{measure}_{adapter}" for measure in ("f1", "hit") for adapter in ("bare", "own")]
COLUMNS = ["type", "did", "pid", "kind", "question", "answer", *MEASURES, "answer_bare", "answer_own", "other"]
# Better where above 0.
GAINS = {"nll_gain": ("nll_bare", "nll_own"), "f1_gain": ("f1_own", "f1_bare"), "hit_gain": ("hit_own", "hit_bare")}
SUMMARY = ["kind", "questions", "passages"]  # columns, before those of each measure and gain
SUMMARY += [f"{measure}{end}" for measure in (*MEASURES, *GAINS) for end in ("", "_low", "_high")]


def test_heldout(
    output: str,
    finished: str,
    kind: str,
    rows: list[dict[str, Any]],
    others: list[Position | None],
    heldout_pairs: int,
    written: str | None,
    general: tuple[str, list[list[Position]]] | None,
    prompter: Prompter,
    source: Source,
    model: str,
    precision: str,
    max_new_tokens: int,
    threads: int,
) -> None:
    """Ask about the passages of some rows of a table (of the type `kind`), without context, what their adapters were
    not trained on: their last `heldout_pairs` pairs, and the questions of the file `written`. And the `general`
    questions of a file, each with the adapters at some positions.

    Of each: the mean negative log-likelihood of the right answer (nats a token; of aliases the first one), whether
    greedy decoding gives exactly it, and the greedy answer (at most `max_new_tokens`, its first line), with the F1 of
    what is scored of it, and whether it has the right one anywhere in it (hit); with the bare model, with the passage's
    own adapter (of a general question: the one that it is asked with), and, but for the greedy answer, with that of
    another passage (`others`: a position, or None). Writes a line a question and adapter (COLUMNS); what is finished is
    kept in `finished`. Raises LoraryError.
    """
    asked = list(_asked(kind, rows, others, heldout_pairs, written, prompter.with_cot))
    if general:
        questions = heldout.read_general(general[0])
        asked += [
            {**question, "kind": "general", "own": (own[0], own[1]), "other": None, "said": question["answers"][0]}
            for question, adapters in zip(questions, general[1], strict=True)
            for own in adapters
        ]
    about = fingerprint(model)
    settings = [NUMERICS, about["weights"], about["tokenizer"], sorted(end_tokens(model)), precision, max_new_tokens]
    items, failures = [], []
    for question in asked:
        place = f"{layout.place(*question['own'])}, {question['kind']} question {question['question']}"
        try:
            sequence = prompter.answer_ids(question["question"], question["said"])
        except Exception as error:  # whatever this tokenizer or its chat template raises over this text
            failures.append(f"{place}: it cannot be asked: {type(error).__name__}: {error}")
            continue
        for which in ("bare", "own", "other"):
            adapter = None if which == "bare" else question[which]
            if which == "bare" or adapter:
                decides = sequence, adapter and source.digest(adapter), which != "other"
                content = {"sequence": sequence, "adapter": adapter, "answer": which != "other"}
                items.append((which, question, Item(key(settings, decides), place, content)))
    items.sort(key=lambda item: ("bare", "own", "other").index(item[0]))  # in a batch, answers of about one length

    @contextmanager
    def begin() -> Iterator[Work]:
        some = next((question["own"] for _, question, _ in items), None)
        with answerer(model, precision, threads, source, some) as ready:
            yield in_batches(
                QUESTIONS_PER_BATCH,
                lambda batch: _measure(ready, source, prompter, max_new_tokens, batch),
                "questions",
                lambda item: "it does not fit into memory",
            )

    found = work.results(finished, [item for *_, item in items], begin, ("question", "questions"), failures)
    for (which, question, _), (nll, exact, text) in zip(items, found, strict=True):
        question |= {f"nll_{which}": nll, f"exact_{which}": exact}
        if text is not None:
            line = first_line(text, prompter.with_cot)
            f1, hit = score(cut(text, prompter.with_cot), question["answers"])["f1"], holds(line, question["answers"])
            question |= {f"answer_{which}": line, f"f1_{which}": round(f1, 4), f"hit_{which}": int(hit)}
    learnt.write(output, COLUMNS, (_line(kind, question) for question in asked))


def gather(types: dict[str, dict[str, Any]], folder: str, output: str, summary: str) -> None:
    """One heldout.tsv of the types of a run, as `learnt.gather` has it, and its `summary`. Raises LoraryError."""

    def write_summary() -> None:
        with written_whole(summary) as temporary:
            summarize(read(output)).to_csv(temporary, sep="\t", index=False, float_format="%.4f")

    learnt.gather(types, layout.HELDOUT, COLUMNS, folder, output, write_summary)


def read(path: str) -> pd.DataFrame:
    """Raises LoraryError."""
    return learnt.read(path, [*MEASURES, "other"])


def summarize(asked: pd.DataFrame) -> pd.DataFrame:
    """A line for each kind of question in a heldout.tsv: how many questions and passages, and of each measure the mean
    over passages (of general questions: over questions), with its 95 % bootstrap interval, `_low` and `_high`. A gain
    is what the own adapter does better than the bare model."""
    asked = asked.assign(**{gain: asked[a] - asked[b] for gain, (a, b) in GAINS.items()})
    lines = []
    for kind in heldout.KINDS:
        of_kind = asked[asked["kind"] == kind]
        if of_kind.empty:
            continue
        passages, questions = ["type", "did", "pid"], ["question"]
        units = of_kind.groupby(questions if kind == "general" else passages)[[*MEASURES, *GAINS]].mean()
        line: dict[str, Any] = {
            "kind": kind,
            "questions": of_kind["question"].nunique() if kind == "general" else len(of_kind),
            "passages": len(of_kind[passages].drop_duplicates()),
        }
        for measure in units:
            values = units[[measure]].dropna().to_numpy()  # there may be no other passage
            mean, low, high = (values.mean(), *bootstrap(values)[:, 0]) if len(values) else [math.nan] * 3
            line |= {measure: mean, f"{measure}_low": low, f"{measure}_high": high}
        lines.append(line)
    return pd.DataFrame(lines, columns=SUMMARY)


def _asked(
    kind: str,
    rows: list[dict[str, Any]],
    others: list[Position | None],
    heldout_pairs: int,
    written: str | None,
    with_cot: bool,
) -> Iterator[dict[str, Any]]:
    """The questions about the passages of these rows: question, answers, what is `said` where it is right, kind, and
    whose adapters they are asked with, `own` and `other`."""
    about: dict[Position, list[dict[str, Any]]] = {}
    for question in heldout.read_written(written) if written else ():
        if question["type"] in (None, kind):
            said = {"said": question["answers"][0]}
            about.setdefault((question["did"], question["pid"]), []).append({**question, **said})
    fewer = 0
    for row, other in zip(rows, others, strict=True):
        own = row["did"], row["pid"]
        kept = heldout.kept(row["pairs"], heldout_pairs)
        fewer += len(kept) < heldout_pairs
        pairs = [
            {
                "question": pair["question"],
                "answers": [pair["answer"]],
                "said": pair["full_answer"] if with_cot else pair["answer"],
                "kind": "kept",
            }
            for pair in kept
        ]
        for question in [*about.get(own, []), *pairs]:
            yield {**question, "own": own, "other": other and (other[0], other[1])}
    if fewer:
        log.warning("%d passages have too few pairs to keep %d out of training: they keep fewer", fewer, heldout_pairs)


def _measure(
    ready: "Answerer", source: Source, prompter: Prompter, max_new_tokens: int, items: list[Item]
) -> list[list[Any]]:
    """nll, exact, and the greedy answer where it is wanted, of each."""

    def decode(tokens: list[int]) -> str:
        return prompter.tokenizer.decode(tokens, skip_special_tokens=True)

    def over(tokens: list[int]) -> bool:
        return ended(decode(tokens), prompter.with_cot)

    for item in items:
        ids, begin = item.content["sequence"]
        check_ids(ids, ready, max(len(ids), begin + max_new_tokens * item.content["answer"]))
    found: dict[str, list[Any]] = {}
    for answer in (True, False):
        some = [item for item in items if item.content["answer"] == answer]
        if not some:
            continue
        sequences = [item.content["sequence"] for item in some]
        sets = [[source.load(item.content["adapter"])] if item.content["adapter"] else [] for item in some]
        if answer:
            said = ready.likelihood_and_answer(sequences, sets, max_new_tokens, over)
            of_each = [[round(nll, 4), int(exact), decode(tokens)] for nll, exact, tokens in said]
        else:
            of_each = [[round(nll, 4), int(exact), None] for nll, exact in ready.likelihood(sequences, sets)]
        found |= {item.key: result for item, result in zip(some, of_each, strict=True)}
    return [found[item.key] for item in items]


def _line(kind: str, question: dict[str, Any]) -> dict[str, Any]:
    (did, pid), other = question["own"], question["other"]
    texts = {key: question[key] for key in ("question", "answer_bare", "answer_own")}
    texts |= {"answer": " | ".join(question["answers"])}
    texts = {key: " ".join(text.split()) for key, text in texts.items()}  # on one line of the table
    place = {"type": kind, "did": did, "pid": pid, "other": other and layout.passage_name(kind, *other)}
    return {**question, **texts, **place}
