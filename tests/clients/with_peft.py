"""Run by an interpreter that has PEFT and transformers, of whatever version: `with_peft.py CASES MODEL OUT`. As PRAG's
own inference loads adapters; and as transformers does without PEFT's classes."""

import json
import sys
from pathlib import Path

import tokenizers
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

cases, path, out = sys.argv[1:]
asked = json.loads(Path(cases).read_text(encoding="utf-8"))
bare = [case for case in asked if not case["adapters"]]
single = [case for case in asked if len(case["adapters"]) == 1]
several = [case for case in asked if len(case["adapters"]) > 1]


def answer(model, case: dict) -> list[int]:
    ids = torch.tensor([case["prompt"]])
    settings = {"do_sample": False, "max_new_tokens": case["tokens"], "attention_mask": torch.ones_like(ids)}
    with torch.inference_mode():
        return model.generate(input_ids=ids, **settings)[0, len(case["prompt"]) :].tolist()


said: dict = {"prompts": None}
if not tokenizers.__version__.startswith("0.19."):  # which cannot read what a later one writes
    tokenizer = AutoTokenizer.from_pretrained(path)
    turns = [[{"role": "user", "content": case["content"]}] for case in asked]
    texts = [tokenizer.apply_chat_template(turn, tokenize=False, add_generation_prompt=True) for turn in turns]
    said["prompts"] = [tokenizer(text, add_special_tokens=False)["input_ids"] for text in texts]

model = AutoModelForCausalLM.from_pretrained(path)  # without a dtype: what its config says
said["bare"] = [answer(model, case) for case in bare]

# src/inference.py of PRAG: load_adapter, add_weighted_adapter, set_adapter, delete_adapter, unload
first, *others = dict(
    zip((case["adapters"][0] for case in single), (case["paths"][0] for case in single), strict=True)
).items()
adapted = PeftModel.from_pretrained(model, first[1], adapter_name=first[0].replace("/", "_"), is_trainable=False)
for name, folder in others:
    adapted.load_adapter(folder, adapter_name=name.replace("/", "_"))
said["single"] = []
for case in single:
    adapted.set_adapter(case["adapters"][0].replace("/", "_"))
    said["single"].append(answer(adapted, case))
said["several"] = []
for case in several:
    names = [name.replace("/", "_") for name in case["adapters"]]
    adapted.add_weighted_adapter(names, [1] * len(names), "merged", combination_type="cat")
    adapted.set_adapter("merged")
    said["several"].append(answer(adapted, case))
    adapted.delete_adapter("merged")
model = adapted.unload()
said["bare again"] = [answer(model, case) for case in bare]

# transformers' own, with what `snakemake export` merged beside single ones
model = AutoModelForCausalLM.from_pretrained(path)
said["transformers"] = []
for number, case in enumerate([*single, *several]):
    model.load_adapter(case["path"], adapter_name=f"adapter_{number}")
    model.set_adapter(f"adapter_{number}")
    said["transformers"].append(answer(model, case))
Path(out).write_text(json.dumps(said), encoding="utf-8")
