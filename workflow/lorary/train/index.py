"""The index: one table over the adapters of a run, whichever calls made them, and run.json beside it."""

import json
import logging
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa

from ..core.errors import LoraryError, damaged
from ..core.files import read_json, sha256, write_settled, written_whole
from ..data import rows
from ..plan import layout
from ..plan.translate import ABOUT
from . import records

log = logging.getLogger(__name__)

COLUMNS = ["type", "did", "pid", "question", *records.COLUMNS[2:-1]]  # not each step's loss
NAMED = 3  # passages, of those that a translator has learnt from


def index_adapters(
    types: list[dict[str, Any]],
    parts: dict[str, dict[str, str]],
    about: dict[str, Any],
    folder: str,
    table: str,
    run: str,
) -> None:
    """Write the index of a run (`table`) and run.json (`run`): a line an adapter, in the order of type, did and pid.

    `types`: of each type of this call its name (`type`), the table of its passages (`table`), the records of the jobs
    that made its adapters (`records`) and, if a translator did, that (`translator`); `parts`: where what is said of it
    alone is kept (`table` and `run`), from which a call for other types puts the whole together; `about`: what run.json
    says of this call; `folder`: of the run's adapters.
    Raises LoraryError.
    """
    if translator := types[0].get("translator"):  # all have the same
        named = {"path": translator, "sha256": sha256(Path(translator))}
        about = {**about, "translator": {**named, **_learnt_from(translator, types)}}
    for kind in types:
        read = (records.read_record(record, records.COLUMNS[:-1]) for record in kind["records"])
        lines = pd.concat(read).assign(type=kind["type"])
        part = lines.merge(read_questions(kind["table"]), on=["did", "pid"], validate="one_to_one")
        part["question"] = part["question"].str.replace("\r", " ")  # which pandas would take for the end of a line
        paths = parts[kind["type"]]
        with written_whole(paths["table"], new_folder=True) as temporary:
            part.sort_values(["did", "pid"])[COLUMNS].to_csv(temporary, sep="\t", index=False)
        of_it = {"tables": {kind["type"]: kind["table"]}, "records": kind["records"]}
        _write({**about, **of_it}, paths["run"])
    own = {kind["type"] for kind in types}

    tables = partial(layout.types_there, table, ".tsv", folder)
    runs = partial(layout.types_there, run, ".json", folder)

    def look() -> list[tuple[Path, int]]:
        return [(path, path.stat().st_mtime_ns) for path in [*tables().values(), *runs().values()]]

    def write(_: Any) -> None:
        join(list(tables().values()), table)
        others = {kind: read_json(path) for kind, path in runs().items() if kind not in own}
        _write({**about, "other_types": others} if others else about, run)

    write_settled(look, write)


def _learnt_from(translator: str, types: list[dict[str, Any]]) -> dict[str, Any]:
    """Of each type how many of its passages (`of`) are among those that the translator has learnt from, and the first:
    nothing that is measured on these is knowledge of new ones. Empty where that is not known. Raises LoraryError."""
    beside = Path(translator).with_name(ABOUT)
    learnt = read_json(beside).get("passages_sha256") if beside.is_file() else None
    if learnt is None:
        log.info(
            "whether %s has learnt from passages of this run is not known: it, or what it read, was made before it was"
            " noted",
            translator,
        )
        return {}
    found: dict[str, dict[str, Any]] = {}
    among = set(learnt)
    for kind in types:
        places, of = list[str](), 0
        while some := rows.read(kind["table"], of, of + rows.GROUP, ["did", "pid", "passage"]):
            of += len(some)
            places += [
                layout.passage_name(kind["type"], row["did"], row["pid"])
                for row in some
                if rows.text_sha256(row["passage"]) in among
            ]
        found[kind["type"]] = {"passages": len(places), "of": of, "first": places[:NAMED]}
    if number := sum(each["passages"] for each in found.values()):
        first = [place for each in found.values() for place in each["first"]][:NAMED]
        log.warning(
            "%d of the %d passages of this run are among the %d that its translator has learnt from (%s%s): what is"
            " measured on these is not knowledge of new passages. Take them out of the files in projector_data_dir.",
            number, sum(each["of"] for each in found.values()), len(learnt), ", ".join(first),
            ", ..." if number > len(first) else "",
        )  # fmt: skip
    return {"learnt_from": found}


def join(parts: list[Path], output: str) -> None:
    """One table (TSV) of several with the same columns. Raises LoraryError."""
    with written_whole(output) as temporary, temporary.open("wb") as file:
        header = b""
        for part in parts:
            first, _, lines = part.read_bytes().partition(b"\n")
            if header and first != header:
                raise LoraryError(
                    f"{part} has other columns than {parts[0]}: it is of another release. Delete it, and make its type"
                    " again by a call with its data_type."
                )
            file.write(lines if header else first + b"\n" + lines)
            header = first


def types_of(about: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Of each type of a run, what run.json says of the call that made it."""
    return dict.fromkeys(about["tables"], about) | about.get("other_types", {})


def read_questions(table: str) -> pd.DataFrame:
    """did, pid and question of each passage. Raises LoraryError."""
    try:
        return pd.read_parquet(table, columns=["did", "pid", "question"], page_checksum_verification=True)
    except (pa.ArrowException, OSError) as error:
        raise damaged(table, error) from None


def _write(about: dict[str, Any], path: str) -> None:
    with written_whole(path) as temporary:
        temporary.write_text(json.dumps(about, indent=2) + "\n", encoding="utf-8")
