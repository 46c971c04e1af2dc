"""What the jobs of a type have made, put together: the augmented data, as Lorary and PRAG read them, and a table of how
they came about."""

import csv
import json
from collections.abc import Iterable, Iterator
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Any

from ..core.errors import damaged
from ..core.files import written_whole
from ..raw import table
from ..raw.passages import RawPassage
from .checks import pair_fault

COLUMNS = [
    *("did", "pid", "title", "words", "pairs", "wanted", "clean", "known", "pairs_by", "rewrite_by", "tries", "asked"),
    *("faults", "rewrite_faults", "requests", "prompt_tokens", "tokens", "seconds", "model", "device", "date", "error"),
]


def gather(raw: str, made: Iterable[str], data: str, about: str, augment_model: str, wanted: int) -> None:
    """Write the augmented data of a type to `data` (JSON), and a line a passage to `about` (TSV): of the passages of
    the table `raw`, and of what jobs have `made` of them, a file each. Raises LoraryError."""
    with (
        written_whole(data) as temporary,
        written_whole(about) as temporary_about,
        temporary.open("w", encoding="utf-8") as file,
        temporary_about.open("w", encoding="utf-8", newline="") as lines,
    ):
        writer = csv.DictWriter(lines, COLUMNS, delimiter="\t", lineterminator="\n")
        writer.writeheader()
        begin = "[\n"
        for _, rows in groupby(_results(raw, made), key=lambda pair: pair[0]["did"]):
            some = list(rows)
            file.write(begin + json.dumps(_question(some, augment_model), ensure_ascii=False, indent=1))
            writer.writerows(_about(row, result, wanted) for row, result in some)
            begin = ",\n"
        file.write("\n]\n")


def _question(some: list[tuple[dict[str, Any], dict[str, Any]]], augment_model: str) -> dict[str, Any]:
    first, _ = some[0]
    augment = []
    for row, result in some:
        passage = row["passage"]
        rewrite, pairs = f"{augment_model}_rewrite", f"{augment_model}_qa"
        ours = {"pid", "title", "passage", rewrite, pairs, "made_by", "error"}
        one = {
            "pid": row["pid"],
            "title": passage.title,
            **{f"{name}_" if name in ours else name: value for name, value in passage.extra.items()},
            "passage": passage.text,
            rewrite: result.get("rewrite", passage.text),
            pairs: result.get("pairs", []),
        }
        one |= {"error": result["error"]} if "error" in result else {"made_by": result["made_by"]}
        augment.append(one)
    return {
        **first["question_extra"],
        "question": first["question"],
        "answer": first["answers"],
        "passages": [row["passage"].text for row, _ in some],
        "augment": augment,
    }


def _about(row: dict[str, Any], result: dict[str, Any], wanted: int) -> dict[str, Any]:
    passage = row["passage"]
    line = {"did": row["did"], "pid": row["pid"], "title": _one_line(passage.title), "words": len(passage.text.split())}
    if "error" in result:
        return line | {"pairs": 0, "wanted": wanted, "error": _one_line(result["error"])}
    notes, made = result["notes"], result["made"]
    by_rule = result["made_by"]["pairs"] == "rule"
    return line | {
        "pairs": len(result["pairs"]),
        "wanted": wanted,
        "clean": 0 if by_rule else sum(map(partial(_stands, passage), result["pairs"])),
        "pairs_by": result["made_by"]["pairs"],
        "rewrite_by": result["made_by"]["rewrite"],
        "faults": _one_line("; ".join(f"{fault}: {n}" for fault, n in sorted(notes["faults"].items()))),
        "rewrite_faults": _one_line("; ".join(notes["rewrite_faults"])),
        **{name: notes[name] for name in ("known", "tries", "asked", "requests", "prompt_tokens", "tokens")},
        **{name: _one_line(str(made[name])) for name in ("seconds", "model", "device", "date")},
    }


def _stands(passage: RawPassage, pair: dict[str, str]) -> bool:
    """By the rules, which augment_style: reference does not ask for."""
    return pair_fault(pair["question"], pair["answer"], passage.text, passage.title) is None


def _results(raw: str, made: Iterable[str]) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    """The passages with what was made of them. Raises LoraryError."""
    rows, part = table.read(raw), ""
    for part in made:
        for result in _lines(part):
            row = next(rows, None)
            if not row or not isinstance(result, dict) or any(result.get(name) != row[name] for name in ("did", "pid")):
                raise damaged(part, ValueError(f"it is not about the passages of {raw}"))
            yield row, result
    if next(rows, None):
        raise damaged(part, ValueError(f"it is not about all passages of {raw}"))


def _lines(part: str) -> Iterator[Any]:
    try:
        with Path(part).open(encoding="utf-8") as file:
            yield from map(json.loads, file)
    except (OSError, ValueError) as error:
        raise damaged(part, error) from None


def _one_line(text: str) -> str:
    return " ".join(text.split())
