"""The training step, the update and greedy generation on a device whose tensors hold no values: as on a GPU, a tensor
that was left on the processor is an error there; and so is whatever would wait for a value."""

import pytest
import torch

import tiny
from lorary.adapters import files as adapter
from lorary.adapters.lora import Adapter
from lorary.answer import generate
from lorary.base import decoder, reading
from lorary.base.fetch import get_model
from lorary.data.sequences import read_passages
from lorary.train import trainer

META = torch.device("meta")


class Fetched:
    """What is copied from the device."""

    def __init__(self, flat, losses):
        assert {tensor.device for tensor in (flat, *losses)} == {META}
        self.flat, self.losses = torch.zeros(flat.shape), [0.0] * len(losses)

    def ready(self):
        return True

    def get(self):
        return self.flat, self.losses


@pytest.fixture
def no_pins(monkeypatch):
    """Pinned memory is a GPU's."""
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda self: self)
    monkeypatch.setattr(trainer, "Fetched", Fetched)


def on_meta(directory, precision="float32"):
    return decoder.load(directory, precision, torch.device("cpu")).to(META)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("n", [1, 3])
@pytest.mark.parametrize("name", ["llama", "qwen"])
def test_training_waits_for_no_value_and_mixes_no_devices(made, no_pins, name, n, precision):
    _, tensors = adapter.read_adapter(made / f"{name}-base")
    some = read_passages(made / f"{name}.parquet", {(0, 0), (1, 0), (2, 0)})
    settings = {**tiny.TRAINING, "per_device_train_batch_size": 2, "precision": precision}
    trainings = list(trainer.Trainer(on_meta(made / name, precision), tensors, 16.0, settings, n).train(some, 3))
    assert [(training.error, len(training.losses)) for training in trainings] == [
        (None, training.steps) for training in trainings
    ]
    assert len(trainings) == 3


def test_nor_does_it_in_a_model_of_transformers(made, no_pins, tmp_path, monkeypatch):
    """But for one look at the positions of tokens, which is their own."""
    from transformers import masking_utils

    monkeypatch.setattr(masking_utils, "find_packed_sequence_indices", lambda _: None)
    get_model(str(tiny.make_model(tmp_path / "source", "granite")), None, str(tmp_path / "model"))
    adapter.init_base_weight(str(tmp_path / "model"), 2, 32, tiny.TARGETS, 0, None, str(tmp_path / "base"))
    _, tensors = adapter.read_adapter(tmp_path / "base")
    some = read_passages(made / "llama.parquet", {(0, 0), (1, 0), (2, 0)})
    trainings = trainer.Trainer(on_meta(tmp_path / "model"), tensors, 16.0, tiny.TRAINING, 2).train(some, 3)
    assert [training.error for training in trainings] == [None] * 3


@pytest.mark.parametrize("whose", [[0, 1, 2, 3], [0, 1, 1, 2]], ids=["alone", "mixed"])
@pytest.mark.parametrize("name", ["llama", "qwen"])
def test_generation_waits_for_its_tokens_alone(made, monkeypatch, name, whose):
    model = on_meta(made / name)
    monkeypatch.setattr(decoder, "load", lambda *_: model)
    monkeypatch.setitem(reading.AT_ONCE, "cuda", 20)  # several groups
    _, tensors = adapter.read_adapter(made / f"{name}-base")
    answerer = generate.Answerer(str(made / name), "float32", META, list(tensors))
    prompts = [[7] * length for length in (5, 9, 9, 17)]
    answerer.active.set([[], [Adapter(tensors, 2, 16.0)], [Adapter(tensors, 2, 16.0)] * 2, []])
    steps = list(answerer._steps(prompts, generate.Mixing(whose, META), 6))
    assert [(step.shape, step.device) for step in steps] == [((whose[-1] + 1,), META)] * 6
