"""The benchmark: the reference's way of training, PEFT's, and ours, measured in one run on one machine.

`bench` measures and writes; each measurement is a process of its own (`python -m benchmarks.train`, which reads the
arguments of `measure` as JSON), so that its peak memory is its own. A figure is set against the rate of this machine's
matrix products, which is measured in the same process, just before and just after.
"""

import json
import logging
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.figures import BASIS, REFERENCE, draw, tables
from benchmarks.machine import in_a_process, machine, matrix_rates, peak_memory, python, synchronize
from lorary.adapters import files as adapters
from lorary.core.device import take_device
from lorary.core.private import dispatch_mode
from lorary.data.sequences import Example, Passage, read_passages

log = logging.getLogger("lorary.benchmarks")

REFERENCE_LENGTH = 3000  # the reference pads every sequence to this
LEARNING_RATE = 3e-4  # the reference's
SETTINGS = {"per_device_train_batch_size": 1, "num_train_epochs": 1, "learning_rate": LEARNING_RATE}
ROUNDS = 3  # of the quick measurements; the median counts
STACKED = (1, 2, 4, 8, 16, 32)

# What is compared: label, and the arguments of `measure`.
WAYS: dict[str, dict[str, Any]] = {
    REFERENCE: {"way": "peft", "pad_to": REFERENCE_LENGTH, "precision": "float32"},
    BASIS: {"way": "peft", "pad_to": None, "precision": "float32"},
    "ours, float32": {"way": "ours", "stacked": False, "precision": "float32"},
    "ours, bfloat16": {"way": "ours", "stacked": False, "precision": "bfloat16"},
    "ours, float32, stacked": {"way": "ours", "stacked": True, "precision": "float32"},
    "ours, bfloat16, stacked": {"way": "ours", "stacked": True, "precision": "bfloat16"},
}


def bench(model: str, base_weight: str, prompts: str, threads: int, output: str, plot: str) -> str:
    """Measure on the first passages of a file of prompt ids; write JSON and a plot. Returns tables for reading."""
    common = {"model": model, "base_weight": base_weight, "prompts": prompts, "threads": threads}
    with tempfile.TemporaryDirectory() as folder:
        rounds: dict[str, list[dict]] = {label: [] for label in WAYS}
        for i in range(ROUNDS):
            for label, arguments in WAYS.items():
                if arguments.get("pad_to") and i:  # minutes: once
                    continue
                log.info("round %d of %d: %s", i + 1, ROUNDS, label)
                save = str(Path(folder) / label)
                rounds[label].append(in_a_process("benchmarks.train", {**common, **arguments, "save": save}))
        ways = {label: _median(results) for label, results in rounds.items()}
        weights = parameters(model)
        for label, result in ways.items():
            result["flop_a_second"] = 4 * weights * result["tokens_a_second"]  # forward, and back to the inputs
            made, basis = Path(folder) / label, Path(folder) / BASIS
            result["cosine"], result["distance"] = compare(made, basis, Path(base_weight))
            if WAYS[label].get("stacked"):
                alone = Path(folder) / label.removesuffix(", stacked")
                result["cosine_to_ours"], result["distance_to_ours"] = compare(made, alone, Path(base_weight))
        log.info("a job of many passages")
        many = {**common, "way": "job", "precision": "float32", "folder": folder}
        job = in_a_process("benchmarks.train", {**many, "count": 64})
        jobs: dict[int, list[dict]] = {16: [], 64: [], 256: []}
        for i in range(ROUNDS):
            log.info("round %d of %d: jobs of %s short passages", i + 1, ROUNDS, ", ".join(map(str, jobs)))
            for count, results in jobs.items():
                results.append(in_a_process("benchmarks.train", {**many, "count": count, "short": True}))
        linear = {count: _median(results) for count, results in jobs.items()}
    log.info("side by side on a tiny model")
    stacked = in_a_process("benchmarks.train", {**common, "way": "tiny"})
    measured = {"machine": machine(threads), "ways": ways, "job": job, "linear": linear, "tiny": stacked}
    Path(output).write_text(json.dumps(measured, indent=2) + "\n", encoding="utf-8")
    draw(measured, plot)
    return tables(measured)


def measure(way: str, **arguments: Any) -> dict[str, Any]:
    by_name: dict[str, Callable[..., dict[str, Any]]] = {
        "peft": measure_peft,
        "ours": measure_ours,
        "job": measure_job,
        "tiny": measure_tiny,
    }
    return by_name[way](**arguments)


def measure_peft(
    model: str, base_weight: str, prompts: str, threads: int, pad_to: int | None, precision: str, save: str
) -> dict[str, Any]:
    """The reference's loop (Su et al., SIGIR 2025): PEFT around transformers' model, batches of one sequence."""
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    with take_device(threads) as (device, _):
        base = AutoModelForCausalLM.from_pretrained(model, dtype=getattr(torch, precision)).to(device)
        some = _first(prompts, 1)
        adapted = PeftModel.from_pretrained(base, base_weight, is_trainable=True)
        optimizer = torch.optim.AdamW([p for p in adapted.parameters() if p.requires_grad], lr=LEARNING_RATE)
        sequences = [example.ids for example in some[0].examples]

        def step(sequence, update=True):
            ids = torch.tensor(sequence, dtype=torch.long)[None]
            padding = 0 if pad_to is None else pad_to - ids.shape[1]
            mask = torch.nn.functional.pad(torch.ones_like(ids), (0, padding))
            labels = torch.nn.functional.pad(ids, (0, padding), value=-100)
            ids = torch.nn.functional.pad(ids, (0, padding))
            batch = {"input_ids": ids.to(device), "attention_mask": mask.to(device), "labels": labels.to(device)}
            optimizer.zero_grad()
            adapted(**batch).loss.backward()
            if update:
                optimizer.step()

        if pad_to is None:
            step(sequences[-1], update=False)  # the first one is the slower
        result = _timed(lambda: [step(sequence) for sequence in sequences], some, precision, device)
        if pad_to is None:
            result["operators"] = _operators(lambda: step(sequences[0], update=False))
        adapted.save_pretrained(save, save_embedding_layers=False)
    return result


def measure_ours(
    model: str, base_weight: str, prompts: str, threads: int, stacked: bool, precision: str, save: str
) -> dict[str, Any]:
    """One passage alone; or, stacked, four side by side on a processor, and on a GPU as many of 64 as pay."""
    from lorary.base import decoder
    from lorary.train import trainer

    with take_device(threads) as (device, _):
        base = decoder.load(model, precision, device)
        config, tensors = adapters.read_adapter(base_weight)
        ours = trainer.Trainer(base, tensors, config["lora_alpha"] / config["r"], SETTINGS, 1)
        some = _first(prompts, 1 if not stacked else 4 if device.type == "cpu" else 64)
        if stacked:
            ours.adapters_per_step = 4 if device.type == "cpu" else ours.measure(some[0], len(some))
        ours.trial(Passage((0, 0), some[0].examples[-1:]), ours.adapters_per_step)  # the first one is the slower
        trained: list[trainer.Training] = []
        result = _timed(lambda: trained.extend(ours.train(some, len(some))), some, precision, device)
        first = next(training for training in trained if training.passage is some[0])
        assert first.tensors is not None, first.error
        adapters.write_adapter(Path(save), adapters.config_bytes(config), adapters.tensors_bytes(first.tensors))
        n = result["adapters_per_step"] = ours.adapters_per_step
        result["operators"] = _operators(lambda: ours.trial(some[0], n)) / 2 / n  # a trial makes two steps
    return result


def measure_job(
    model: str,
    base_weight: str,
    prompts: str,
    threads: int,
    count: int,
    precision: str,
    folder: str,
    short: bool = False,
) -> dict[str, Any]:
    """A whole training job from the start of its process, with its store and its outputs: `count` different passages,
    with all their sequences, or only with the last, which is the shortest."""
    from lorary.data import prompts as ids

    here = Path(tempfile.mkdtemp(dir=folder))
    rows = []
    for i, passage in enumerate(_first(prompts, count)):
        for j, example in enumerate(passage.examples[-1:] if short else passage.examples):
            row = {"did": i, "pid": 0, "sequence": j, "length": len(example), "error": None}
            rows.append({**row, "input_ids": [*example.ids[:-1].tolist(), i + 1]})  # passages repeat: none is another's
    ids.save(ids.pa.Table.from_pylist(rows, schema=ids.PROMPT_SCHEMA), str(here / "prompts.parquet"))
    arguments = {
        "outputs": [str(here / f"out/data_{i}/passage_0") for i in range(count)],
        "record": str(here / "record.tsv"),
        "outcome": str(here / "outcome.json"),
        "model": model,
        "base_weight": base_weight,
        "prompts": str(here / "prompts.parquet"),
        "settings": {**SETTINGS, "precision": precision},
        "adapters_per_step": 1,
        "store": str(here / "store"),
        "threads": threads,
    }
    program = (
        "import json, resource, sys; from lorary.train.encode import train_adapters;"
        "train_adapters(**json.loads(sys.stdin.read()));"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"
    )
    began = time.perf_counter()
    peak = int(python("-c", program, given=arguments))
    seconds = time.perf_counter() - began
    lines = (here / "record.tsv").read_text(encoding="utf-8").splitlines()
    column = lines[0].split("\t").index("seconds")
    training = sum(float(line.split("\t")[column]) for line in lines[1:])
    return {
        "passages": count,
        "seconds": seconds,
        "seconds_a_passage": training / count,
        "not_training": 1 - training / seconds,
        "peak_memory_gb": peak / (1e9 if sys.platform == "darwin" else 1e6),  # bytes there, kilobytes here
    }


def measure_tiny(model: str, base_weight: str, prompts: str, threads: int) -> dict[str, float]:
    """Launch-bound on purpose: passages a second on a tiny random model with short sequences, n side by side."""
    import torch

    from lorary.base import decoder
    from lorary.train import trainer

    rng = np.random.default_rng(0)
    some = [
        Passage((i, 0), [Example(rng.integers(0, 256, rng.integers(15, 18), dtype=np.int32)) for _ in range(5)])
        for i in range(128)
    ]
    with take_device(threads) as (device, _):
        config = {"model_type": "llama", "vocab_size": 256, "hidden_size": 64, "intermediate_size": 128}
        config |= {"num_hidden_layers": 4, "num_attention_heads": 2, "rms_norm_eps": 1e-5}
        tiny = decoder.Decoder(config)
        torch.manual_seed(0)
        for parameter in tiny.parameters():
            torch.nn.init.normal_(parameter.detach(), std=0.1)
        tiny = tiny.to(device).requires_grad_(False)
        start = {}
        for name, module in tiny.named_modules():
            if name.rsplit(".")[-1] in ("down_proj", "gate_proj", "up_proj"):
                out_features, in_features = module.weight.shape
                start[f"{adapters.PREFIX}{name}.lora_A.weight"] = 0.1 * torch.randn(2, in_features)
                start[f"{adapters.PREFIX}{name}.lora_B.weight"] = torch.zeros(out_features, 2)
        ours = trainer.Trainer(tiny, start, 16.0, SETTINGS, 1)
        rates: dict[int, list[float]] = {n: [] for n in STACKED}
        for _ in range(1 + ROUNDS):
            for n in STACKED:
                ours.adapters_per_step = n
                began = time.perf_counter()
                assert not any(training.error for training in ours.train(some, len(some)))
                rates[n].append(len(some) / (time.perf_counter() - began))
        return {str(n): statistics.median(values[1:]) for n, values in rates.items()}  # the first round warms up


def parameters(model: str) -> int:
    """Of the base model's matrix products: the weights of its linear layers, the head among them."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    with torch.device("meta"):
        skeleton = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(model))
    return sum(m.weight.numel() for m in skeleton.modules() if isinstance(m, torch.nn.Linear))


def _timed(run, some: list[Passage], precision: str, device) -> dict[str, Any]:
    """Time `run`, which trains these passages, beside the rate of matrix products just before and after."""
    rates = [matrix_rates(precision, device)]
    synchronize(device)
    began = time.perf_counter()
    run()
    synchronize(device)
    seconds = time.perf_counter() - began
    rates.append(matrix_rates(precision, device))
    tokens = sum(len(example) for passage in some for example in passage.examples)
    return {
        "passages": len(some),
        "tokens": tokens,
        "seconds_a_passage": seconds / len(some),
        "tokens_a_second": tokens / seconds,
        "matrix_rates": {name: statistics.mean(rate[name] for rate in rates) for name in rates[0]},
        "peak_memory_gb": peak_memory(device),
    }


def _operators(run) -> float:
    """How many of torch's operators it takes that compute something: on a GPU each is at least one launch."""
    import torch

    mode: Any = dispatch_mode()

    class Counter(mode):
        count = 0

        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            self.count += not func.is_view and func.overloadpacket not in (torch.ops.aten.empty, torch.ops.aten.detach)
            return func(*args, **(kwargs or {}))

    with Counter() as counter:
        run()
    return counter.count


def _median(results: list[dict[str, Any]]) -> dict[str, Any]:
    return sorted(results, key=lambda result: result["seconds_a_passage"])[len(results) // 2]


def compare(ours: Path, theirs: Path, base_weight: Path) -> tuple[float, float]:
    """Cosine of the updates of two adapters, and the relative L2 distance of the first from the second."""
    tensors = [adapters.read_adapter(str(folder))[1] for folder in (ours, theirs, base_weight)]
    a, b, start = (np.concatenate([t[name].double().numpy().ravel() for name in sorted(t)]) for t in tensors)
    u, g = a - start, b - start
    return float(u @ g / np.linalg.norm(u) / np.linalg.norm(g)), float(np.linalg.norm(u - g) / np.linalg.norm(g))


def _first(prompts: str, count: int) -> list[Passage]:
    """The first passages of the file, over again where it has fewer."""
    import pyarrow.parquet as pq

    table = pq.read_table(prompts, columns=["did", "pid"])
    positions = set(zip(table["did"].to_pylist(), table["pid"].to_pylist(), strict=True))
    there = [passage for passage in read_passages(prompts, positions) if not passage.error]
    return [there[i % len(there)] for i in range(count)]


if __name__ == "__main__":
    print(json.dumps(measure(**json.loads(sys.stdin.read()))))
