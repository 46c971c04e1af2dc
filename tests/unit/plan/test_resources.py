"""What a training job asks of a cluster follows the model's size, the passages and the attempt."""

import pytest

from lorary.plan.resources import Resources


def memory_mb(model, attempt):
    return Resources(1, 1, "float32").memory_mb(model, attempt)


def minutes(model, passages, epochs, precision, attempt):
    return Resources(passages, epochs, precision).minutes(model, attempt)


@pytest.fixture
def billion(tmp_path):
    """A base model of a billion parameters, 2 bytes each, as far as the sizes of its files tell."""
    for name in ("model-1.safetensors", "model-2.safetensors"):
        with (tmp_path / name).open("wb") as file:
            file.truncate(10**9)  # a hole
    return str(tmp_path)


def test_memory_holds_the_model_twice_and_grows_with_the_attempt(billion):
    assert memory_mb(billion, attempt=1) == 6000 + 2 * 2000
    assert memory_mb(billion, attempt=3) == 3 * memory_mb(billion, attempt=1)


def test_time_follows_passages_epochs_precision_and_attempt(billion):
    # 4 FLOP a parameter and token: 5 TFLOP a passage and epoch
    assert minutes(billion, 1200, epochs=1, precision="float32", attempt=1) == 10 + 20
    assert minutes(billion, 1200, epochs=3, precision="float32", attempt=1) == 10 + 60
    assert minutes(billion, 1200, epochs=12, precision="bfloat16", attempt=1) == 10 + 40
    assert minutes(billion, 1200, epochs=1, precision="float32", attempt=2) == 2 * 30


def test_a_small_model_still_has_a_second_a_passage(tmp_path):
    (tmp_path / "model.safetensors").write_bytes(b"tiny")
    assert minutes(str(tmp_path), 64, epochs=1, precision="tf32", attempt=1) == 10 + 2


def test_snakemake_learns_that_the_model_is_not_there_yet(tmp_path):
    with pytest.raises(FileNotFoundError) as raised:
        memory_mb(str(tmp_path), attempt=1)
    assert raised.value.filename == str(tmp_path)
