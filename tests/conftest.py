import pytest

import tiny
from project import Project


@pytest.fixture(scope="session")
def tiny_llama(tmp_path_factory):
    """A directory with a tiny random Llama and its tokenizer."""
    return tiny.make_model(tmp_path_factory.mktemp("llama"), "llama", tie_word_embeddings=True)


@pytest.fixture(scope="session")
def tiny_qwen(tmp_path_factory):
    """A directory with a tiny random Qwen2 (biases in attention, an own head) and its tokenizer."""
    return tiny.make_model(tmp_path_factory.mktemp("qwen"), "qwen2", tie_word_embeddings=False)


@pytest.fixture
def project(tmp_path, tiny_llama):
    """A checkout with a tiny model, and 3 questions of 2 passages as data."""
    made = Project(tmp_path, tiny_llama)
    made.write_rows(tiny.make_rows(3))
    return made


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
    return _finished.copy(tmp_path_factory.mktemp("copy"))
