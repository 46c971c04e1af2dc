"""How good augmented data are by the checks that ours have to stand: of any file that Lorary or PRAG reads."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

from ..data import rows
from .checks import pair_fault, rewrite_fault, same_question


def describe(files: list[str], augment_model: str) -> str:
    """What the checks say of files of augmented data together, as text to show. Raises LoraryError."""
    found = measure(files, augment_model)
    lines = [f"{', '.join(files)}: {found['passages']} passages"]
    for what, good in (("pairs", "stand the checks"), ("rewrites", "keep the facts")):
        of_these = found[what]
        share = f" ({100 * of_these['good'] / of_these['all']:.0f} %)" if of_these["all"] else ""
        lines.append(f"{of_these['good']} of {of_these['all']} {what} {good}{share}")
        lines += [f"  {number} {fault}" for fault, number in of_these["faults"].items()]
    return "\n".join(lines)


def measure(files: list[str], augment_model: str) -> dict[str, Any]:
    """Of files of augmented data, each passage once: how many `passages`, and of `pairs` and `rewrites` how many there
    are in `all`, how many are `good`, and the `faults` of the others, the most frequent first. Raises LoraryError."""
    table = [row for file in files for row in rows.load([Path(file)], -1, augment_model, lenient_answers=True)]
    faults: Counter[str] = Counter()
    rewrites: Counter[str] = Counter()
    seen = set[tuple[str, str]]()
    for row in table:
        if row["passage"] is None:  # pairs of a warm-up
            continue
        if (row["passage"], row["rewrite"]) in seen:  # of another question
            continue
        seen.add((row["passage"], row["rewrite"]))
        title = json.loads(row["extra"])["passage"].get("title")
        title = title if isinstance(title, str) else ""
        asked: list[str] = []
        for pair in row["pairs"]:
            fault = pair_fault(pair["question"], pair["answer"], row["passage"], title)
            if fault is None and same_question(pair["question"], asked):
                fault = "asked before"
            faults[fault or ""] += 1
            asked.append(pair["question"])
        if row["rewrite"] != row["passage"]:
            fault = rewrite_fault(row["rewrite"], row["passage"])
            kind = " ".join((fault or "").split()[:1]) if (fault or "").startswith(("loses", "invents")) else fault
            rewrites[kind or ""] += 1
    return {"passages": len(seen), "pairs": _counted(faults), "rewrites": _counted(rewrites)}


def _counted(faults: Counter[str]) -> dict[str, Any]:
    named = {fault: number for fault, number in faults.most_common() if fault}
    return {"all": faults.total(), "good": faults[""], "faults": named}
