import pytest
import tiny


@pytest.fixture(scope="session")
def tiny_llama(tmp_path_factory):
    """A directory with a tiny random Llama and its tokenizer."""
    return tiny.make_model(tmp_path_factory.mktemp("llama"), "llama", tie_word_embeddings=True)


@pytest.fixture(scope="session")
def tiny_qwen(tmp_path_factory):
    """A directory with a tiny random Qwen2 (biases in attention, an own head) and its tokenizer."""
    return tiny.make_model(tmp_path_factory.mktemp("qwen"), "qwen2", tie_word_embeddings=False)
