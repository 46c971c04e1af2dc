"""How good augmented data are by the checks that ours have to stand: of any file that Lorary or PRAG reads."""

import json
from collections import Counter
from pathlib import Path

from ..data import rows
from .checks import pair_fault, rewrite_fault, same_question


def describe(file: str, augment_model: str) -> str:
    """What the checks say of a file of augmented data, as text to show. Raises LoraryError."""
    table = rows.load([Path(file)], -1, augment_model, lenient_answers=True)
    faults: Counter[str] = Counter()
    rewrites: Counter[str] = Counter()
    pairs, seen = 0, set[tuple[str, str]]()
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
            pairs += 1
            fault = pair_fault(pair["question"], pair["answer"], row["passage"], title)
            if fault is None and same_question(pair["question"], asked):
                fault = "asked before"
            faults[fault or ""] += 1
            asked.append(pair["question"])
        if row["rewrite"] != row["passage"]:
            fault = rewrite_fault(row["rewrite"], row["passage"])
            kind = " ".join((fault or "").split()[:1]) if (fault or "").startswith(("loses", "invents")) else fault
            rewrites[kind or ""] += 1
    lines = [f"{file}: {len(seen)} passages", _of(pairs, faults[""], "pairs stand the checks")]
    lines += [f"  {number} {fault}" for fault, number in faults.most_common() if fault]
    lines.append(_of(sum(rewrites.values()), rewrites[""], "rewrites keep the facts"))
    lines += [f"  {number} {fault}" for fault, number in rewrites.most_common() if fault]
    return "\n".join(lines)


def _of(all_: int, good: int, what: str) -> str:
    return f"{good} of {all_} {what}" + (f" ({100 * good / all_:.0f} %)" if all_ else "")
