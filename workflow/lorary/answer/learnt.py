"""The tables of what was learnt: each job's, and those of all types of a run as one."""

import csv
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pandas as pd

from ..core.errors import damaged
from ..core.files import write_settled, written_whole
from ..plan import layout
from ..train.index import join


def write(output: str, columns: list[str], lines: Iterable[dict[str, Any]]) -> None:
    """A job's table (TSV), in place of those of other jobs that speak of some of the same items."""
    for former in layout.superseded(output):
        former.unlink(missing_ok=True)
    with written_whole(output) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns, delimiter="\t", lineterminator="\n", extrasaction="ignore")
        writer.writeheader()
        writer.writerows(lines)


def gather(
    types: dict[str, dict[str, Any]],
    suffix: str,
    columns: list[str],
    folder: str,
    output: str,
    then: Callable[[], None] = lambda: None,
) -> None:
    """One table out of those of the jobs of each type of this call (`jobs`, gathered in `part`; where there are none,
    nothing is asked of it any more), and of what earlier calls have said of other types whose adapters are still there,
    in `folder`; `then` does what follows from it. `suffix`: of the parts. Raises LoraryError."""
    for kind in types.values():
        part = Path(kind["part"])
        if kind["jobs"]:
            part.parent.mkdir(parents=True, exist_ok=True)
            join([Path(job) for job in kind["jobs"]], kind["part"])
        else:
            part.unlink(missing_ok=True)

    def look() -> list[tuple[Path, int]]:
        return [(path, path.stat().st_mtime_ns) for path in layout.types_there(output, suffix, folder).values()]

    def put_together(seen: list[tuple[Path, int]]) -> None:
        if seen:
            join([path for path, _ in seen], output)
        else:
            with written_whole(output) as temporary:
                temporary.write_text("\t".join(columns) + "\n", encoding="utf-8")
        then()

    write_settled(look, put_together)


def read(path: str, figures: list[str]) -> pd.DataFrame:
    """A table, in which only these columns may lack something. Raises LoraryError."""
    try:
        empty = {column: [""] for column in figures}
        return pd.read_csv(path, sep="\t", keep_default_na=False, na_values=empty, dtype={"type": str})
    except (OSError, ValueError) as error:
        raise damaged(path, error) from None
