"""Augmented data: questions into one checked table, a row a passage."""

import functools
import hashlib
import json
import sys
from collections.abc import Iterable, Iterator
from itertools import accumulate, islice
from pathlib import Path
from typing import Any

import yaml

from ..core.errors import damaged, report
from ..core.files import written_whole
from ..core.values import is_text
from ..raw import kept
from .questions import Row, place, short, solve

SCHEMA = Path(__file__).parents[2] / "schemas" / "question.schema.yaml"
PAIR = ("question", "answer", "full_answer")
LARGE = 2**22  # bytes
GROUP = 1000  # rows of a table that are read together: a job reads those of its passages, and few besides
OUTLINE = 1  # goes up with every change of the checks, or of what is counted


def outline(
    files: list[Path],
    sample: int,
    augment_model: str,
    lenient_answers: bool = False,
    heldout_pairs: int = 0,
    cache: str | None = None,
) -> tuple[list[int], bool]:
    """How many passages each question has, of the questions to solve, and whether they are any to be answered: all that
    the workflow has to know of them. `cache`: the folder where that of large files is kept while they stay as they are,
    since every call asks for it.

    Raises LoraryError that names every fault, as `load` does: what is wrong is told before anything runs; and each
    passage that has no pair left to train on where its last `heldout_pairs` are kept out.
    """
    how = sample, augment_model, lenient_answers, heldout_pairs
    there = cache is not None and all(map(Path.is_file, files))  # else reading them says what is wrong
    made_of = [kept.stamp(file.stat()) for file in files] if there else []
    if cache is None or sum(size for size, _ in made_of) < LARGE:
        return _outline(files, *how)
    place = kept.place(cache, "augmented", OUTLINE, list(map(str, files)), *how)
    outline = kept.get(place, made_of)
    if not outline:
        outline = _outline(files, *how)
        kept.put(place, made_of, outline)
    counts, questions = outline
    return counts, questions


def _outline(
    files: list[Path], sample: int, augment_model: str, lenient_answers: bool, heldout_pairs: int
) -> tuple[list[int], bool]:
    counts, lacking, asked = [], list[str](), False
    for row in _checked(files, sample, augment_model, lenient_answers):
        _, _, question = row
        counts.append(len(question["augment"]))
        lacking += _lacking_pairs(row, f"{augment_model}_qa", heldout_pairs) if heldout_pairs else []
        asked = question["question"] is not None  # in all, or in none
    if lacking:
        raise report(lacking, f"heldout_pairs: {heldout_pairs} of each passage's pairs leave some none to train on:")
    return counts, asked


def load(files: list[Path], sample: int, augment_model: str, lenient_answers: bool = False) -> Iterator[dict[str, Any]]:
    """The checked rows, one a passage, in the order of questions and of their passages: few of them are in memory.

    Yields dicts with did, pid (positions from 0), question (None where there is none), answers (list), passages (the
    question's, list), passage and rewrite (None where pairs are learnt without one), pairs (list of question, answer,
    full_answer), error (why it has none, mostly None) and extra (JSON: what else the row carried).
    Raises LoraryError, after the last, that names every fault: file, question, passage, key and what was expected.
    """
    rewrite, pairs = f"{augment_model}_rewrite", f"{augment_model}_qa"
    for did, (_, _, question) in enumerate(_checked(files, sample, augment_model, lenient_answers)):
        answer = question["answer"]
        for pid, augment in enumerate(question["augment"]):
            extra = {
                "question": _without(question, {"question", "answer", "passages", "augment"}),
                "passage": _without(augment, {"passage", rewrite, pairs, "error"}),
            }
            yield {
                "did": did,
                "pid": pid,
                "question": question["question"],
                "answers": answer if isinstance(answer, list) else [] if answer is None else [answer],
                "passages": question["passages"],
                "passage": augment["passage"],
                "rewrite": augment.get(rewrite),
                "pairs": [{key: pair[key] for key in PAIR} for pair in augment[pairs]],
                "error": augment.get("error"),
                "extra": json.dumps(extra),
            }


def load_all(files: list[Path], sample: int, augment_model: str, lenient_answers: bool = False) -> list[dict[str, Any]]:
    """The rows of `load`, all in memory. Raises LoraryError."""
    return list(load(files, sample, augment_model, lenient_answers))


def save(table: Iterable[dict[str, Any]], path: str) -> None:
    """Write the rows of `load` as Parquet."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    text, texts = pa.string(), pa.list_(pa.string())
    pair = pa.struct([("question", text), ("answer", text), ("full_answer", text)])
    columns = [("did", pa.int32()), ("pid", pa.int32()), ("question", text), ("answers", texts), ("passages", texts)]
    columns += [("passage", text), ("rewrite", text), ("pairs", pa.list_(pair)), ("error", text), ("extra", text)]
    schema, rows = pa.schema(columns), iter(table)
    with (
        written_whole(path) as temporary,
        pq.ParquetWriter(temporary, schema, compression="zstd", write_page_checksum=True) as writer,
    ):
        while some := list(islice(rows, GROUP)):
            writer.write_table(pa.Table.from_pylist(some, schema=schema))


def read(path: str, start: int, stop: int | None, columns: list[str] | None = None) -> list[dict[str, Any]]:
    """Rows `start` to `stop` (exclusive; None: the last) of a table that `save` wrote, with these columns (None: all).
    No others are read, but for those of the same group. Raises LoraryError."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path, page_checksum_verification=True) as file:
            sizes = [file.metadata.row_group(group).num_rows for group in range(file.num_row_groups)]
            ends = list(accumulate(sizes))
            wanted = [
                group
                for group, (size, end) in enumerate(zip(sizes, ends, strict=True))
                if end > start and (stop is None or end - size < stop)
            ]
            before = sum(sizes[: wanted[0]]) if wanted else 0
            table = file.read_row_groups(wanted, columns=columns)
            return table.slice(start - before, stop and stop - start).to_pylist()
    except (pa.ArrowException, OSError) as error:
        raise damaged(path, error) from None


def title_of(row: dict[str, Any]) -> str:
    """The title of a passage (a row of `load`); empty where it carries none."""
    title = json.loads(row["extra"])["passage"].get("title")
    return title if isinstance(title, str) else ""


def text_sha256(passage: str) -> str:
    """By which passages are known to be the same, whatever blanks are around them."""
    return hashlib.sha256(passage.strip().encode()).hexdigest()


def _lacking_pairs(row: Row, key: str, heldout_pairs: int) -> list[str]:
    file, index, question = row
    return [
        f"{place(file, index, ['augment', pid, key])}: {len(augment[key])} pairs; lower heldout_pairs to"
        f" {len(augment[key]) - 1}, or bring more"
        for pid, augment in enumerate(question["augment"])
        if "error" not in augment and len(augment[key]) <= heldout_pairs
    ]


def _checked(files: list[Path], sample: int, augment_model: str, lenient_answers: bool) -> Iterator[Row]:
    """The rows that are good. Raises LoraryError, after the last, where there are others."""
    together, faults = list[str](), list[str]()  # what is wrong in putting them together, and in each
    first: tuple[str, int] | None = None  # of those that nobody asks about
    asked = 0
    for row in solve(files, sample, together):
        file, index, question = row
        if lenient_answers:
            _read_answers(question, augment_model)
        if isinstance(question, dict) and question.get("question") is None:
            first = first or (file, index)
        else:
            asked += 1
        if found := _faults(row, augment_model):
            faults += found
        else:
            yield row
    if first and asked:
        together.append(f"{place(*first, ['question'])}: expected a string, as other rows have, or null in all of them")
    if faults := together + faults:
        count = f"{len(faults)} fault{'s' if len(faults) > 1 else ''}"
        raise report(faults, f"{files[0].parent}: the data has {count}:")


def _faults(row: Row, augment_model: str) -> list[str]:
    file, index, question = row
    found = [] if is_good(question, augment_model) else list(schema_faults(file, index, question, augment_model))
    return (found or _differing(file, index, question)) + _unwritable(file, index, question)


def is_good(question: Any, augment_model: str) -> bool:
    """Whether a question is as the schema says, in a tenth of the schema's time."""
    rewrite, pairs = f"{augment_model}_rewrite", f"{augment_model}_qa"
    try:
        answers = question["answer"] if isinstance(question["answer"], list) else [question["answer"]]
        if question["question"] is None:  # passages that nobody asks about
            if answers not in ([], [None]):
                return False
            texts, filled = [], [question["augment"]]
        else:
            texts, filled = [question["question"], *answers], [answers, question["augment"]]
        lists = [question["passages"], question["augment"]]
        texts += [passage for passage in question["passages"] if passage is not None]
        for augment in question["augment"]:
            if augment["passage"] is not None:
                texts += [augment["passage"], augment[rewrite]]
            elif augment.get(rewrite) is not None:
                return False
            texts += [pair[key] for pair in augment[pairs] for key in PAIR]
            if "error" in augment:
                texts.append(augment["error"])
                filled.append(augment["error"])
            else:
                filled.append(augment[pairs])
            lists.append(augment[pairs])
        return all(filled) and all(isinstance(x, list) for x in lists) and all(isinstance(x, str) for x in texts)
    except (KeyError, TypeError):
        return False


def schema_faults(file: str, index: int, question: Any, augment_model: str) -> Iterator[str]:
    """Where a question is not as the schema says."""
    for error in _validator(augment_model).iter_errors(question):
        where = place(file, index, error.absolute_path)
        if error.validator == "required":
            # jsonschema says which of the required keys it is only in its message
            missing = next(key for key in error.validator_value if error.message.startswith(repr(key)))
            there = ", ".join(sorted(map(str, error.instance))) or "none"
            yield f"{where}, {missing}: missing (the keys there: {there})"
        else:
            hint = ""
            if _is_lenient(list(error.absolute_path), error.instance):
                hint = " (lenient_answers: true reads it)"
            yield f"{where}: expected {error.schema['description']}, found {short(error.instance)}{hint}"


def _read_answers(question: Any, augment_model: str) -> None:
    """Make text of answers that are none, where they can be read; of the question's own those that are numbers."""
    if isinstance(question, dict) and _is_number(answer := question.get("answer")):
        question["answer"] = str(answer)
    answers = _list(question, "answer")
    answers[:] = [str(answer) if _is_number(answer) else answer for answer in answers]
    for augment in _list(question, "augment"):
        for pair in _list(augment, f"{augment_model}_qa"):
            for key in ("answer", "full_answer"):
                if isinstance(pair, dict) and key in pair and (text := _as_text(pair[key])) is not None:
                    pair[key] = text


def _as_text(answer: Any) -> str | None:
    """A pair's answer as fix_qa of the reference's augmentation writes it (which knows of no fractions, and of no full
    answers); None where there is no such text."""
    if answer is None:
        return "Unknown"
    if _is_number(answer):
        return str(answer)
    if isinstance(answer, list) and all(isinstance(item, str) or _is_number(item) for item in answer):
        return ", ".join(map(str, answer))
    return None


def _is_lenient(path: list, value: Any) -> bool:
    """Whether `_read_answers` makes text of a value with this path inside a question."""
    if path[:1] == ["answer"]:
        return _is_number(value)
    return path[-1:] in (["answer"], ["full_answer"]) and _as_text(value) is not None


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and abs(value) <= sys.float_info.max


def _list(mapping: Any, key: str) -> list[Any]:
    found = mapping.get(key) if isinstance(mapping, dict) else None
    return found if isinstance(found, list) else []


@functools.cache
def _validator(augment_model: str) -> Any:
    import jsonschema

    schema = _for_model(yaml.safe_load(SCHEMA.read_text(encoding="utf-8")), augment_model)
    return jsonschema.Draft202012Validator(schema)


def _differing(file: str, index: int, question: dict[str, Any]) -> list[str]:
    """Where `passages`, which go into prompts, are others than those of `augment`, which adapters are made of."""
    passages, augment = question["passages"], question["augment"]
    if len(passages) != len(augment):
        where = place(file, index, ["passages"])
        return [f"{where}: expected the {len(augment)} passages of augment, found {len(passages)}"]
    return [
        f"{place(file, index, ['passages', i])}: expected passage {i} of augment ({short(other['passage'])}),"
        f" found {short(passage)}"
        for i, (passage, other) in enumerate(zip(passages, augment, strict=True))
        if _words(passage) != _words(other["passage"])
    ]


def _words(passage: str | None) -> list[str] | None:
    return None if passage is None else passage.split()  # blanks do not count


def _for_model(schema: Any, augment_model: str) -> Any:
    if isinstance(schema, dict):
        return {_for_model(key, augment_model): _for_model(value, augment_model) for key, value in schema.items()}
    if isinstance(schema, list):
        return [_for_model(value, augment_model) for value in schema]
    return schema.replace("<augment_model>", augment_model) if isinstance(schema, str) else schema


def _unwritable(file: str, index: int, question: Any) -> list[str]:
    """What JSON can say but no table can hold: half a surrogate pair, nesting without end."""
    try:
        json.dumps(question, ensure_ascii=False, allow_nan=False).encode()
        return []
    except RecursionError:
        return [f"{place(file, index, [])}: nested too deep"]
    except UnicodeEncodeError:
        halves = (place(file, index, path) for path in _halves(question, ()))
        return [f"{where}: expected text, found half a surrogate pair (\\ud800 to \\udfff)" for where in halves]
    except ValueError:
        return [f"{place(file, index, [])}: a number is too large"]


def _halves(value: Any, path: tuple):
    if isinstance(value, str) and not is_text(value):
        yield path
    for step, item in value.items() if isinstance(value, dict) else enumerate(value if isinstance(value, list) else []):
        if isinstance(step, str):
            yield from _halves(step, path)
        yield from _halves(item, (*path, step))


def _without(mapping: dict[str, Any], keys: set[str]) -> dict[str, Any]:
    return {key: value for key, value in mapping.items() if key not in keys}
