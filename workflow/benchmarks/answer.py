"""The benchmark of answers: PEFT's way, one question after the other, and ours in batches, in one run on one machine.

Each measurement is a process of its own (`python -m benchmarks.answer`, which reads the arguments of `measure` as
JSON). What is timed begins when the base model is loaded: adapters read, put together and taken off, and the answers.
"""

import json
import logging
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.machine import in_a_process, machine
from lorary.adapters.files import write_adapter
from lorary.answer.source import Trained
from lorary.base.fetch import end_tokens
from lorary.core.device import take_device
from lorary.core.pack import contents, pack_of
from lorary.core.values import CONFIG, TENSORS
from lorary.data import rows as dataset
from lorary.data.prompts import Prompter

log = logging.getLogger("lorary.benchmarks")

QUESTIONS = 32
ROUNDS = 3  # the median counts
WAYS = {"peft": "PEFT: load, cat, generate, unload, one by one", "ours": "ours: in batches"}


def bench_answers(
    model: str, table: str, records: list[str], prompter: Prompter, max_new_tokens: int, threads: int, output: str
) -> str:
    """Answer the questions of the first passages' own pairs with the adapters of their question (prag), in both ways;
    write JSON. Returns a table for reading."""
    trained = Trained.of_records(records)
    rows = [row for row in dataset.read(table, 0, None) if (row["did"], row["pid"]) in trained.lines]
    together: dict[int, list[str]] = {}
    for row in rows:
        together.setdefault(row["did"], []).append(trained.lines[row["did"], row["pid"]]["path"])
    asked = [(row["did"], pair["question"]) for row in rows for pair in row["pairs"]]
    asked = [asked[i % len(asked)] for i in range(QUESTIONS)]
    questions = [(prompter.prompt_ids(question, []), together[did]) for did, question in asked]
    arguments = {"model": model, "questions": questions, "max_new_tokens": max_new_tokens, "threads": threads}
    rounds: dict[str, list[dict[str, Any]]] = {way: [] for way in WAYS}
    for i in range(ROUNDS):
        for way, results in rounds.items():
            log.info("round %d of %d: %s", i + 1, ROUNDS, WAYS[way])
            results.append(in_a_process("benchmarks.answer", {"way": way, **arguments}))
    seconds = {way: statistics.median(result["seconds"] for result in results) for way, results in rounds.items()}
    ours, theirs = (rounds[way][0]["answers"] for way in ("ours", "peft"))
    same = sum(a == b for a, b in zip(ours, theirs, strict=True))
    figures = {"machine": machine(threads), "questions": QUESTIONS, "seconds": seconds, "same_answers": same}
    figures["adapters_a_question"] = sum(len(paths) for _, paths in questions) / QUESTIONS
    figures["speedup"] = seconds["peft"] / seconds["ours"]
    Path(output).write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
    lines = [
        f"On {figures['machine']}: {QUESTIONS} questions, {figures['adapters_a_question']:.0f} adapters each, at most"
        f" {max_new_tokens} new tokens:",
        "",
        "| | questions a second | |",
        "| --- | --- | --- |",
        *(
            f"| {name} | {QUESTIONS / seconds[way]:.2f} | {seconds['peft'] / seconds[way]:.1f}× |"
            for way, name in WAYS.items()
        ),
        "",
        f"{same} of {QUESTIONS} answers are the same, token by token.",
    ]
    return "\n".join(lines) + "\n"


def measure(
    way: str, model: str, questions: list[tuple[list[int], list[str]]], max_new_tokens: int, threads: int
) -> dict[str, Any]:
    """Seconds, and the tokens of each answer. A question is its prompt ids and the paths of its adapters, in
    directories or in packs; PEFT, which reads no packs, finds directories of these as it begins."""
    with take_device(threads) as (device, _):
        if way == "ours":
            return _ours(model, questions, max_new_tokens, device)
        with tempfile.TemporaryDirectory() as folder:
            adapters = dict.fromkeys(path for _, paths in questions for path in paths)
            there = {path: _directory(path, Path(folder, str(number))) for number, path in enumerate(adapters)}
            asked = [(ids, [there[path] for path in paths]) for ids, paths in questions]
            return _peft(model, asked, max_new_tokens, device)


def _ours(model: str, questions: list, max_new_tokens: int, device) -> dict[str, Any]:
    from lorary.adapters.lora import load_adapter
    from lorary.answer.generate import Answerer

    answerer = Answerer(model, "float32", device, list(load_adapter(questions[0][1][0]).tensors))
    began = time.perf_counter()
    sets = [[load_adapter(path) for path in paths] for _, paths in questions]
    answers = answerer.generate([ids for ids, _ in questions], sets, max_new_tokens)
    return {"seconds": time.perf_counter() - began, "answers": answers}


def _directory(adapter: str, new: Path) -> str:
    """Its own; or, of one in a pack, a new one."""
    if pack_of(adapter) is None:
        return adapter
    files = contents(adapter)
    write_adapter(new, files[CONFIG], files[TENSORS])
    return str(new)


def _peft(model: str, questions: list, max_new_tokens: int, device) -> dict[str, Any]:
    """As inference.py of Parametric RAG (Su et al., SIGIR 2025) does it."""
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, GenerationConfig

    base = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32).to(device)
    base.generation_config = GenerationConfig()  # greedy, whatever the model's own file says
    ends = sorted(end_tokens(model))
    answers = []
    began = time.perf_counter()
    for ids, paths in questions:
        names = [str(i) for i in range(len(paths))]
        adapted = PeftModel.from_pretrained(base, paths[0], adapter_name=names[0])
        for name, path in zip(names[1:], paths[1:], strict=True):
            adapted.load_adapter(path, adapter_name=name)
        adapted.add_weighted_adapter(names, [1.0] * len(names), "merge", combination_type="cat")
        adapted.set_adapter("merge")
        prompt = torch.tensor([ids], device=device)
        with torch.no_grad():
            output = adapted.generate(
                input_ids=prompt,
                attention_mask=torch.ones_like(prompt),
                do_sample=False,
                max_new_tokens=max_new_tokens,
                eos_token_id=ends or None,
                pad_token_id=0,
            )
        tokens = output[0, len(ids) :].tolist()
        answers.append(tokens[: next((i for i, token in enumerate(tokens) if token in ends), None)])
        adapted.delete_adapter("merge")
        base = adapted.unload()
    return {"seconds": time.perf_counter() - began, "answers": answers}


if __name__ == "__main__":
    print(json.dumps(measure(**json.loads(sys.stdin.read()))))
