"""What decides adapters besides their prompt ids and the base weight, and the task adapter that lies under them."""

from typing import Any

from ..adapters.digest import digest_task_adapter
from ..data.objectives import SEQUENCES
from .run import Run, deciding

# Goes up with every change that makes a teacher say something else: it is asked anew, and its adapters trained again.
TEACHER = 1


def settings(run: Run, task: dict[str, str] | None) -> dict[str, Any]:
    """Of training; those of later releases only where they are set. `task`: as `task_adapter` has it."""
    keys, objective = vars(run.training), run.prompts.objective
    decides = ["per_device_train_batch_size", "num_train_epochs", "learning_rate", "precision"]
    taught = {"teacher": TEACHER} | {key: keys[key] for key in keys if key.startswith("distill_")}
    return {
        **{key: keys[key] for key in decides},
        **deciding({"objective": objective}),
        **(taught if SEQUENCES[objective].teacher else {}),
        **({"task_adapter": task["sha256"]} if task else {}),
    }


def task_adapter(run: Run) -> dict[str, str] | None:
    """Of a run, as its jobs and run.json have it: where it lies (`path`), and its digest (`sha256`). None where there
    is none. Raises LoraryError."""
    path = run.training.task_adapter
    return {"path": path, "sha256": digest_task_adapter(path)} if path else None
