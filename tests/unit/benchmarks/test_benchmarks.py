"""The benchmark measures what it says: on a tiny model, with one round, in this process."""

import json
import shutil

import pandas as pd
import pytest

import tiny
from benchmarks import answer as bench_answers
from benchmarks import train as bench
from lorary.adapters import lora
from lorary.adapters.files import CONFIG, TENSORS
from lorary.base import decoder
from lorary.core.pack import within
from lorary.core.packing import link_pack
from lorary.core.store import Store, sha256
from lorary.data import prompts
from lorary.data import rows as dataset
from lorary.train.records import COLUMNS


@pytest.fixture
def results(made, tmp_path, monkeypatch):
    monkeypatch.setattr(bench, "ROUNDS", 1)
    monkeypatch.setattr(bench, "REFERENCE_LENGTH", 300)
    monkeypatch.setattr(bench, "STACKED", (1, 8))
    monkeypatch.setattr(bench, "matrix_rates", lambda precision, device: {"torch": 1e12, "packed": 2e12})
    monkeypatch.setattr(bench, "in_a_process", lambda _, arguments: bench.measure(**arguments))
    measure_tiny, widths = bench.measure_tiny, []

    def measure_tiny_and_count(**arguments):
        gather = lora.Stack.gather
        with monkeypatch.context() as patched:
            patched.setattr(lora.Stack, "gather", lambda self, at: widths.append(len(at)) or gather(self, at))
            return measure_tiny(**arguments)

    monkeypatch.setattr(bench, "measure_tiny", measure_tiny_and_count)
    files = [str(made / name) for name in ("llama", "llama-base", "llama.parquet")]
    text = bench.bench(*files, threads=1, output=str(tmp_path / "bench.json"), plot=str(tmp_path / "bench.svg"))
    return text, json.loads((tmp_path / "bench.json").read_text()), tmp_path / "bench.svg", widths


@pytest.mark.all  # tests/unit/train and tests/oracle compare with the reference
def test_every_way_is_measured_and_makes_the_same_adapter(results):
    text, figures, plot, widths = results
    assert list(figures["ways"]) == list(bench.WAYS)
    for label, way in figures["ways"].items():
        assert way["tokens_a_second"] * way["seconds_a_passage"] * way["passages"] == pytest.approx(way["tokens"])
        # 16 bits and 3 passages of other lengths: the first one is compared
        assert way["cosine"] > (0.99 if "bfloat16" in label else 0.9999), label
        assert f"| {label} | {way['seconds_a_passage']:.2f} |" in text
    alone, stacked = (figures["ways"][label]["operators"] for label in ("ours, float32", "ours, float32, stacked"))
    assert alone < figures["ways"][bench.BASIS]["operators"]  # what a GPU would have to launch
    assert stacked < alone / 3.5  # for four passages hardly more than for one
    assert [(n, job["passages"]) for n, job in figures["linear"].items()] == [("16", 16), ("64", 64), ("256", 256)]
    job = figures["job"]
    assert job["seconds_a_passage"] * job["passages"] == pytest.approx((1 - job["not_training"]) * job["seconds"])
    assert figures["tiny"].keys() == {"1", "8"}
    sequences = 2 * 128 * 5  # of 128 passages, in two rounds
    assert sum(widths) == 2 * sequences
    assert sequences + sequences / 8 <= len(widths) < sequences + sequences / 6  # one by one, and eight at once
    assert "<svg" in plot.read_text()


@pytest.mark.parametrize("name", ["llama", "qwen"])  # one with a head of its own
def test_the_parameters_of_the_matrix_products_are_counted(made, name):
    model = decoder.Decoder(json.loads((made / name / "config.json").read_text()))
    layers = [module for module in model.modules() if isinstance(module, decoder.FrozenLinear)]
    assert bench.parameters(str(made / name)) == sum(layer.weight.numel() for layer in layers)


@pytest.mark.all  # tests/unit/answer compares with PEFT
def test_answers_are_measured_and_the_same(made, tmp_path, monkeypatch):
    """Of adapters in directories and in packs."""
    monkeypatch.setattr(bench_answers, "ROUNDS", 1)
    monkeypatch.setattr(bench_answers, "QUESTIONS", 5)
    monkeypatch.setattr(bench_answers, "in_a_process", lambda _, arguments: bench_answers.measure(**arguments))
    lines = []
    for did in range(3):
        folder = tmp_path / f"data_{did}/passage_0"
        shutil.copytree(made / "llama-base", folder)
        digests = {c: sha256(folder / f) for c, f in (("sha256", TENSORS), ("config_sha256", CONFIG))}
        lines.append({**dict.fromkeys(COLUMNS), "did": did, "pid": 0, "path": str(folder), **digests})
    store, pack = Store(str(tmp_path / "store")), str(tmp_path / "packed/1-1.01234567.safetensors")
    store.put(64 * "0", (folder / CONFIG).read_bytes(), (folder / TENSORS).read_bytes(), {})
    link_pack(store, {"data_1/passage_0": 64 * "0"}, (folder / CONFIG).read_bytes(), pack)
    lines[1]["path"] = within(pack, "data_1/passage_0")
    pd.DataFrame(lines).to_csv(tmp_path / "record.tsv", sep="\t", index=False)
    dataset.save(dataset.load_all([made / "total.json"], -1, "aug"), str(tmp_path / "table.parquet"))
    text = bench_answers.bench_answers(
        model=str(made / "llama"),
        table=str(tmp_path / "table.parquet"),
        records=[str(tmp_path / "record.tsv")],
        prompter=prompts.load_prompter(str(made / "llama"), tiny.PROMPTS),
        max_new_tokens=4,
        threads=1,
        output=str(tmp_path / "answers.json"),
    )
    figures = json.loads((tmp_path / "answers.json").read_text())
    assert figures["same_answers"] == figures["questions"] == 5
    assert figures["adapters_a_question"] == 1
    assert figures["speedup"] == figures["seconds"]["peft"] / figures["seconds"]["ours"]
    assert "5 of 5 answers are the same" in text
