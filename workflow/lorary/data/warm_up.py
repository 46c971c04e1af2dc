"""Data of a warm-up: questions that no passage goes with, as the pairs of one adapter, which others then start from.

After get_warmup_data.py of Parametric RAG (Su et al., SIGIR 2025): questions behind those that are answered later.
"""

import json
import re
from pathlib import Path
from typing import Any

from ..core.errors import LoraryError, report
from ..core.files import written_whole
from ..core.values import NAME, is_text
from ..raw import question_sets
from ..raw.question_sets import Question
from .prompts import clean_question

Pair = dict[str, str]


def write(sets: list[str], after: int, take: int | None, folder: str, dataset: str, augment_model: str) -> str:
    """Write the questions of some sets (files as `question_sets.load` reads them) as augmented data with a single
    adapter to make, and return what was written, as text to show.

    Of each set: those behind the first `after` of each type, which are for testing, in the order of the file, `take` at
    most. A question that is asked among any of the first ones is left out. Raises LoraryError.
    """
    names = {"dataset": dataset, "augment-model": augment_model}
    if unfit := [f"--{key}: {name!r}" for key, name in names.items() if not re.fullmatch(NAME, name)]:
        raise report(unfit, "This becomes a folder's name, of at most 64 letters, digits and ._+=@-:")
    loaded = [(path, question_sets.load(path)) for path in sets]
    tested = {_said(question) for _, types in loaded for some in types.values() for question in some[:after]}
    pairs, left_out = [], 0
    for path, types in loaded:
        behind = [question for some in types.values() for question in some[after:]]
        behind.sort(key=lambda question: question.extra["test_id"])
        new = [question for question in behind if _said(question) not in tested]
        left_out += len(behind) - len(new)
        if not new:
            counts = ", ".join(f"{kind} {len(some)}" for kind, some in types.items())
            raise LoraryError(
                f"{path}: no question remains behind the first {after} of each type ({counts}). Choose a smaller"
                " --after, or another set; what is answered later must not be learnt here."
            )
        pairs += _pairs(path, new[:take])
    output = Path(folder, dataset, augment_model, "total.json")
    _write(output, pairs, augment_model)
    lines = [f"{output}: {_count(len(pairs))}, without passages"]
    if left_out:
        lines.append(f"{_count(left_out)} left out: also asked among the first {after}")
    return "\n".join(lines)


def _said(question: Question) -> str:
    """What is the same for two that ask the same: the words, however written."""
    return " ".join(clean_question(question.question).casefold().split())


def _pairs(path: str, questions: list[Question]) -> list[Pair]:
    """With the first right answer; a plain list may have a full_answer beside it, for chains of thought."""
    pairs, faults = [], []
    for question in questions:
        full = question.extra.get("full_answer")
        full = question.answers[0] if full is None else full
        if not is_text(full) or not full.strip():
            faults.append(f"question {question.extra['test_id']}: full_answer: expected text, found {full!r:.60}")
        pairs.append({"question": question.question, "answer": question.answers[0], "full_answer": full})
    if faults:
        raise report(faults, f"{path}: the questions have {len(faults)} fault{'s' if len(faults) > 1 else ''}:")
    return pairs


def _write(output: Path, pairs: list[Pair], augment_model: str) -> None:
    """What is there already stays as it is where it is the same: then nothing is trained again."""
    augment = [{"pid": 0, "passage": None, f"{augment_model}_qa": pairs}]
    rows = [{"question": None, "answer": [], "passages": [None], "augment": augment}]
    try:
        there = json.loads(output.read_bytes())
    except FileNotFoundError:
        there = None
    except ValueError:
        there = output.name  # of somebody
    if there == rows:
        return
    if there is not None and not _is_warm_up(there):
        raise LoraryError(
            f"{output} is there, and is no warm-up's. Choose another --out, --dataset or --augment-model."
        )
    with written_whole(str(output), new_folder=True) as temporary:
        temporary.write_text(json.dumps(rows, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def _is_warm_up(rows: Any) -> bool:
    try:
        return [passage for row in rows for passage in row["passages"]] == [None]
    except (TypeError, KeyError):
        return False


def _count(number: int) -> str:
    return f"{number:,} question{'' if number == 1 else 's'}"
