"""The training job: it keeps what it has, and costs no more than it must."""

import contextlib
import gc
import hashlib
import itertools
import json
import os
import resource
import shutil
import signal
import struct
import subprocess
import sys
import threading
import time
import tracemalloc

import psutil
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.numpy import load_file, save_file

import tiny
from lorary.adapters.digest import digest_base_weight
from lorary.base import decoder
from lorary.core import stop
from lorary.core.device import limited_memory
from lorary.core.errors import LoraryError
from lorary.core.store import CONFIG, TENSORS
from lorary.core.work import Item
from lorary.data import prompts
from lorary.data.sequences import Passage, read_passages
from lorary.train import encode as train


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


def test_passages_that_learn_next_to_nothing_are_told(made, tmp_path, caplog):
    """Where what was trained before is linked, too. One epoch says nothing of it."""
    for epochs, vain in ((3, 3), (3, 3), (1, 0)):
        caplog.clear()
        settings = {**tiny.TRAINING, "num_train_epochs": epochs, "learning_rate": 1e-9}
        run_job(made, tmp_path, made / "llama.parquet", settings=settings)
        assert ("3 passages have learnt next to nothing" in caplog.text) == bool(vain)


def test_what_is_learnt_shows_in_the_last_epoch():
    assert train.has_learnt([2, 4, 9, 1, 1, 1], 3)
    assert not train.has_learnt([2, 4, 0, 0, 4, 2], 3)
    assert train.has_learnt([9, 9], 1)


def test_an_error_of_the_device_fails_no_passage(made, tmp_path, monkeypatch):
    """It ends the job; the next call trains what was not finished, and that alone."""
    hidden, steps = decoder.Decoder.hidden, []

    def breaks(self, ids):
        steps.append(ids)
        if len(steps) == 7:  # of the second passage: the first one has five
            raise torch.AcceleratorError("CUDA error: device-side assert triggered\nCompile with ...")
        return hidden(self, ids)

    monkeypatch.setattr(decoder.Decoder, "hidden", breaks)
    words = (
        r"^The device has failed \(CUDA error: device-side assert triggered\)\. [^(]* 1 of 3 passages are in the store"
    )
    with pytest.raises(LoraryError, match=words):
        run_job(made, tmp_path, made / "llama.parquet", adapters_per_step=1)
    assert json.loads((tmp_path / "outcome.json").read_text()) == {"trained": 1, "failed": []}
    run_job(made, tmp_path, made / "llama.parquet")
    assert json.loads((tmp_path / "outcome.json").read_text()) == {"trained": 2, "failed": []}


def test_where_no_passage_can_be_trained_each_is_named(made, tmp_path):
    """Then there is none to measure how many take a step together."""
    table = pq.read_table(made / "llama.parquet").to_pylist()
    rows = [{**row, "input_ids": [3, 512]} for row in table]
    pq.write_table(prompts.pa.Table.from_pylist(rows, schema=prompts.PROMPT_SCHEMA), tmp_path / "prompts.parquet")
    with pytest.raises(LoraryError, match=r"3 of 3 passages failed(?s:.*)data_2/passage_0: token id 512 is beyond"):
        run_job(made, tmp_path, tmp_path / "prompts.parquet", adapters_per_step="auto")


def digests_of_one(made, base_weight=None):
    """Of the passage (1, 0): its digest, and those that earlier releases gave it."""
    arguments = str(made / "llama"), str(base_weight or made / "llama-base"), str(made / "llama.parquet"), tiny.TRAINING
    digests, _ = train.passage_digests(*arguments, {(1, 0)})
    return digests[1, 0]


def digest_over(made, base_weight):
    """Settings as JSON, then length and ids of each sequence."""
    weights = json.loads((made / "llama/fingerprint.json").read_text())["weights"]
    decides = {"model": weights, "base_weight": base_weight, **tiny.TRAINING}
    content = hashlib.sha256(json.dumps(decides, sort_keys=True).encode())
    for row in pq.read_table(made / "llama.parquet").to_pylist():
        if row["did"] == 1:
            content.update(struct.pack(f"<q{row['length']}i", row["length"], *row["input_ids"]))
    return content.hexdigest()


def test_the_digest_is_that_of_every_store(made):
    """Another one would train everything anew."""
    assert digests_of_one(made)[0] == digest_over(made, digest_base_weight(str(made / "llama-base")))


def test_another_peft_or_label_leaves_the_digest(made, tmp_path):
    shutil.copytree(made / "llama-base", tmp_path / "base")
    config = json.loads((tmp_path / "base" / CONFIG).read_text())
    config |= {"peft_version": "1.0.0", "of_a_newer_peft": 16, "base_model_name_or_path": "another label"}
    (tmp_path / "base" / CONFIG).write_text(json.dumps(config))
    latest = digests_of_one(made)[0]
    assert digests_of_one(made, tmp_path / "base")[0] == latest
    for other in ({"r": 4}, {"lora_alpha": 16}, {"target_modules": ["up_proj"]}):
        (tmp_path / "base" / CONFIG).write_text(json.dumps(config | other))
        assert digests_of_one(made, tmp_path / "base")[0] != latest
    tensors = load_file(made / "llama-base" / TENSORS)
    name = next(iter(tensors))
    save_file({**tensors, name: tensors[name] + 1}, tmp_path / "base" / TENSORS)
    (tmp_path / "base" / CONFIG).write_text(json.dumps(config))
    assert digests_of_one(made, tmp_path / "base")[0] != latest


def test_what_the_first_release_trained_is_linked(made, tmp_path):
    """Its digest covered the files of the base weight, with PEFT's version and the model's name."""
    base = hashlib.sha256(tiny.first_config("llama") + (made / "llama-base" / TENSORS).read_bytes())
    latest, former = digests_of_one(made)
    assert former == digest_over(made, base.hexdigest())
    run_job(made, tmp_path, made / "llama.parquet")
    store = train.Store(str(tmp_path / "store"))
    trained = (store.entry(latest) / TENSORS).stat()
    store.entry(former).parent.mkdir(exist_ok=True)
    store.entry(latest).rename(store.entry(former))
    run_job(made, tmp_path, made / "llama.parquet")
    assert json.loads((tmp_path / "outcome.json").read_text()) == {"trained": 0, "failed": []}
    assert (store.entry(latest) / TENSORS).stat().st_ino == trained.st_ino
    assert store.get(former) is None


def test_what_has_failed_before_a_stop_is_told(made, tmp_path, monkeypatch):
    table = pq.read_table(made / "llama.parquet").to_pylist()
    rows = [{**row, "input_ids": [7] if row["did"] == 0 else row["input_ids"]} for row in table]
    pq.write_table(prompts.pa.Table.from_pylist(rows, schema=prompts.PROMPT_SCHEMA), tmp_path / "prompts.parquet")
    put = train.Store.put

    def struck(self, *arguments):
        put(self, *arguments)
        os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(train.Store, "put", struck)
    with pytest.raises(LoraryError, match="Stopped after 1 of 3 passages: they are in the store"):
        run_job(made, tmp_path, tmp_path / "prompts.parquet", adapters_per_step=1)
    outcome = json.loads((tmp_path / "outcome.json").read_text())
    assert outcome["trained"] == 1
    assert [failure["reason"].split(";")[0] for failure in outcome["failed"]] == ["the loss of step 1 is nan"]


def test_what_a_gpu_made_with_an_earlier_version_is_trained_again(made, tmp_path, caplog):
    """It may be another passage's adapter. What a processor made was right, and what a GPU makes now is too."""
    run_job(made, tmp_path, made / "llama.parquet")
    store = train.Store(str(tmp_path / "store"))
    digests = list(store.digests())
    told = [store.get(digest) for digest in digests]
    assert all("gpu_numerics" not in training for training in told)
    gpu = {"device": "NVIDIA H100"}
    claims = gpu, gpu | {"gpu_numerics": train.GPU_NUMERICS}, {}
    for digest, training, claim in zip(digests, told, claims, strict=True):
        file = store.entry(digest) / "training.json"
        file.chmod(0o600)
        file.write_text(json.dumps({**training, **claim, "marked": True}))
    run_job(made, tmp_path, made / "llama.parquet")
    assert ["marked" in store.get(digest) for digest in digests] == [False, True, True]
    assert store.get(digests[0])["device"] == told[0]["device"]
    assert f"{store.entry(digests[0])}: a GPU made it with an earlier version of Lorary" in caplog.text


def test_what_a_gpu_makes_says_with_which_version(made, tmp_path, monkeypatch):
    passages = list(read_passages(made / "llama.parquet", {(0, 0)}))
    encoder = train.Encoder(
        str(made / "llama"), str(made / "llama-base"), b"{}", tiny.TRAINING, 1, torch.device("cpu"), "NVIDIA H100"
    )
    encoder.device = torch.device("cuda", 1)
    [[(_, (_, _, about))], _] = encoder.train(iter(passages), [Item("key", "place", (0, 0))], 1)
    assert about["gpu_numerics"] == train.GPU_NUMERICS


def test_the_objective_is_in_the_digest_and_in_what_the_store_says(made, tmp_path):
    run_job(made, tmp_path, made / "llama.parquet")
    settings = {**tiny.TRAINING, "objective": "answers"}
    table = pq.read_table(made / "llama.parquet").to_pylist()
    rows = [{**row, "begin": row["length"] - 2} for row in table]
    prompts.save(prompts.pa.Table.from_pylist(rows, schema=prompts.PROMPT_SCHEMA), str(tmp_path / "prompts.parquet"))
    run_job(made, tmp_path, tmp_path / "prompts.parquet", settings=settings)
    store = train.Store(str(tmp_path / "store"))
    told = [store.get(digest) for digest in store.digests()]
    assert len(told) == 6
    assert sorted("objective" in training for training in told) == [False] * 3 + [True] * 3
    for training in told:
        if "objective" in training:
            assert (training["objective"], training["predicted"]) == ("answers", 2 * training["sequences"])
    ids = str(made / "llama"), str(made / "llama-base"), str(made / "llama.parquet")
    assert digests_of_one(made) != train.passage_digests(*ids, settings, {(1, 0)})[0][1, 0]


def test_a_job_whose_adapters_are_all_stored_does_not_import_torch(made, tmp_path):
    run_job(made, tmp_path, made / "llama.parquet")
    program = (
        "import json, sys; sys.path.insert(0, sys.argv[1]); from lorary.train.encode import train_adapters;"
        "train_adapters(**json.loads(sys.argv[2])); print(sorted({'torch', 'transformers', 'peft'} & set(sys.modules)))"
    )
    arguments = json.dumps(job_arguments(made, tmp_path, made / "llama.parquet", out="again"))
    output = subprocess.check_output([sys.executable, "-c", program, str(tiny.ROOT / "workflow"), arguments], text=True)
    assert output == "[]\n"
    for first in (tmp_path / "out").glob("*/*/*"):
        assert first.samefile(tmp_path / "again" / first.relative_to(tmp_path / "out"))


def test_a_training_job_imports_neither_peft_nor_transformers(made, tmp_path):
    program = (
        "import json, sys; sys.path.insert(0, sys.argv[1]); from lorary.train.encode import train_adapters;"
        "train_adapters(**json.loads(sys.argv[2]));"
        "print(sorted({'torch', 'transformers', 'peft', 'pandas', 'torch._dynamo'} & set(sys.modules)))"
    )
    arguments = json.dumps(job_arguments(made, tmp_path, made / "llama.parquet"))
    output = subprocess.check_output([sys.executable, "-c", program, str(tiny.ROOT / "workflow"), arguments], text=True)
    assert output == "['torch']\n"


def test_memory_does_not_grow_with_the_number_of_passages(made, tmp_path, monkeypatch):
    """Passages, and trained adapters as tensors or as bytes, are there only while they are under way."""
    first = pq.read_table(made / "llama.parquet").to_pylist()[0]
    rows = [{**first, "did": did, "input_ids": [*first["input_ids"], did + 1]} for did in range(40)]
    prompts.save(prompts.pa.Table.from_pylist(rows, schema=prompts.PROMPT_SCHEMA), tmp_path / "prompts.parquet")
    put, seen = train.Store.put, []
    done = itertools.count(1)

    def count():
        gc.collect()
        things = gc.get_objects()
        return [sum(issubclass(type(thing), kind) for thing in things) for kind in (Passage, torch.Tensor)]

    def look(self, key, config, tensors, about):
        if next(done) in (10, 40):
            seen.append((*count(), tracemalloc.get_traced_memory()[0] / len(tensors)))
        put(self, key, config, tensors, about)

    of_other_tests, _ = count()

    monkeypatch.setattr(train.Store, "put", look)
    tracemalloc.start()
    try:
        outputs = [f"{tmp_path}/out/data_{did}/passage_0" for did in range(40)]
        run_job(made, tmp_path, tmp_path / "prompts.parquet", outputs=outputs)
    finally:
        tracemalloc.stop()
    early, late = seen
    assert late[0] <= early[0] < of_other_tests + 10
    assert late[1] <= early[1]
    assert late[2] < early[2] + 20  # in adapters: 30 where they stay


def test_a_sequence_that_fits_no_memory_fails_alone(made, tmp_path):
    table = pq.read_table(made / "llama.parquet").to_pylist()
    for row in table:
        if row["did"] == 1 and row["sequence"] == 2:
            row["input_ids"] = [1] * 3_000_000
    prompts.save(prompts.pa.Table.from_pylist(table, schema=prompts.PROMPT_SCHEMA), tmp_path / "prompts.parquet")
    program = (
        "import json, re, resource, sys; sys.path.insert(0, sys.argv[1]); import torch\n"
        "from lorary.train.encode import train_adapters\n"
        "used = 1024 * int(re.search(r'VmData:\\s*(\\d+)', open('/proc/self/status').read())[1])\n"
        "resource.setrlimit(resource.RLIMIT_DATA, (used + 300_000_000, resource.RLIM_INFINITY))\n"
        "train_adapters(**json.loads(sys.argv[2]))"
    )
    arguments = json.dumps(job_arguments(made, tmp_path, tmp_path / "prompts.parquet"))
    command = [sys.executable, "-c", program, str(tiny.ROOT / "workflow"), arguments]
    process = subprocess.run(command, capture_output=True, text=True)
    assert "1 x 3000000 tokens do not fit into memory; a lower max_length would help" in process.stderr
    assert json.loads((tmp_path / "outcome.json").read_text())["trained"] == 2


def test_no_more_memory_is_asked_for_than_there_is():
    before = resource.getrlimit(resource.RLIMIT_DATA)
    with limited_memory("cpu"):
        soft, _ = resource.getrlimit(resource.RLIMIT_DATA)
        assert 0 < soft < 2 * psutil.virtual_memory().total
    assert resource.getrlimit(resource.RLIMIT_DATA) == before


def test_a_passage_that_takes_longer_than_the_patience_is_given_up(made, tmp_path, monkeypatch):
    monkeypatch.setattr(stop, "PATIENCE", 0.5)
    table = pq.read_table(made / "llama.parquet").to_pylist()
    endless = [{**row, "sequence": i} for row in table if row["did"] == 1 for i in range(20_000)]
    table = [row for row in table if row["did"] == 0] + endless + [row for row in table if row["did"] == 2]
    prompts.save(prompts.pa.Table.from_pylist(table, schema=prompts.PROMPT_SCHEMA), tmp_path / "prompts.parquet")
    began = []

    def ask_to_stop():
        while not list((tmp_path / "store").glob("??/*")):
            time.sleep(0.01)
        began.append(time.monotonic())
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=ask_to_stop, daemon=True).start()
    with pytest.raises(LoraryError, match=r"Stopped after [12] of 3 passages: they are in the store"):
        run_job(made, tmp_path, tmp_path / "prompts.parquet")
    assert time.monotonic() - began[0] < 10


GUARDED = (
    "import json, sys; sys.path.insert(0, sys.argv[1])\n"
    "FORBIDDEN = ('pickle.find_class', 'socket.', 'subprocess.Popen', 'os.system', 'os.exec', 'os.posix_spawn')\n"
    "def hook(event, _):\n"
    "    if event.startswith(FORBIDDEN): print(event, file=sys.stderr); raise SystemExit(f'forbidden: {event}')\n"
    "import torch\n"  # which looks for what it may use
    "sys.addaudithook(hook)\n"
)


def test_training_unpickles_fetches_and_starts_nothing(made, tmp_path):
    program = GUARDED + "from lorary.train.encode import train_adapters; train_adapters(**json.loads(sys.argv[2]))"
    arguments = json.dumps(job_arguments(made, tmp_path, made / "llama.parquet"))
    command = [sys.executable, "-c", program, str(tiny.ROOT / "workflow"), arguments]
    process = subprocess.run(command, capture_output=True, text=True)
    assert process.returncode == 0, process.stderr
    # and the guard guards
    for what in ("import pickle; pickle.loads(pickle.dumps(print))", "import socket; socket.socket()"):
        process = subprocess.run([*command[:2], GUARDED + what, command[3]], capture_output=True, text=True)
        assert "forbidden" in process.stderr


def job_arguments(made, folder, prompt_file, out="out"):
    return {
        "outputs": [f"{folder}/{out}/data_{did}/passage_0" for did in range(3)],
        "record": f"{folder}/record.tsv",
        "outcome": f"{folder}/outcome.json",
        "model": str(made / "llama"),
        "base_weight": str(made / "llama-base"),
        "prompts": str(prompt_file),
        "settings": tiny.TRAINING,
        "adapters_per_step": "auto",
        "store": f"{folder}/store",
        "threads": 1,
    }


def run_job(made, folder, prompt_file, **arguments):
    train.train_adapters(**job_arguments(made, folder, prompt_file) | arguments)


def test_a_base_weight_that_changes_while_a_job_waits_for_its_device_is_refused(made, tmp_path, monkeypatch):
    """Another call, with another seed, writes over it: nothing may get into the store under the first one's digest."""
    arguments = job_arguments(made, tmp_path, made / "llama.parquet")
    arguments["base_weight"] = str(shutil.copytree(made / "llama-base", tmp_path / "base"))
    take_device = train.take_device

    @contextlib.contextmanager
    def waited(threads):
        tensors = load_file(tmp_path / "base" / TENSORS)
        save_file({name: tensor + 1 for name, tensor in tensors.items()}, tmp_path / "base" / TENSORS)
        with take_device(threads) as taken:
            yield taken

    monkeypatch.setattr(train, "take_device", waited)
    with pytest.raises(LoraryError, match="base was made anew while this job waited for its device"):
        train.train_adapters(**arguments)
    assert not list((tmp_path / "store").glob("??/*"))


def test_what_was_not_checked_layer_by_layer_is_trained_again_where_transformers_computes(made, tmp_path):
    run_job(made, tmp_path, made / "llama.parquet")
    store = train.Store(str(tmp_path / "store"))
    keys = list(store.digests())
    unchecked = {**store.get(keys[0])}
    assert unchecked.pop("layers_checked")
    file = store.entry(keys[0]) / "training.json"
    file.chmod(0o600)
    file.write_text(json.dumps(unchecked))
    for written_out, there in ((True, [True] * 3), (False, [False, True, True])):
        kept = train.InStore(store, {key: [] for key in keys}, written_out)
        assert [key in kept for key in keys] == there
    assert kept.outdated == {keys[0]}
