"""What decides adapters besides their prompt ids: settings, the base weight, and the task adapter under them."""

from pathlib import Path
from typing import Any

from ..adapters.digest import digest_task_adapter
from ..core.files import sha256
from ..data.objectives import SEQUENCES
from . import layout
from .job import Job
from .layout import RunFolder
from .run import Run, deciding

# Goes up with every change that makes a teacher say something else: it is asked anew, and its adapters trained again.
TEACHER = 1
# As many tokens of an answer a teacher writes at most, with `distill_answers: own`.
OWN_TOKENS = 64


def settings(run: Run, task: dict[str, str] | None) -> dict[str, Any]:
    """Of training; those of later releases only where they are set. `task`: as `task_adapter` has it."""
    keys, objective = vars(run.training), run.prompts.objective
    decides = ["per_device_train_batch_size", "num_train_epochs", "learning_rate", "precision"]
    taught = {"teacher": TEACHER} | {key: keys[key] for key in ("distill_top_k", "distill_temperature")}
    if own := deciding({"distill_answers": keys["distill_answers"]}):  # which are cut, too
        taught |= own | {"own_tokens": OWN_TOKENS, "max_length": run.prompts.max_length}
    return {
        **{key: keys[key] for key in decides},
        **deciding({"adapter_precision": keys["adapter_precision"], "objective": objective}),
        **deciding({key: keys[key] for key in ("keep_directions", "keep_sequences")}),
        **(taught if SEQUENCES[objective].teacher else {}),
        **({"task_adapter": task["sha256"]} if task else {}),
    }


def task_adapter(run: Run) -> dict[str, str] | None:
    """Of a run, as its jobs and run.json have it: where it lies (`path`), and its digest (`sha256`). None where there
    is none. Raises LoraryError."""
    path = run.training.task_adapter
    return {"path": path, "sha256": digest_task_adapter(path)} if path else None


def base_weight(run: Run, folder: RunFolder, model: Job) -> Job:
    """The job that makes what every training of a run starts from."""
    keys = vars(run.training)
    given = keys["base_weight"]
    params = {
        "model_source": model.params,
        **{key: keys[key] for key in ("lora_rank", "lora_alpha", "lora_target_modules", "seed", "base_weight")},
    }
    if given:  # what is moved or copied there may be older than what was made of the one before
        params["base_weight"] = {file: sha256(Path(file)) for file in layout.adapter_files(given)}
    return Job(
        rule="init_base_weight",
        label=folder.base_weight,
        inputs={"model": model.outputs["model"], "given": layout.adapter_files(given) if given else []},
        outputs=folder.base_weight_files(params),
        params=params,
    )
