import os
import signal
import subprocess
import sys

import pytest

import tiny
from lorary.adapters import files as adapter
from lorary.base import fetch as model
from lorary.data import prompts
from lorary.data import rows as dataset
from project import Project

# What a shell starts in the background ignores Ctrl-C, and so would every process that a test starts.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def tiny_llama(tmp_path_factory):
    """A directory with a tiny random Llama and its tokenizer."""
    return tiny.make_model(tmp_path_factory.mktemp("llama"), "llama", tie_word_embeddings=True)


@pytest.fixture(scope="session")
def tiny_qwen(tmp_path_factory):
    """A directory with a tiny random Qwen2 (biases in attention, an own head) and its tokenizer."""
    return tiny.make_model(tmp_path_factory.mktemp("qwen"), "qwen2", tie_word_embeddings=False)


@pytest.fixture(scope="session")
def made(tmp_path_factory, tiny_llama, tiny_qwen):
    """Per model: a base model directory, base weight of rank 2, and the prompts of 3 passages with 3, 4 and 1 pairs."""
    root = tmp_path_factory.mktemp("made")
    rows = [tiny.make_rows(1, passages=1, pairs=pairs, seed=pairs)[0] for pairs in (3, 4, 1)]
    data = tiny.write_rows(root / "total.json", rows)
    for name, source in (("llama", tiny_llama), ("qwen", tiny_qwen)):
        model.get_model(str(source), None, str(root / name))
        adapter.init_base_weight(str(root / name), 2, 32, tiny.TARGETS, 0, None, str(root / f"{name}-base"))
        prompter = prompts.load_prompter(str(root / name), tiny.PROMPTS)
        prompts.save(prompts.build(dataset.load([data], -1, "aug"), prompter, 3000), root / f"{name}.parquet")
    return root


@pytest.fixture
def project(tmp_path, tiny_llama):
    """A checkout with a tiny model, and 3 questions of 2 passages as data."""
    made = Project(tmp_path, tiny_llama)
    made.write_rows(tiny.make_rows(3))
    return made


@pytest.fixture(scope="session")
def _with_model(tmp_path_factory, tiny_llama):
    made = Project(tmp_path_factory.mktemp("with-model"), tiny_llama)
    made.write_rows(tiny.make_rows(3))
    made.snakemake("models")
    return made


@pytest.fixture
def with_model(tmp_path_factory, _with_model):
    """The project with its base model fetched."""
    return _with_model.copy(tmp_path_factory.mktemp("copy") / "project")


@pytest.fixture(scope="session")
def _finished(tmp_path_factory, tiny_llama):
    made = Project(tmp_path_factory.mktemp("finished"), tiny_llama)
    made.settings["passages_per_job"] = 3
    made.write_rows(tiny.make_rows(3))
    made.snakemake()
    return made


@pytest.fixture
def finished(tmp_path_factory, _finished):
    """The same after a whole run (3 passages a job), for a test to spoil."""
    return _finished.copy(tmp_path_factory.mktemp("copy") / "project")


@pytest.fixture
def start():
    """Starts a process in which `lorary` is found; none outlives the test."""
    started = []

    def start(code, *arguments):
        env = {**os.environ, "PYTHONPATH": str(tiny.ROOT / "workflow")}
        command = [sys.executable, "-c", code, *map(str, arguments)]
        started.append(subprocess.Popen(command, env=env, stdout=subprocess.PIPE, text=True))
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.communicate()
