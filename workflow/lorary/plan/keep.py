"""What the base model knows beside any passage: the job that asks it, for adapters to spare that."""

from pathlib import Path

from ..core.files import sha256
from ..data import heldout
from ..data.keep import read_questions, refuse_asked
from . import layout
from .job import Job
from .resources import Resources
from .run import Run, deciding

# Goes up with every change that has it find other answers or directions: adapters are trained again then.
KEEP = 1
# What turns a question into ids.
WORDING = ("with_cot", "prompt_templates", "fewshot", "chat_date", "chat_template_kwargs", "split_special_tokens")
PASSAGES = 16  # whose training takes no less time


def keeps(run: Run) -> bool:
    """Whether its adapters are to spare anything."""
    return bool(run.training.keep_directions or run.training.keep_sequences)


def job(run: Run, model: Job, base_weight: Job, task: dict[str, str] | None) -> Job:
    """Of a run that `keeps` something; `task`: as `plan.training.task_adapter` has it. Raises LoraryError."""
    how, questions = run.training, run.training.keep_questions or str(layout.KEEP_QUESTIONS)
    asked = run.answers.general_questions
    refuse_asked(read_questions(questions), [q["question"] for q in heldout.read_general(asked)] if asked else [])
    wording = deciding({key: value for key, value in vars(run.prompts).items() if key in WORDING})
    fewshot = run.prompts.fewshot if run.prompts.with_cot else None
    params = {
        "version": KEEP,
        "model_source": model.params,
        "questions": sha256(Path(questions)),
        "wording": {**wording, "fewshot": fewshot},
        "directions": how.keep_directions,
        "layers": {key: base_weight.params[key] for key in ("lora_target_modules", "base_weight")},
        "precision": how.precision,
        **({"task_adapter": task} if task else {}),
    }
    name = f"{run.model.model_name}_{layout.digest(params)}"
    return Job(
        rule="keep",
        label=name,
        inputs={
            "model": model.outputs["model"],
            "base_weight": list(base_weight.outputs.values()),
            "questions": questions,
            "templates": run.prompts.prompt_templates,
            "fewshot": fewshot or [],
            "task_adapter": layout.adapter_files(task["path"]) if task else [],
        },
        outputs={"kept": layout.KEPT.format(kept=name)},
        params=params,
        resources=Resources(PASSAGES, 1, how.precision),
    )
