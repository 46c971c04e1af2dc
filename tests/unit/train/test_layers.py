"""A layer trains on its own gradient of each step, or stays as it was, as with PEFT; what can be neither is refused."""

import types

import numpy as np
import pytest
import torch
from torch.utils.checkpoint import checkpoint
from transformers import AutoModelForCausalLM

import reference
import tiny
from lorary.adapters import files as adapter
from lorary.adapters.lora import Active, Adapter
from lorary.base import decoder
from lorary.core.errors import LoraryError
from lorary.data.sequences import read_passages
from lorary.train import trainer

CPU = torch.device("cpu")


@pytest.fixture
def some(made):
    return list(read_passages(made / "llama.parquet", {(0, 0), (1, 0), (2, 0)}))


@pytest.fixture(scope="module")
def granite(tmp_path_factory):
    """A model that transformers computes, and its base weight."""
    folder = tiny.make_model(tmp_path_factory.mktemp("granite") / "model", "granite")
    from lorary.base.fetch import get_model

    get_model(str(folder), None, str(folder.parent / "granite"))
    adapter.init_base_weight(str(folder.parent / "granite"), 2, 32, tiny.TARGETS, 0, None, str(folder.parent / "base"))
    return folder.parent


def train(model, base, some, n=1, without=()):
    """The adapters of these passages, n side by side; `without` the tensors of a base weight that have this in their
    name."""
    _, tensors = adapter.read_adapter(base)
    tensors = {name: tensor for name, tensor in tensors.items() if not any(part in name for part in without)}
    made = trainer.Trainer(model, tensors, 16.0, tiny.TRAINING, n)
    trainings = {training.passage.position: training for training in made.train(some, len(some))}
    assert not any(training.error for training in trainings.values())
    return {position: training.tensors for position, training in trainings.items()}


def assert_as_peft(trained, theirs, base, some, folder):
    """`theirs` is the model of transformers."""
    for i, passage in enumerate(some):
        ids = [example.ids for example in passage.examples]
        reference.train(theirs, base, ids, folder / f"theirs{i}", tiny.TRAINING["learning_rate"], 1, 1, None)
        (folder / f"ours{i}").mkdir()
        content = adapter.tensors_bytes(trained[passage.position])
        (folder / f"ours{i}" / adapter.TENSORS).write_bytes(content)
        cosine, distance = reference.compare(folder / f"ours{i}", folder / f"theirs{i}", base)
        assert cosine >= 0.9999
        assert distance <= 1e-3


def skip(model, when=lambda x: True, without_gradient=False):
    """The last layer of a model is left out, or computed without a gradient."""
    layer = model.model.layers[1]
    plain = layer.forward

    def forward(x, *arguments, **settings):
        if not when(x):
            return plain(x, *arguments, **settings)
        if not without_gradient:
            return x
        with torch.no_grad():
            y = plain(x, *arguments, **settings) - x
        return x + y

    layer.forward = forward
    return model


@pytest.mark.parametrize("without_gradient", [False, True])
@pytest.mark.parametrize("n", [1, 3])
def test_a_layer_without_a_gradient_stays_as_in_the_base_weight(
    made, some, tmp_path, caplog, monkeypatch, n, without_gradient
):
    """As with PEFT, whose optimizer leaves it out; and whatever lay in memory before."""
    plain, base = torch.empty, made / "llama-base"

    def garbage(*shape, **settings):
        empty = plain(*shape, **settings)
        return empty.fill_(7) if empty.is_floating_point() else empty

    monkeypatch.setattr(torch, "empty", garbage)
    model = skip(decoder.load(made / "llama", "float32", CPU), without_gradient=without_gradient)
    trained = train(model, base, some, n)
    monkeypatch.undo()
    _, start = adapter.read_adapter(base)
    for tensors in trained.values():
        still = {name for name, tensor in tensors.items() if torch.equal(tensor, start[name])}
        assert still == {name for name in start if ".layers.1." in name}
    theirs = skip(AutoModelForCausalLM.from_pretrained(made / "llama"), without_gradient=without_gradient)
    assert_as_peft(trained, theirs, base, some, tmp_path)
    told = [record.message for record in caplog.records if "base weight" in record.message]
    assert len(told) == 1
    assert told[0].startswith(
        "3 of 6 layers get no gradient from text, and stay as in the base weight: model.layers.1."
    )


def test_a_layer_that_is_computed_again_for_its_gradient_trains_on_it(made, some):
    model = decoder.load(made / "llama", "float32", CPU)
    expected = train(model, made / "llama-base", some, 3)
    model = decoder.load(made / "llama", "float32", CPU)
    for layer in model.model.layers:
        layer.forward = lambda *arguments, plain=layer.forward: checkpoint(plain, *arguments, use_reentrant=False)
    again = train(model, made / "llama-base", some, 3)
    for position, tensors in expected.items():
        assert all(torch.equal(tensor, again[position][name]) for name, tensor in tensors.items())


def looped(model):
    model.model.layers = torch.nn.ModuleList([model.model.layers[0], model.model.layers[0]])
    return model


def test_a_layer_that_runs_twice_is_refused(made, some):
    model = looped(decoder.load(made / "llama", "float32", CPU))
    words = r"^model\.layers\.0\.mlp\.\w+: this layer runs 2 times in a step.* lora_target_modules"
    with pytest.raises(LoraryError, match=words):
        train(model, made / "llama-base", some, without=[".layers.1."])


def test_a_layer_that_runs_in_some_steps_only_is_refused(made, some):
    lengths = {len(example) for passage in some for example in passage.examples}
    model = decoder.load(made / "llama", "float32", CPU)
    skip(model, when=lambda x: x.shape[1] == max(lengths))
    words = r"^model\.layers\.1\.mlp\.down_proj and 2 more: these layers run in some steps only.* lora_target_modules"
    with pytest.raises(LoraryError, match=words):
        train(model, made / "llama-base", some)


def test_layers_of_which_none_has_a_part_are_refused(made, some):
    with pytest.raises(LoraryError, match=r"^None of the layers .* lora_target_modules"):
        train(skip(decoder.load(made / "llama", "float32", CPU)), made / "llama-base", some, without=[".layers.0."])


def part_of_the_tokens(model):
    """As experts: a layer gets tokens of all sequences in a row, but not all."""
    mlp = model.model.layers[1].mlp

    def forward(self, x):
        y = torch.zeros_like(x).flatten(0, 1)
        chosen = torch.arange(0, len(y), 3)
        y[chosen] = type(mlp).forward(self, x.flatten(0, 1)[chosen])
        return y.view(x.shape)

    mlp.forward = types.MethodType(forward, mlp)
    return model


def test_a_layer_of_part_of_the_tokens_trains_one_passage_at_a_time(granite, some, tmp_path):
    trained = train(part_of_the_tokens(decoder.load(granite / "granite", "float32", CPU)), granite / "base", some, 1)
    theirs = part_of_the_tokens(AutoModelForCausalLM.from_pretrained(granite / "granite"))
    assert_as_peft(trained, theirs, granite / "base", some, tmp_path)


def test_beside_others_it_is_refused(granite, some):
    """Whose tokens they are cannot be told from where they lie."""
    model = part_of_the_tokens(decoder.load(granite / "granite", "float32", CPU))
    words = r"^model\.layers\.1\.mlp\.\w+: this layer gets .* whose they are.* adapters_per_step: 1"
    with pytest.raises(LoraryError, match=words):
        train(model, granite / "base", some, 3)


def test_auto_does_not_put_it_beside_others(granite, some):
    model = part_of_the_tokens(decoder.load(granite / "granite", "float32", CPU))
    _, tensors = adapter.read_adapter(granite / "base")
    made = trainer.Trainer(model, tensors, 16.0, tiny.TRAINING, "auto")
    assert made.trial(some[0], 1)
    assert made.trial(some[0], 2) is None


def test_answers_with_several_adapters_are_refused_so_too(granite):
    model = part_of_the_tokens(decoder.load(granite / "granite", "float32", CPU))
    _, tensors = adapter.read_adapter(granite / "base")
    active = Active(model, tensors)
    active.set([[Adapter(tensors, 2, 16.0)]] * 2)
    with pytest.raises(LoraryError, match="whose they are"):
        decoder.logits(model, torch.ones(2, 9, dtype=torch.long))
    active.select(slice(1))
    assert decoder.logits(model, torch.ones(1, 9, dtype=torch.long)).shape == (1, 9, 512)


def test_layers_that_take_all_tokens_in_a_row_may_be_beside_others(granite, some):
    """As the feed-forward layers of some models, which know no sequences."""
    expected = train(decoder.load(granite / "granite", "float32", CPU), granite / "base", some, 3)
    model = decoder.load(granite / "granite", "float32", CPU)
    for layer in model.model.layers:
        layer.mlp.forward = lambda x, plain=layer.mlp.forward: plain(x.flatten(0, 1)).view(x.shape)
    flat = train(model, granite / "base", some, 3)
    for position, tensors in expected.items():
        for name, tensor in tensors.items():
            np.testing.assert_allclose(flat[position][name], tensor, rtol=1e-4, atol=1e-6)
