"""Training: the result is the reference's, and a job keeps what it has."""

import json
import subprocess
import sys

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from transformers import AutoModelForCausalLM

import reference
import tiny
from lorary import adapter, dataset, decoder, lora, model, prompts, train
from lorary.errors import LoraryError

TARGETS = ["down_proj", "gate_proj", "up_proj"]
SETTINGS = {
    "numerics": 1,
    "per_device_train_batch_size": 1,
    "num_train_epochs": 1,
    "learning_rate": 3e-3,
    "precision": "float32",
}


@pytest.fixture(scope="module")
def made(tmp_path_factory, tiny_llama, tiny_qwen):
    """Per model: a base model directory, base weight of rank 2, and the prompts of 3 passages with 3, 4 and 1 pairs."""
    root = tmp_path_factory.mktemp("made")
    rows = [tiny.make_rows(1, passages=1, pairs=pairs, seed=pairs)[0] for pairs in (3, 4, 1)]
    data = tiny.write_rows(root / "total.json", rows)
    for name, source in (("llama", tiny_llama), ("qwen", tiny_qwen)):
        model.get_model(str(source), None, str(root / name))
        adapter.init_base_weight(str(root / name), 2, 32, TARGETS, 0, None, str(root / f"{name}-base"))
        templates = tiny.ROOT / "resources/prompt_templates.yaml"
        prompter = prompts.load_prompter(str(root / name), templates, None, False, "26 Jul 2024")
        prompts.save(prompts.build(dataset.load([data], -1, "aug"), prompter, 3000), root / f"{name}.parquet")
    return root


def passages(made, name="llama"):
    return list(train.read_passages(made / f"{name}.parquet", {(0, 0), (1, 0), (2, 0)}))


def train_alone(made, name, sequences, base, **settings):
    model_ = decoder.load(made / name, "float32", torch.device("cpu"))
    config, tensors = adapter.read_adapter(base)
    trained = lora.Adapter(model_, tensors, config["lora_alpha"] / config["r"])
    losses = train.train_passage(model_, trained, sequences, {**SETTINGS, **settings})
    return trained, losses


@pytest.mark.parametrize("name", ["llama", "qwen"])
@pytest.mark.parametrize(
    ("rank", "batch", "epochs"), [(2, 1, 1), (2, 2, 2), (1, 3, 1), (4, 8, 3)], ids=lambda value: str(value)
)
def test_the_adapter_is_that_of_the_reference(made, tmp_path, name, rank, batch, epochs):
    """The reference pads everything to one length; padding changes no result."""
    base = tmp_path / "base"
    adapter.init_base_weight(str(made / name), rank, 16, TARGETS, 3, None, str(base))
    theirs = AutoModelForCausalLM.from_pretrained(made / name, dtype=torch.float32)
    for i, passage in enumerate(passages(made, name)):
        trained, losses = train_alone(
            made, name, passage.sequences, base, per_device_train_batch_size=batch, num_train_epochs=epochs
        )
        (tmp_path / f"ours{i}").mkdir()
        (tmp_path / f"ours{i}" / adapter.TENSORS).write_bytes(adapter.tensors_bytes(trained.tensors()))
        expected = reference.train(theirs, base, passage.sequences, tmp_path / f"theirs{i}", 3e-3, epochs, batch, 400)
        assert losses == pytest.approx(expected, rel=1e-4)
        cosine, distance = reference.compare(tmp_path / f"ours{i}", tmp_path / f"theirs{i}", base)
        assert cosine >= 0.9999
        assert distance <= 1e-3


def test_the_base_model_does_not_change(made):
    before = decoder.load(made / "llama", "float32", torch.device("cpu")).state_dict()
    trained_model = decoder.load(made / "llama", "float32", torch.device("cpu"))
    _, tensors = adapter.read_adapter(made / "llama-base")
    trained = lora.Adapter(trained_model, tensors, 16.0)
    train.train_passage(trained_model, trained, passages(made)[0].sequences, SETTINGS)
    after = {name.replace(".base.", "."): tensor for name, tensor in trained_model.state_dict().items()}
    assert after.keys() == before.keys()
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())


def test_a_passage_does_not_depend_on_those_before_it(made):
    model_ = decoder.load(made / "llama", "float32", torch.device("cpu"))
    _, tensors = adapter.read_adapter(made / "llama-base")
    trained = lora.Adapter(model_, tensors, 16.0)
    results = []
    for i in (0, 1, 0):
        train.train_passage(model_, trained, passages(made)[i].sequences, SETTINGS)
        results.append(trained.flat.clone())
    assert torch.equal(results[0], results[2])
    assert not torch.equal(results[0], results[1])


def test_bfloat16_trains_a_float32_adapter_near_that_of_float32(made):
    exact, _ = train_alone(made, "llama", passages(made)[0].sequences, made / "llama-base")
    model_ = decoder.load(made / "llama", "bfloat16", torch.device("cpu"))
    _, tensors = adapter.read_adapter(made / "llama-base")
    rough = lora.Adapter(model_, tensors, 16.0)
    train.train_passage(model_, rough, passages(made)[0].sequences, {**SETTINGS, "precision": "bfloat16"})
    assert rough.flat.dtype == torch.float32
    updates = [trained.flat - trained.start for trained in (exact, rough)]
    assert 0.9 < torch.nn.functional.cosine_similarity(*updates, dim=0) < 0.9999


def test_padding_is_to_the_longest_of_the_batch_and_no_further():
    ids, labels = train._pad([np.array([5, 6, 7]), np.array([8])], torch.device("cpu"))
    assert ids.tolist() == [[5, 6, 7], [8, 0, 0]]
    assert labels.tolist() == [[5, 6, 7], [8, -100, -100]]


@pytest.mark.parametrize(
    ("sequence", "words"),
    [([7], "the loss of step 1 is nan"), ([3, 512, 3], "token id 512 is beyond the model's vocabulary")],
)
def test_a_passage_that_cannot_be_trained_fails_alone(made, tmp_path, sequence, words):
    table = pq.read_table(made / "llama.parquet").to_pylist()
    for row in table:
        row["input_ids"] = sequence if row["did"] == 1 else row["input_ids"]
    pq.write_table(prompts.pa.Table.from_pylist(table, schema=prompts.PROMPT_SCHEMA), tmp_path / "prompts.parquet")
    with pytest.raises(LoraryError, match=f"1 of 3 passages failed.*(?s:.*)data_1/passage_0: {words}"):
        run_job(made, tmp_path, tmp_path / "prompts.parquet")
    assert len(list((tmp_path / "store").glob("??/*"))) == 2
    outcome = json.loads((tmp_path / "outcome.json").read_text())
    assert outcome["trained"] == 2
    assert [failure["path"] for failure in outcome["failed"]] == [str(tmp_path / "out/data_1/passage_0")]
    assert not (tmp_path / "record.tsv").exists()


def test_a_job_whose_adapters_are_all_stored_does_not_import_torch(made, tmp_path):
    run_job(made, tmp_path, made / "llama.parquet")
    program = (
        "import json, sys; sys.path.insert(0, sys.argv[1]); from lorary.train import train_adapters;"
        "train_adapters(**json.loads(sys.argv[2])); print(sorted({'torch', 'transformers', 'peft'} & set(sys.modules)))"
    )
    arguments = json.dumps(job_arguments(made, tmp_path, made / "llama.parquet", out="again"))
    output = subprocess.check_output([sys.executable, "-c", program, str(tiny.ROOT / "workflow"), arguments], text=True)
    assert output == "[]\n"
    for first in (tmp_path / "out").glob("*/*/*"):
        assert first.samefile(tmp_path / "again" / first.relative_to(tmp_path / "out"))


def test_a_training_job_imports_neither_peft_nor_transformers(made, tmp_path):
    program = (
        "import json, sys; sys.path.insert(0, sys.argv[1]); from lorary.train import train_adapters;"
        "train_adapters(**json.loads(sys.argv[2]));"
        "print(sorted({'torch', 'transformers', 'peft', 'pandas', 'torch._dynamo'} & set(sys.modules)))"
    )
    arguments = json.dumps(job_arguments(made, tmp_path, made / "llama.parquet"))
    output = subprocess.check_output([sys.executable, "-c", program, str(tiny.ROOT / "workflow"), arguments], text=True)
    assert output == "['torch']\n"


def test_peak_memory_does_not_grow_with_the_number_of_passages(made, tmp_path):
    table = pq.read_table(made / "llama.parquet").to_pylist()
    peaks = []
    for copies in (4, 80):
        rows = [
            {**row, "pid": row["pid"] + i}
            for row_did in (0, 1, 2)
            for i in range(copies)
            for row in table
            if row["did"] == row_did
        ]
        for row in rows:  # every passage its own ids
            row["input_ids"] = [*row["input_ids"], row["pid"] + 1]
        folder = tmp_path / str(copies)
        folder.mkdir()
        prompts.save(prompts.pa.Table.from_pylist(rows, schema=prompts.PROMPT_SCHEMA), folder / "prompts.parquet")
        arguments = job_arguments(made, folder, folder / "prompts.parquet")
        arguments["outputs"] = [f"{folder}/out/data_{did}/passage_{i}" for did in (0, 1, 2) for i in range(copies)]
        program = (
            "import json, resource, sys; sys.path.insert(0, sys.argv[1]); from lorary.train import train_adapters;"
            "train_adapters(**json.loads(sys.stdin.read()));"
            "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"
        )
        command = [sys.executable, "-c", program, str(tiny.ROOT / "workflow")]
        peaks.append(int(subprocess.check_output(command, input=json.dumps(arguments), text=True)))
    assert peaks[1] < 1.03 * peaks[0]


def job_arguments(made, folder, prompt_file, out="out"):
    return {
        "outputs": [f"{folder}/{out}/data_{did}/passage_0" for did in range(3)],
        "record": f"{folder}/record.tsv",
        "outcome": f"{folder}/outcome.json",
        "model": str(made / "llama"),
        "base_weight": str(made / "llama-base"),
        "prompts": str(prompt_file),
        "settings": SETTINGS,
        "store": f"{folder}/store",
        "threads": 1,
    }


def run_job(made, folder, prompt_file):
    train.train_adapters(**job_arguments(made, folder, prompt_file))
