"""A run: one complete setting, checked."""

import dataclasses
from dataclasses import dataclass
from typing import Any

# Keys of later releases, with their defaults.
LATER: dict[str, Any] = {"chat_template_kwargs": {}, "split_special_tokens": False, "lenient_answers": False}


def deciding(settings: dict[str, Any]) -> dict[str, Any]:
    """Settings as params and records have them: a key of a later release is among them only where it is set, so that
    what was made before there was that key is not made again."""
    return {key: value for key, value in settings.items() if key not in LATER or value != LATER[key]}


@dataclass(frozen=True)
class Model:
    model_name: str
    model_path: str
    model_revision: str | None
    trust_remote_code: bool


@dataclass(frozen=True)
class Data:
    data_dir: str
    dataset: str
    data_type: str | None
    augment_model: str
    projector: bool
    projector_data_dir: str
    sample: int
    lenient_answers: bool


@dataclass(frozen=True)
class Prompts:
    with_cot: bool
    prompt_templates: str
    fewshot: str | None
    max_length: int
    chat_date: str
    chat_template_kwargs: dict[str, Any]
    split_special_tokens: bool


@dataclass(frozen=True)
class Training:
    per_device_train_batch_size: int
    num_train_epochs: int
    learning_rate: float
    lora_rank: int
    lora_alpha: int
    lora_target_modules: list[str]
    base_weight: str | None
    seed: int
    precision: str


@dataclass(frozen=True)
class Jobs:
    passages_per_job: int | str
    adapters_per_step: int | str
    adapter_dir: str
    store_dir: str


@dataclass(frozen=True)
class Answers:
    inference_methods: list[str]
    max_new_tokens: int
    export: str | list[str] | None


@dataclass(frozen=True)
class Run:
    """One complete setting, in groups; each field has the name of its key in the config."""

    model: Model
    data: Data
    prompts: Prompts
    training: Training
    jobs: Jobs
    answers: Answers

    def flat(self, *but: str) -> dict[str, Any]:
        """Every key with its value, without those of some groups."""
        groups = [field.name for field in dataclasses.fields(self) if field.name not in but]
        return {key: value for group in groups for key, value in vars(getattr(self, group)).items()}
