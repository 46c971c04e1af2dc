"""The summary that a call of snakemake ends with."""

import json
from pathlib import Path


def summarize(outcomes: dict[str, list[str]], since: float, seconds: float) -> str:
    """What the training jobs of this call did.

    `outcomes` are the files that jobs leave, each with the adapters of its batch; those older than `since` (seconds
    of the epoch) belong to earlier calls.
    """
    trained = linked = there = 0
    failed: list[dict[str, str]] = []
    for path, adapters in outcomes.items():
        in_place = sum(Path(adapter).is_dir() for adapter in adapters)
        there += in_place
        try:
            if Path(path).stat().st_mtime < since:
                continue
            outcome = json.loads(Path(path).read_text())
        except (OSError, ValueError):
            continue
        trained += outcome["trained"]
        failed += outcome["failed"]
        linked += max(0, in_place - outcome["trained"])
    total = sum(map(len, outcomes.values()))
    lines = [
        f"{there} of {total} adapters are in place: {trained} trained and {linked} linked from the store by this call,"
        f" {len(failed)} failed, in {_duration(seconds)}.",
    ]
    lines += [f"FAILED {failure['path']}: {failure['reason']}" for failure in failed[:20]]
    if len(failed) > 20:
        lines.append(f"... and {len(failed) - 20} more: see the logs of the training jobs")
    return "\n".join(lines)


def _duration(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {seconds} s" if minutes else f"{seconds} s"
