"""What the base model knows beside any passage: the job that asks it, for adapters to spare that."""

from pathlib import Path
from typing import Any

from ..core.files import sha256
from ..data import heldout
from ..data.keep import read_questions, refuse_asked
from . import layout
from .job import Job
from .resources import Resources
from .run import Run, deciding

# Goes up with every change that has it find other answers or directions, or train otherwise with them: adapters are
# trained again then.
KEEP = 2
# What turns a question into ids, besides files.
WORDING = ("with_cot", "chat_date", "chat_template_kwargs", "split_special_tokens")
PASSAGES = 2000  # whose training takes no less time: the directions of wide layers take minutes each


def keeps(run: Run) -> bool:
    """Whether its adapters are to spare anything."""
    return bool(run.training.keep_directions or run.training.keep_sequences)


def questions_of(keys: dict[str, Any]) -> str:
    """The file that is asked from, of a run that keeps something."""
    return keys.get("keep_questions") or layout.one_spelling(str(layout.KEEP_QUESTIONS))


def job(run: Run, model: Job, task: dict[str, str] | None) -> Job:
    """Of a run that `keeps` something; `task`: as `plan.training.task_adapter` has it. Raises LoraryError."""
    how, prompts = run.training, run.prompts
    questions, asked = questions_of(vars(how)), run.answers.general_questions
    refuse_asked(read_questions(questions), [q["question"] for q in heldout.read_general(asked)] if asked else [])
    files = {"questions": questions, "prompt_templates": prompts.prompt_templates}
    files |= {"fewshot": prompts.fewshot} if prompts.with_cot and prompts.fewshot else {}
    params = {
        "version": KEEP,
        "model_source": model.params,
        "files": {key: sha256(Path(path)) for key, path in files.items()},
        "wording": deciding({key: value for key, value in vars(prompts).items() if key in WORDING}),
        "directions": how.keep_directions,
        "lora_target_modules": how.lora_target_modules if how.keep_directions else [],
        "precision": how.precision,
        "task_adapter": task and task["sha256"],
    }
    name = f"{run.model.model_name}_{layout.digest(params)}"
    inputs = {**{"fewshot": []}, **files, "model": model.outputs["model"]}
    inputs |= {"task_adapter": layout.adapter_files(task["path"]) if task else []}
    outputs = {"kept": layout.KEPT.format(kept=name)}
    return Job("keep", name, inputs, outputs, params, resources=Resources(PASSAGES, 1, how.precision))
