"""The record of a training job: a table (TSV) with a line an adapter."""

import csv
import hashlib
from typing import TYPE_CHECKING, Any

from ..core.errors import LoraryError, damaged
from ..core.files import written_whole
from ..core.store import Store
from ..core.values import TENSORS, Position

if TYPE_CHECKING:
    import pandas as pd

COLUMNS = ["did", "pid", "path", "digest", "sequences", "tokens", "first_loss", "last_loss", "seconds", "device"]
COLUMNS += ["adapters_per_step", "sha256", "config_sha256", "losses"]
LEARNT = 0.8  # of the first epoch's loss, at most
UNLEARNT = (
    "their loss did not come down from the first epoch to the last. Where it jumps (see the losses in training.json),"
    " learning_rate is too high; where it stays, too low, or there was nothing to learn."
)


def write_record(
    path: str, store: Store, digests: dict[Position, str], outputs: dict[Position, str], config: bytes
) -> list[list[float]]:
    """A line for each of the outputs, which all have this config, of what the store says of its adapter. Returns the
    losses of each. Raises LoraryError."""
    losses: list[list[float]] = []
    with written_whole(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS, delimiter="\t", extrasaction="ignore", lineterminator="\n")
        writer.writeheader()
        for (did, pid), output in outputs.items():
            training = store.get(digests[did, pid])
            if training is None:
                raise LoraryError(f"{store.directory} has lost entries while this job ran; the same command goes on.")
            place = {"did": did, "pid": pid, "path": output, "digest": digests[did, pid]}
            place["config_sha256"] = hashlib.sha256(config).hexdigest()
            writer.writerow({**training, **place, **_derived(training)})
            losses.append(training["losses"])
    return losses


def read_record(path: str, columns: list[str] = COLUMNS) -> "pd.DataFrame":
    """These columns of a record. Raises LoraryError."""
    import pandas as pd

    try:
        return pd.read_csv(path, sep="\t", dtype={"losses": str}, usecols=columns)[columns]
    except (OSError, ValueError, LookupError) as error:
        raise damaged(path, error) from None


def has_learnt(losses: list[float], epochs: int) -> bool:
    """Whether the losses of the last epoch are well below those of the first, on average. Of one epoch nothing can be
    said, and it is taken for learnt."""
    steps = len(losses) // epochs
    return epochs == 1 or not steps or sum(losses[-steps:]) < LEARNT * sum(losses[:steps])


def _derived(training: dict[str, Any]) -> dict[str, Any]:
    losses = training["losses"]  # none, where it was not trained, but translated
    return {
        "first_loss": losses[0] if losses else None,
        "last_loss": losses[-1] if losses else None,
        "losses": " ".join(f"{loss:.4g}" for loss in losses),
        "sha256": training["sha256"][TENSORS],
    }
