"""Augmented data: JSON files of questions into one checked table, a row a passage."""

import json
import re
from pathlib import Path
from typing import Any

import yaml

from ..core.errors import LoraryError, damaged, report
from ..core.files import written_whole
from ..core.values import NAME, is_text

SCHEMA = Path(__file__).parents[2] / "schemas" / "question.schema.yaml"

# A question and the place it came from (file name, position), for messages.
Row = tuple[str, int, Any]


def type_files(folder: Path, data_type: str | None) -> dict[str, list[Path]]:
    """The types to solve, each with the files that it is read from.

    A folder with one file holds total.json. With several, no `data_type` means each type but total, and total is
    merged from all files. Raises LoraryError where the folder does not hold what `data_type` asks for.
    """
    if not folder.is_dir():
        raise LoraryError(
            f"{folder}: no such data folder. Augmented data lies in <data_dir>/<dataset>/<augment_model>/<type>.json:"
            " put it there, or set data_dir, dataset and augment_model."
        )
    files = {path.stem: path for path in sorted(folder.glob("*.json")) if not path.name.startswith(".")}
    if strange := [path.name for name, path in files.items() if not re.fullmatch(NAME, name)]:
        raise LoraryError(
            f"{folder}: {', '.join(strange)}: a type becomes a folder name, of at most 64 letters, digits"
            " and ._+=@-. Rename it."
        )
    if not files:
        raise LoraryError(f"{folder}: there is no .json file in this data folder.")
    if data_type is not None and data_type not in files:
        raise LoraryError(f"{folder}: data_type {data_type} is not here; there is {', '.join(files)}.")
    if len(files) == 1:
        if "total" not in files:
            raise LoraryError(
                f"{folder}: a folder with one file holds total.json, but this one holds {min(files)}.json."
            )
        return {"total": [files["total"]]}
    if data_type == "total":
        return {"total": [files["total"], *(path for name, path in files.items() if name != "total")]}
    if data_type is not None:
        return {data_type: [files[data_type]]}
    return {name: [path] for name, path in files.items() if name != "total"}


def passage_counts(files: list[Path], sample: int, augment_model: str) -> list[int]:
    """How many passages each question has, of the questions to solve: all that the workflow has to know of them.

    Light, as every job of a cluster reads it again; `load` checks the rest. Raises LoraryError, with every fault of
    the rows, where the passages cannot be counted.
    """
    rows, faults = solve(files, sample)
    if not faults:
        try:
            counts = [len(question["augment"]) for _, _, question in rows if isinstance(question["augment"], list)]
            if len(counts) == len(rows) and all(counts):
                return counts
        except (KeyError, TypeError):
            pass
    raise _refuse(files, faults + check(rows, augment_model))


def load(files: list[Path], sample: int, augment_model: str) -> list[dict[str, Any]]:
    """The checked rows, one a passage, in the order of questions and of their passages.

    Returns dicts with did, pid (positions from 0), question, answers (list), passages (the question's, list), passage,
    rewrite, pairs (list of question, answer, full_answer) and extra (JSON: what else the row carried).
    Raises LoraryError that names every fault: file, question, passage, key and what was expected.
    """
    rows, faults = solve(files, sample)
    faults += check(rows, augment_model)
    if faults:
        raise _refuse(files, faults)
    rewrite, pairs = f"{augment_model}_rewrite", f"{augment_model}_qa"
    pair_keys = ("question", "answer", "full_answer")
    table = []
    for did, (_, _, question) in enumerate(rows):
        answer = question["answer"]
        for pid, augment in enumerate(question["augment"]):
            extra = {
                "question": _without(question, {"question", "answer", "passages", "augment"}),
                "passage": _without(augment, {"passage", rewrite, pairs}),
            }
            table.append(
                {
                    "did": did,
                    "pid": pid,
                    "question": question["question"],
                    "answers": answer if isinstance(answer, list) else [answer],
                    "passages": question["passages"],
                    "passage": augment["passage"],
                    "rewrite": augment[rewrite],
                    "pairs": [{key: pair[key] for key in pair_keys} for pair in augment[pairs]],
                    "extra": json.dumps(extra),
                }
            )
    return table


def save(table: list[dict[str, Any]], path: str) -> None:
    """Write the rows of `load` as Parquet."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    text, texts = pa.string(), pa.list_(pa.string())
    pair = pa.struct([("question", text), ("answer", text), ("full_answer", text)])
    columns = [("did", pa.int32()), ("pid", pa.int32()), ("question", text), ("answers", texts), ("passages", texts)]
    columns += [("passage", text), ("rewrite", text), ("pairs", pa.list_(pair)), ("extra", text)]
    with written_whole(path) as temporary:
        pq.write_table(
            pa.Table.from_pylist(table, schema=pa.schema(columns)),
            temporary,
            compression="zstd",
            write_page_checksum=True,
        )


def read(path: str, start: int, stop: int | None) -> list[dict[str, Any]]:
    """Rows `start` to `stop` (exclusive; None: the last) of a table that `save` wrote. Raises LoraryError."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return pq.read_table(path, page_checksum_verification=True).slice(start, stop and stop - start).to_pylist()
    except (pa.ArrowException, OSError) as error:
        raise damaged(path, error) from None


def solve(files: list[Path], sample: int) -> tuple[list[Row], list[str]]:
    """The questions to solve, unchecked, with the place of each; and what was wrong in putting them together."""
    faults: list[str] = []
    if len(files) == 1:
        rows = [(files[0].name, i, question) for i, question in enumerate(_read(files[0]))]
    else:
        rows = _merge(files, faults)
    return (rows if sample == -1 else rows[:sample]), faults


def check(rows: list[Row], augment_model: str) -> list[str]:
    """Every fault of the rows, one line each."""
    import jsonschema

    schema = _for_model(yaml.safe_load(SCHEMA.read_text(encoding="utf-8")), augment_model)
    validator = jsonschema.Draft202012Validator(schema)
    faults = []
    for file, index, question in rows:
        for error in validator.iter_errors(question):
            place = _place(file, index, error.absolute_path)
            if error.validator == "required":
                # jsonschema says which of the required keys it is only in its message
                missing = next(key for key in error.validator_value if error.message.startswith(repr(key)))
                there = ", ".join(sorted(map(str, error.instance))) or "none"
                faults.append(f"{place}, {missing}: missing (the keys there: {there})")
            else:
                faults.append(f"{place}: expected {error.schema['description']}, found {_short(error.instance)}")
        faults += _unwritable(file, index, question)
    return faults


def _read(path: Path) -> list[Any]:
    try:
        questions = json.loads(path.read_bytes(), parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:  # not UTF-8, not JSON, NaN, or nested too deep
        raise LoraryError(f"{path}: this is not JSON ({error}).") from None
    except OSError as error:
        raise LoraryError(f"{path}: cannot be read ({error.strerror}).") from None
    if not isinstance(questions, list):
        raise LoraryError(f"{path}: expected a list of questions, found {_short(questions)}.")
    if not questions:
        raise LoraryError(f"{path}: the list of questions is empty.")
    return questions


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON value")


def _merge(files: list[Path], faults: list[str]) -> list[Row]:
    """The types in the order of total.json (first of `files`): its n-th question of a type is that file's n-th row.

    Stops at the first type that has run out.
    """
    total, *types = files
    by_type = {path.stem: (path, _read(path)) for path in types}
    used = dict.fromkeys(by_type, 0)
    rows: list[Row] = []
    for i, question in enumerate(_read(total)):
        kind = question.get("type") if isinstance(question, dict) else None
        if not isinstance(kind, str) or kind not in by_type:
            place = _place(total.name, i, ["type"])
            faults.append(f"{place}: expected one of {', '.join(by_type)}, found {_short(kind)}")
            continue
        path, questions = by_type[kind]
        n = used[kind]
        if n == len(questions):
            break
        used[kind] += 1
        row = questions[n]
        rows.append((path.name, n, row))
        if isinstance(row, dict) and row.get("question") != question.get("question"):
            place = _place(total.name, i, ["question"])
            found = _short(question.get("question"))
            faults.append(
                f"{place}: expected that of {path.name}, question {n} ({_short(row.get('question'))}), found {found}"
            )
    return rows


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
        return [f"{_place(file, index, [])}: nested too deep"]
    except UnicodeEncodeError:
        places = [_place(file, index, path) for path in _halves(question, ())]
        return [f"{place}: expected text, found half a surrogate pair (\\ud800 to \\udfff)" for place in places]
    except ValueError:
        return [f"{_place(file, index, [])}: a number is too large"]


def _halves(value: Any, path: tuple):
    if isinstance(value, str) and not is_text(value):
        yield path
    for step, item in value.items() if isinstance(value, dict) else enumerate(value if isinstance(value, list) else []):
        if isinstance(step, str):
            yield from _halves(step, path)
        yield from _halves(item, (*path, step))


def _place(file: str, index: int, path: Any) -> str:
    """`bridge.json, question 3, passage 1, m_qa 0, answer` from the path inside a question."""
    parts = [file, f"question {index}"]
    for step in path:
        if isinstance(step, int):
            parts[-1] = f"passage {step}" if parts[-1] == "augment" else f"{parts[-1]} {step}"
        else:
            parts.append(str(step))
    return ", ".join(parts)


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else text[:60] + "..."


def _without(mapping: dict[str, Any], keys: set[str]) -> dict[str, Any]:
    return {key: value for key, value in mapping.items() if key not in keys}


def _refuse(files: list[Path], faults: list[str]) -> LoraryError:
    return report(faults, f"{files[0].parent}: the data has {len(faults)} fault{'s' if len(faults) > 1 else ''}:")
