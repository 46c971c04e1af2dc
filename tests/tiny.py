"""Tiny random models and small data for the tests, made on the spot."""

import functools
import json
import random
from pathlib import Path

ROOT = Path(__file__).parents[1]
DEMO = ROOT / "resources/demo/invented/smollm2-135m-instruct/total.json"

CHATML = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
WORDS = ("amber", "basalt", "copper", "dune", "ember", "flint", "granite", "heath", "iron", "jasper", "kelp", "loam")

TARGETS = ["down_proj", "gate_proj", "up_proj"]
PROMPTS = {  # the settings that prompts take
    "prompt_templates": str(ROOT / "resources/prompt_templates.yaml"),
    "fewshot": None,
    "with_cot": False,
    "chat_date": "26 Jul 2024",
}
TRAINING = {  # the settings that training takes
    "numerics": 1,
    "per_device_train_batch_size": 1,
    "num_train_epochs": 1,
    "learning_rate": 3e-3,
    "precision": "float32",
}


def first_config(label: str) -> bytes:
    """adapter_config.json of a base weight for such targets (rank 2, alpha 32), as the first release wrote it."""
    from lorary.adapters.digest import FIRST_CONFIG

    said = {"r": 2, "lora_alpha": 32, "target_modules": TARGETS, "base_model_name_or_path": label}
    return (json.dumps(FIRST_CONFIG | said, indent=2, sort_keys=True) + "\n").encode()


@functools.cache
def _tokenizer_json() -> str:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=500,
        special_tokens=["<|im_start|>", "<|im_end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([DEMO.read_text()], trainer)
    return tokenizer.to_str()


def make_tokenizer(folder: Path, chat_template: str | None = CHATML) -> None:
    from transformers import PreTrainedTokenizerFast

    folder.mkdir(parents=True, exist_ok=True)
    (folder / "tokenizer.json").write_text(_tokenizer_json())
    tokenizer = PreTrainedTokenizerFast(tokenizer_file=str(folder / "tokenizer.json"), pad_token="<|im_end|>")
    tokenizer.chat_template = chat_template
    tokenizer.save_pretrained(folder)


def make_model(folder: Path, kind: str = "llama", **settings) -> Path:
    """A model directory as users have it: `kind` is a model type of transformers."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    settings = {
        "vocab_size": 512,
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "initializer_range": 0.1,
        "pad_token_id": 0,
        "bos_token_id": 0,
        "eos_token_id": 1,
        **settings,
    }
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **settings)).save_pretrained(folder)
    make_tokenizer(folder)
    return folder


def sentence(rng: random.Random, words: int) -> str:
    return " ".join(rng.choice(WORDS) for _ in range(words))


def make_rows(questions: int, passages: int = 2, pairs: int = 3, model: str = "aug", seed: int = 0) -> list[dict]:
    """Augmented rows: every passage different, of different lengths."""
    rng = random.Random(seed)
    rows = []
    for did in range(questions):
        augment = []
        for pid in range(passages):
            augment.append(
                {
                    "pid": pid,
                    "passage": sentence(rng, rng.randint(4, 16)),
                    f"{model}_rewrite": sentence(rng, rng.randint(4, 16)),
                    f"{model}_qa": [
                        {
                            "question": f"which {sentence(rng, 3)}",
                            "answer": sentence(rng, 1),
                            "full_answer": sentence(rng, 5),
                        }
                        for _ in range(pairs)
                    ],
                }
            )
        rows.append(
            {
                "question": f"question {did} of {sentence(rng, 3)}?",
                "answer": sentence(rng, 1) if did % 2 else [sentence(rng, 1), sentence(rng, 2)],
                "passages": [a["passage"] for a in augment],
                "augment": augment,
            }
        )
    return rows


def tower(number: int) -> tuple[str, str]:
    """Title and text of a passage that tells something, each another: of which `speaker` makes pairs."""
    name = f"{WORDS[number % len(WORDS)].capitalize()}{chr(ord('a') + number // len(WORDS))}"
    rng = random.Random(number)
    stone, first, last = (rng.choice(some) for some in (WORDS, ("Ildra", "Bethra", "Kessim"), ("Penhosk", "Druvik")))
    text = f"{name} stands on the river Asquill. Its tower of {stone} was built in {1500 + number} by {first} {last}, "
    return f"{name} Light", f"{text}and is {20 + number} metres tall."


def write_documents(folder: Path, count: int) -> Path:
    """A text file for each of so many towers; up to twelve are read in their order."""
    folder.mkdir(parents=True, exist_ok=True)
    for title, text in map(tower, range(count)):
        (folder / f"{title.replace(' ', '_')}.txt").write_text(text + "\n", encoding="utf-8")
    return folder


def add_to_passage(row: dict, pid: int, text: str) -> None:
    """Both where prompts have it from and where adapters are made of it."""
    row["augment"][pid]["passage"] += text
    row["passages"][pid] += text


def write_demo_rows(project: Path) -> None:
    """Into the project's folder `data`: the demo's four questions of three passages, which has each passage once."""
    rows = [row for row in json.loads(DEMO.read_text()) if len(row["passages"]) == 3]
    write_rows(project / "data" / DEMO.relative_to(DEMO.parents[2]), rows)


def write_rows(path: Path, rows: list[dict]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(rows), encoding="utf-8")
    return path
