"""How much of its passages the pairs of a run ask for."""

from pathlib import Path
from typing import Any

from ..augment.checks import facts
from ..data import heldout, rows

MOST = 1000  # passages of a type that are looked at, the first ones: enough for a share


def coverage(about: dict[str, Any]) -> float | None:
    """Of the facts (names and numbers, as rewrites have to keep them) of a run's passages the share that some answer of
    its trained pairs has; None where there is none, or the tables are gone. `about`: a run.json. Raises LoraryError."""
    kept_out = about["config"][0].get("heldout_pairs", 0)
    seen, asked, there = set[str](), 0, 0
    for table in filter(Path.is_file, map(Path, about["tables"].values())):
        for row in rows.read(str(table), 0, MOST):
            if row["passage"] is None or row["passage"] in seen:
                continue
            seen.add(row["passage"])
            answers = "\n".join(pair["answer"] for pair in heldout.trained(row["pairs"], kept_out)).lower()
            found = [fact.lower() in answers for fact in dict.fromkeys(facts(row["passage"]))]
            asked, there = asked + sum(found), there + len(found)
    return asked / there if there else None
