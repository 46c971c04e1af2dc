"""A run: one complete setting, checked."""

import dataclasses
from dataclasses import dataclass
from typing import Any

# Keys of later releases, with their defaults.
LATER: dict[str, Any] = {
    "chat_template_kwargs": {},
    "split_special_tokens": False,
    "lenient_answers": False,
    "source": "augmented",
    "documents": None,
    "corpus": None,
    "questions": None,
    "passage_words": 100,
    "retrieve_top_k": 3,
    "augment_with": "local",
    "augment_model_path": None,
    "augment_model_revision": None,
    "augment_base_url": None,
    "augment_server_model": None,
    "augment_at_once": 16,
    "augment_prices": None,
    "augment_style": "answer_first",
    "augment_prompts": None,
    "pairs": 3,
    "augment_tries": 4,
    "augment_precision": None,
    "passages_per_augment_job": "auto",
    "combine_adapters": ["sum"],
    "routed_top": 1,
    "routed_by": "bm25",
    "heldout_pairs": 0,
    "heldout_questions": None,
    "general_questions": None,
    "general_adapters": 1,
    "objective": "reference",
    "contexts": None,
    "distill_top_k": 64,
    "distill_temperature": 1.0,
    "distill_answers": "given",
    "task_adapter": None,
    "keep_directions": 0.0,
    "keep_sequences": 0,
    "keep_questions": None,
    "translator": None,
    "translator_datasets": [],
    "translator_pairs": -1,
    "translator_epochs": None,
    "translator_learning_rate": None,
    "translator_hidden": None,
    "translator_batch": None,
    "translator_control": None,
    "pack": False,
    "adapter_precision": "float32",
}
TRANSLATOR = tuple(key for key in LATER if key.startswith("translator"))
# Those that are in the names of runs, where they are set: two settings of them lie side by side.
IN_NAMES = (
    "objective",
    "contexts",
    "distill_top_k",
    "distill_temperature",
    "distill_answers",
    "keep_directions",
    "keep_sequences",
    *TRANSLATOR,
)


def in_name(settings: dict[str, Any]) -> str:
    """What keys of later releases add to a run's name: those of IN_NAMES that are set."""
    later = deciding({key: settings[key] for key in IN_NAMES})
    return "".join(f"_{key}={spelled(value)}" for key, value in later.items())


def spelled(value: Any) -> Any:
    """A value as names and tables have it: a list as one word."""
    return "+".join(value) if isinstance(value, list) else value


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
class Raw:
    """Where passages come from, where they are not augmented yet."""

    source: str
    documents: str | None
    corpus: str | None
    questions: str | None
    passage_words: int
    retrieve_top_k: int


@dataclass(frozen=True)
class Augmenting:
    """How raw passages get their rewrites and pairs."""

    augment_with: str
    augment_model_path: str | None
    augment_model_revision: str | None
    augment_base_url: str | None
    augment_server_model: str | None
    augment_at_once: int
    augment_prices: list[float] | None
    augment_style: str
    augment_prompts: str | None
    pairs: int
    augment_tries: int
    augment_precision: str | None
    passages_per_augment_job: int | str


@dataclass(frozen=True)
class Prompts:
    with_cot: bool
    prompt_templates: str
    fewshot: str | None
    max_length: int
    chat_date: str
    chat_template_kwargs: dict[str, Any]
    split_special_tokens: bool
    heldout_pairs: int
    objective: str
    contexts: str | None


@dataclass(frozen=True)
class Training:
    per_device_train_batch_size: int
    num_train_epochs: int
    learning_rate: float
    lora_rank: int
    lora_alpha: int
    lora_target_modules: list[str]
    base_weight: str | None
    task_adapter: str | None
    seed: int
    precision: str
    adapter_precision: str
    distill_top_k: int
    distill_temperature: float
    distill_answers: str
    keep_directions: float
    keep_sequences: int
    keep_questions: str | None


@dataclass(frozen=True)
class Translating:
    """Where adapters come from, if they are not trained one by one."""

    translator: str | None
    translator_datasets: list[str]
    translator_pairs: int
    translator_epochs: int | None
    translator_learning_rate: float | None
    translator_hidden: int | None
    translator_batch: int | None
    translator_control: str | None


@dataclass(frozen=True)
class Jobs:
    passages_per_job: int | str
    adapters_per_step: int | str
    adapter_dir: str
    store_dir: str
    pack: bool


@dataclass(frozen=True)
class Answers:
    inference_methods: list[str]
    combine_adapters: list[str]
    routed_top: int
    routed_by: str
    max_new_tokens: int
    heldout_questions: str | None
    general_questions: str | None
    general_adapters: int
    export: str | list[str] | None


@dataclass(frozen=True)
class Run:
    """One complete setting, in groups; each field has the name of its key in the config."""

    model: Model
    data: Data
    raw: Raw
    augmenting: Augmenting
    prompts: Prompts
    training: Training
    translating: Translating
    jobs: Jobs
    answers: Answers

    def flat(self, *but: str) -> dict[str, Any]:
        """Every key with its value, without those of some groups."""
        groups = [field.name for field in dataclasses.fields(self) if field.name not in but]
        return {key: value for group in groups for key, value in vars(getattr(self, group)).items()}
