"""The trainer: what it makes of a passage is the reference's, whatever is trained beside it."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

import reference
import tiny
from lorary.adapters import files as adapter
from lorary.adapters.lora import load_adapter
from lorary.adapters.outside import Outside
from lorary.adapters.task import merge_task_adapter
from lorary.base import decoder
from lorary.data import prompts, rows
from lorary.data.sequences import Example, Passage, read_passages
from lorary.train import teacher, trainer
from lorary.train.step import pad

CPU = torch.device("cpu")


def of(position, sequences):
    """A passage of these ids, which a test may change."""
    return Passage(position, [Example(np.array(ids, dtype=np.int32)) for ids in sequences])


def ids_of(passage):
    return [example.ids for example in passage.examples]


def passages(made, name="llama"):
    """Three passages with 5, 6 and 2 sequences of different lengths."""
    found = read_passages(made / f"{name}.parquet", {(0, 0), (1, 0), (2, 0)})
    return [of(passage.position, ids_of(passage)) for passage in found]


def train(directory, base, some, n=1, dtype=None, task=None, directions=None, **settings):
    """Position -> Training of each passage; n side by side, over a task adapter, outside of directions."""
    settings = {**tiny.TRAINING, **settings}
    model = decoder.load(directory, settings["precision"], CPU).to(dtype)
    if task is not None:
        merge_task_adapter(model, load_adapter(str(task)))
    config, tensors = adapter.read_adapter(base)
    tensors = {name: tensor.to(dtype or torch.float32) for name, tensor in tensors.items()}
    made = trainer.Trainer(model, tensors, config["lora_alpha"] / config["r"], settings, n, directions)
    return {training.passage.position: training for training in made.train(some, len(some))}


def save(training, folder):
    folder.mkdir()
    (folder / adapter.TENSORS).write_bytes(adapter.tensors_bytes(training.tensors))
    return folder


def flat(training):
    return torch.cat([training.tensors[name].flatten() for name in sorted(training.tensors)])


def updates(trainings, base):
    _, start = adapter.read_adapter(base)
    start = torch.cat([start[name].flatten() for name in sorted(start)])
    return {position: flat(training).double() - start for position, training in trainings.items()}


def assert_same(ours, theirs, base, distance=1e-3):
    a, b = updates(ours, base), updates(theirs, base)
    assert a.keys() == b.keys()
    for position in a:
        assert torch.nn.functional.cosine_similarity(a[position], b[position], dim=0) >= 0.9999
        assert (a[position] - b[position]).norm() <= distance * b[position].norm()


@pytest.mark.parametrize("name", ["llama", "qwen"])
@pytest.mark.parametrize("n", [1, 3])
@pytest.mark.parametrize(
    ("rank", "batch", "epochs"), [(2, 1, 1), (2, 2, 2), (1, 3, 1), (4, 8, 3)], ids=lambda value: str(value)
)
def test_the_adapters_are_those_of_the_reference(made, tmp_path, name, n, rank, batch, epochs):
    """The reference trains one after the other and pads everything to one length; neither changes a result."""
    base = tmp_path / "base"
    adapter.init_base_weight(str(made / name), rank, 16, tiny.TARGETS, 3, None, str(base))
    settings = {"per_device_train_batch_size": batch, "num_train_epochs": epochs}
    ours = train(made / name, base, passages(made, name), n, **settings)
    theirs = AutoModelForCausalLM.from_pretrained(made / name, dtype=torch.float32)
    for i, passage in enumerate(passages(made, name)):
        training = ours[passage.position]
        expected = reference.train(theirs, base, ids_of(passage), tmp_path / f"theirs{i}", 3e-3, epochs, batch, 400)
        assert training.losses == pytest.approx(expected, rel=1e-4)
        cosine, distance = reference.compare(save(training, tmp_path / f"ours{i}"), tmp_path / f"theirs{i}", base)
        assert cosine >= 0.9999
        assert distance <= 1e-3


def test_in_float64_gradients_and_updates_are_the_references(made):
    base, some = made / "llama-base", passages(made)
    one_step = [of(p.position, ids_of(p)[:1]) for p in some]  # B is zero: only its gradient is not
    two_steps = [of(p.position, ids_of(p)[:2]) for p in some]
    for work, steps in ((one_step, 1), (two_steps, 2), (some, None)):
        gradients = {}

        def keep(stack, places, learning_rate, gradients=gradients, update=trainer.Stack.update):
            for row, place in enumerate(places):
                gradients.setdefault(place, []).append(stack.tensors(stack.gradients()[row]))
            update(stack, places, learning_rate)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(trainer.Stack, "update", keep)
            ours = train(made / "llama", base, work, 3, torch.float64)
        by_position = {p.position: gradients[place] for p, place in zip(work, reversed(range(3)), strict=True)}
        for passage in work:
            expected = peft_in_float64(made / "llama", base, passage.examples)
            if steps:
                for mine, theirs in zip(by_position[passage.position], expected["gradients"], strict=True):
                    for key, gradient in theirs.items():
                        assert (mine[key] - gradient).abs().max() <= 1e-9 * max(1.0, gradient.abs().max()), key
            update = torch.cat([expected["update"][key].flatten() for key in sorted(expected["update"])])
            mine = updates({0: ours[passage.position]}, base)[0]
            assert (mine - update).norm() <= 1e-6 * update.norm()


def plain(logits, example):
    return torch.nn.functional.cross_entropy(
        logits, torch.tensor(example.ids, dtype=torch.long)[max(1, example.begin) :]
    )


def divergence(logits, example):
    """KL from the distribution of the likeliest tokens at temperature 2, token by token."""
    loss = 0
    for z, ids, logarithms in zip(logits, *example.likeliest, strict=True):
        p = torch.softmax(torch.tensor(logarithms, dtype=torch.float64) / 2, dim=0)
        q = torch.softmax(z / 2, dim=0)[ids.tolist()]
        loss = loss + 4 * (p * (p / q).log()).sum() / len(logits)
    return loss


OWN = {"distill_answers": "own", "own_tokens": 5, "max_length": 3000, "ends": []}  # as `teacher` has them written


@pytest.mark.parametrize(
    ("objective", "loss", "own"),
    [("answers", plain, {}), ("mixed", plain, {}), ("distill", divergence, {}), ("distill", divergence, OWN)],
    ids=["answers", "mixed", "distill", "distill, own answers"],
)
def test_in_float64_each_objective_beside_others_is_a_plain_loop(made, tmp_path, objective, loss, own):
    prompter = prompts.load_prompter(str(made / "llama"), tiny.PROMPTS)
    table = prompts.build(rows.load_all([made / "total.json"], -1, "aug"), prompter, 3000, objective)
    prompts.save(table, str(tmp_path / "prompts.parquet"))
    some = list(read_passages(str(tmp_path / "prompts.parquet"), {(0, 0), (1, 0), (2, 0)}))
    assert all(example.span for passage in some for example in passage.examples)
    base, settings = made / "llama-base", {"objective": objective, "num_train_epochs": 2}
    if objective == "distill":
        settings |= {"distill_top_k": 5, "distill_temperature": 2.0, **own}
        bare, of = decoder.load(made / "llama", "float32", CPU), {**tiny.TRAINING, **settings}
        some = [teacher.Teacher(bare, "weights", of, str(tmp_path / "store")).teach(passage) for passage in some]
    ours = train(made / "llama", base, some, 3, torch.float64, **settings)
    for passage in some:
        expected = peft_in_float64(made / "llama", base, passage.examples * 2, loss)
        update = torch.cat([expected["update"][key].flatten() for key in sorted(expected["update"])])
        mine = updates({0: ours[passage.position]}, base)[0]
        assert (mine - update).norm() <= 1e-6 * update.norm()
        assert ours[passage.position].losses == pytest.approx(expected["losses"], rel=1e-9)


def test_over_a_task_adapter_it_is_training_on_the_merged_weights(made, tmp_path):
    """Which PEFT merges, for its own training in float64."""
    from peft import PeftModel

    task, some = tmp_path / "task", passages(made)
    adapter.init_base_weight(str(made / "llama"), 3, 9, ["q_proj", "down_proj"], 5, None, str(task))
    tensors = {name: tensor + 0.1 for name, tensor in load_file(task / adapter.TENSORS).items()}
    save_file(tensors, task / adapter.TENSORS)
    theirs = AutoModelForCausalLM.from_pretrained(made / "llama", dtype=torch.float64)
    theirs = PeftModel.from_pretrained(theirs, task, autocast_adapter_dtype=False).double().merge_and_unload()
    theirs.save_pretrained(tmp_path / "merged")
    base = made / "llama-base"
    ours = train(made / "llama", base, some, 3, torch.float64, task)
    alone = train(made / "llama", base, some, 3, torch.float64)
    for passage in some:
        expected = peft_in_float64(tmp_path / "merged", base, passage.examples)
        update = torch.cat([expected["update"][key].flatten() for key in sorted(expected["update"])])
        mine, without = (updates({0: made[passage.position]}, base)[0] for made in (ours, alone))
        assert (mine - update).norm() <= 1e-6 * update.norm()
        assert (without - update).norm() > 0.1 * update.norm()
        assert ours[passage.position].losses == pytest.approx(expected["losses"], rel=1e-9)


@pytest.mark.parametrize("n", [1, 3])
def test_outside_of_directions_it_is_training_that_is_projected_after_each_step(made, n):
    base, some = made / "llama-base", passages(made)
    names = [name for name in adapter.read_adapter(base)[1] if "lora_A" in name]
    rng = np.random.default_rng(0)
    shapes = {name: tensor.shape for name, tensor in adapter.read_adapter(base)[1].items()}
    spared = {name: np.linalg.qr(rng.normal(size=(shapes[name][1], 5)))[0].astype(np.float32) for name in names[:-1]}
    ours = train(made / "llama", base, some, n, torch.float64, directions=spared)
    for passage in some:
        tensors = ours[passage.position].tensors
        assert all((tensors[name].float().numpy() @ each).__abs__().max() < 1e-6 for name, each in spared.items())
        assert tensors[names[-1]].norm() > 0
        expected = peft_in_float64(made / "llama", base, passage.examples, directions=spared)
        update = torch.cat([expected["update"][key].flatten() for key in sorted(expected["update"])])
        mine = updates({0: ours[passage.position]}, base)[0]
        assert (mine - update).norm() <= 1e-6 * update.norm()
        assert ours[passage.position].losses == pytest.approx(expected["losses"], rel=1e-9)


def test_a_step_that_finds_no_memory_for_projecting_has_changed_nothing(made, monkeypatch):
    """And is taken again: no adapter gets it twice."""
    some, base = passages(made), made / "llama-base"
    names = [name for name in adapter.read_adapter(base)[1] if "lora_A" in name]
    spared = {
        name: np.eye(adapter.read_adapter(base)[1][name].shape[1], dtype=np.float32)[:, :4].copy() for name in names
    }
    expected = train(made / "llama", base, some, 2, directions=spared)
    room, calls = Outside.room, []

    def short(self, n):
        calls.append(n)
        if len(calls) == 3:  # the first is of the start
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return room(self, n)

    monkeypatch.setattr(Outside, "room", short)
    found = train(made / "llama", base, some, 2, directions=spared)
    for position, training in expected.items():
        assert found[position].losses == pytest.approx(training.losses, rel=1e-4)
    assert_same(found, expected, base)


def peft_in_float64(directory, base, examples, loss_of=plain, directions=None):
    """Losses and gradients of each step, and the update, of PEFT around transformers' own model with torch's AdamW. The
    A of these names are made orthogonal to these directions, before all steps and after each."""
    from peft import PeftModel
    from transformers.models.llama.modeling_llama import LlamaRMSNorm

    class Norm(LlamaRMSNorm):  # transformers' own goes through float32
        def forward(self, x):
            return torch.nn.functional.rms_norm(x, x.shape[-1:], self.weight, self.variance_epsilon)

    model = AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float64)
    for module in model.modules():
        if isinstance(module, LlamaRMSNorm):
            module.__class__ = Norm
    model = PeftModel.from_pretrained(model, base, is_trainable=True, autocast_adapter_dtype=False)
    named = {key.replace(".default", ""): p for key, p in model.named_parameters() if "lora_" in key}
    for parameter in named.values():
        parameter.data = parameter.data.double()
    start = {key: parameter.detach().clone() for key, parameter in named.items()}
    optimizer = torch.optim.AdamW(named.values(), lr=tiny.TRAINING["learning_rate"])

    @torch.no_grad()
    def project():
        for key, each in (directions or {}).items():
            U = torch.tensor(each, dtype=torch.float64)
            named[key] -= named[key] @ U @ U.T

    project()
    gradients, losses = [], []
    for example in examples:
        ids = torch.tensor(example.ids, dtype=torch.long)[None]
        optimizer.zero_grad()
        begin = max(1, example.begin)
        logits = model(input_ids=ids).logits[0, begin - 1 : -1]
        loss = loss_of(logits, example)
        loss.backward()
        losses.append(loss.item())
        gradients.append({key: parameter.grad.clone() for key, parameter in named.items()})
        optimizer.step()
        project()
    return {
        "losses": losses,
        "gradients": gradients,
        "update": {key: (p - start[key]).detach() for key, p in named.items()},
    }


@pytest.mark.parametrize("n", [2, 4])
def test_a_place_that_is_free_goes_to_the_next_passage(made, n):
    """Ragged: 13 passages of 1 to 6 sequences, two epochs, with a last batch that is smaller."""
    some = [
        of((i, 0), [np.roll(ids, i) for ids in ids_of(passage)[: 1 + i % 6]])
        for i, passage in enumerate((passages(made) * 5)[:13])
    ]
    settings = {"per_device_train_batch_size": 2, "num_train_epochs": 2}
    alone = train(made / "llama", made / "llama-base", some, 1, **settings)
    beside = train(made / "llama", made / "llama-base", some, n, **settings)
    for position, training in beside.items():
        assert len(training.losses) == 2 * -(-len(training.passage.examples) // 2)
        assert training.losses == pytest.approx(alone[position].losses, rel=1e-4)
        assert training.adapters_per_step == n
    assert_same(beside, alone, made / "llama-base")


@pytest.mark.parametrize(
    ("kind", "settings", "targets"),
    [
        ("granite", {"logits_scaling": 3.0}, ["q_proj", "v_proj", "o_proj", "down_proj"]),
        ("llama", {"attention_bias": True, "mlp_bias": True}, ["q_proj", "v_proj", "o_proj", "down_proj"]),
        ("llama", {"tie_word_embeddings": False}, ["up_proj", "lm_head"]),
    ],
)
def test_other_models_and_other_target_modules(made, tmp_path, kind, settings, targets):
    """A model that goes through transformers, and one with biases; LoRA on attention's layers, and on the head."""
    directory, base = tmp_path / kind, tmp_path / "base"
    tiny.make_model(tmp_path / "source", kind, **settings)
    from lorary.base import fetch as model

    model.get_model(str(tmp_path / "source"), None, str(directory))
    adapter.init_base_weight(str(directory), 2, 16, targets, 3, None, str(base))
    ours = train(directory, base, passages(made), 3)
    theirs = AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32)
    for i, passage in enumerate(passages(made)):
        reference.train(theirs, base, ids_of(passage), tmp_path / f"theirs{i}", 3e-3, 1, 1, None)
        folder = save(ours[passage.position], tmp_path / f"ours{i}")
        cosine, distance = reference.compare(folder, tmp_path / f"theirs{i}", base)
        assert cosine >= 0.9999
        assert distance <= 1e-3


def test_the_base_model_does_not_change(made):
    model = decoder.load(made / "llama", "float32", CPU)
    ids = torch.arange(30)[None]
    before = decoder.logits(model, ids)
    _config, tensors = adapter.read_adapter(made / "llama-base")
    made_ = trainer.Trainer(model, tensors, 16.0, tiny.TRAINING, 2)
    list(made_.train(passages(made), 3))
    made_.stack.make(1)
    made_.stack.begin(0)  # the base weight, whose B is zero
    made_.stack.gather([0])
    assert torch.equal(decoder.logits(model, ids), before)


def test_a_passage_does_not_depend_on_those_before_it(made):
    first, second, _ = passages(made)
    again = Passage((9, 9), first.examples)
    results = train(made / "llama", made / "llama-base", [first, second, again])
    assert torch.equal(flat(results[first.position]), flat(results[9, 9]))
    assert not torch.equal(flat(results[first.position]), flat(results[second.position]))


@pytest.mark.parametrize("n", [1, 3])
def test_a_loss_that_is_not_finite_spoils_only_its_own_passage(made, tmp_path, n):
    """The embedding of one token is not a number."""
    from safetensors.torch import load_file, save_file

    for source in (made / "llama").iterdir():
        (tmp_path / source.name).write_bytes(source.read_bytes())
    tensors = load_file(tmp_path / "model.safetensors")
    tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"].clone()
    tensors["model.embed_tokens.weight"][7] = float("nan")
    save_file(tensors, tmp_path / "model.safetensors", metadata={"format": "pt"})
    config = (
        (tmp_path / "config.json").read_text().replace('"tie_word_embeddings": true', '"tie_word_embeddings": false')
    )
    (tmp_path / "config.json").write_text(config)
    some = passages(made)
    assert not any((ids == 7).any() for passage in some for ids in ids_of(passage))
    good = train(tmp_path, made / "llama-base", some, n)
    some[1].examples[3].ids[4] = 7
    mixed = train(tmp_path, made / "llama-base", some, n)
    assert mixed[1, 0].error == "the loss of step 4 is nan; a smaller learning_rate may help"
    assert mixed[1, 0].tensors is None
    del good[1, 0], mixed[1, 0]
    assert not any(training.error for training in mixed.values())
    assert_same(mixed, good, made / "llama-base", distance=1e-5)


def test_a_sequence_without_a_token_to_predict_has_no_loss(made):
    training = train(made / "llama", made / "llama-base", [of((0, 0), [[7]])])[0, 0]
    assert training.error == "the loss of step 1 is nan; a smaller learning_rate may help"


def limit_memory(monkeypatch, tokens):
    """Steps of more tokens than this do not fit."""
    hidden = decoder.Decoder.hidden

    def limited(self, ids):
        if ids.numel() > tokens:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return hidden(self, ids)

    monkeypatch.setattr(decoder.Decoder, "hidden", limited)


def test_a_step_that_does_not_fit_is_halved_and_nothing_is_lost(made, monkeypatch, caplog):
    some = [Passage((i, 0), passage.examples) for i, passage in enumerate(passages(made) * 4)]
    alone = train(made / "llama", made / "llama-base", some, 1)
    longest = max(len(ids) for passage in some for ids in ids_of(passage))
    limit_memory(monkeypatch, 2 * longest)
    beside = train(made / "llama", made / "llama-base", some, 8)
    assert not any(training.error for training in beside.values())
    assert_same(beside, alone, made / "llama-base")
    assert min(training.adapters_per_step for training in beside.values()) < 8
    assert "does not fit into memory: going on with" in caplog.text


def test_a_sequence_that_fits_no_memory_fails_its_passage_alone(made, monkeypatch):
    some = passages(made)
    some[1].examples[2] = Example(np.tile(some[1].examples[2].ids, 9))
    longest = len(some[1].examples[2])
    limit_memory(monkeypatch, longest - 1)
    results = train(made / "llama", made / "llama-base", some, 2)
    assert results[1, 0].error == f"1 x {longest} tokens do not fit into memory; a lower max_length would help"
    assert results[0, 0].error is results[2, 0].error is None


@pytest.fixture
def fussy_model(monkeypatch):
    """A model that fails of the token 499."""
    hidden = decoder.Decoder.hidden

    def fussy(self, ids):
        if (ids == 499).any():
            raise RuntimeError("I do not like 499")
        return hidden(self, ids)

    monkeypatch.setattr(decoder.Decoder, "hidden", fussy)


@pytest.mark.usefixtures("fussy_model")
def test_whatever_goes_wrong_with_a_step_fails_one_passage(made):
    some = passages(made)
    some[2].examples[1].ids[0] = 499
    results = train(made / "llama", made / "llama-base", some, 3)
    assert {position: training.error for position, training in results.items()} == {
        (0, 0): None,
        (1, 0): None,
        (2, 0): "I do not like 499",
    }
    assert results[0, 0].adapters_per_step == 3


@pytest.mark.parametrize(
    "error",
    [torch.AcceleratorError("CUDA error: unspecified launch failure"), TypeError("a bug"), NotImplementedError()],
)
def test_what_is_no_passages_fault_is_not_called_so(made, monkeypatch, error):
    """Every passage would fail of it, one after the other."""

    def fails(self, ids):
        raise error

    monkeypatch.setattr(decoder.Decoder, "hidden", fails)
    for n in (1, "auto"):
        with pytest.raises(type(error)):
            train(made / "llama", made / "llama-base", passages(made), n, precision="bfloat16")


@pytest.mark.usefixtures("fussy_model")
def test_a_passage_that_fails_a_trial_fails_alone(made):
    some = passages(made)
    for example in some[0].examples:
        example.ids[0] = 499
    results = train(made / "llama", made / "llama-base", some, "auto", precision="bfloat16")
    assert [results[i, 0].error for i in range(3)] == ["I do not like 499", None, None]


def test_bfloat16_trains_a_float32_adapter_near_that_of_float32(made):
    base, some = made / "llama-base", passages(made)
    exact, rough = train(made / "llama", base, some, 3), train(made / "llama", base, some, 3, precision="bfloat16")
    assert all(tensor.dtype == torch.float32 for tensor in rough[0, 0].tensors.values())
    for position, update in updates(exact, base).items():
        cosine = torch.nn.functional.cosine_similarity(update, updates(rough, base)[position], dim=0)
        assert 0.9 < cosine < 0.999999


def test_tf32_is_used_only_where_it_is_asked_for(made):
    exact = train(made / "llama", made / "llama-base", passages(made))
    assert not torch.backends.cuda.matmul.allow_tf32
    rough = train(made / "llama", made / "llama-base", passages(made), precision="tf32")
    assert torch.backends.cuda.matmul.allow_tf32
    assert all(torch.equal(flat(rough[p]), flat(exact[p])) for p in exact)  # a processor has none
    train(made / "llama", made / "llama-base", passages(made))
    assert not torch.backends.cuda.matmul.allow_tf32


def test_auto_is_one_on_a_processor_in_float32_and_measured_otherwise(made, monkeypatch):
    monkeypatch.setattr(trainer.Trainer, "trial", lambda self, passage, n: (1.0, n))  # launch-bound
    for precision, expected in (("float32", 1), ("bfloat16", 2)):
        results = train(made / "llama", made / "llama-base", passages(made), "auto", precision=precision)
        assert {training.adapters_per_step for training in results.values()} == {expected}  # of three passages


def test_a_trial_takes_time_and_changes_no_result(made):
    _config, tensors = adapter.read_adapter(made / "llama-base")
    made_ = trainer.Trainer(decoder.load(made / "llama", "float32", CPU), tensors, 16.0, tiny.TRAINING, 2)
    some = passages(made)
    seconds, size = made_.trial(some[0], 4)
    assert seconds > 0
    assert size > 0
    after = {training.passage.position: training for training in made_.train(some, 3)}
    expected = train(made / "llama", made / "llama-base", some, 2)
    assert all(torch.equal(flat(after[position]), flat(expected[position])) for position in expected)


@pytest.fixture
def cuda(monkeypatch):
    """Two GPUs of which 0 is the current one. What is copied from them arrives when a test says so."""
    queues, arrived = {0: [], 1: []}, {0: 0, 1: 0}

    class OnGpu(torch.Tensor):
        device = property(lambda self: torch.device("cuda", 1))

    class Pinned(torch.Tensor):
        def copy_(self, source, non_blocking):
            plain = source.detach().as_subclass(torch.Tensor)
            queues[source.device.index].append(lambda: torch.Tensor.copy_(self, plain))

    class Event:
        def record(self, stream=0):
            self.stream, self.place = stream, len(queues[stream])

        def query(self):
            return arrived[self.stream] >= self.place

        def synchronize(self):
            arrive(self.stream)

    def arrive(stream):
        for copy in queues[stream][arrived[stream] :]:
            copy()
        arrived[stream] = len(queues[stream])

    def zeros(shape, dtype, pin_memory):
        return torch.zeros(shape, dtype=dtype).as_subclass(Pinned)

    monkeypatch.setattr(torch, "empty", zeros)
    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: device.index)
    return SimpleNamespace(arrive=arrive, put=lambda tensor: tensor.as_subclass(OnGpu))


def test_an_adapter_is_ready_when_its_own_gpu_has_copied_it(cuda):
    fetched = trainer.Fetched(cuda.put(torch.ones(3)), [cuda.put(torch.tensor(2.0))])
    cuda.arrive(0)
    assert not fetched.ready()
    cuda.arrive(1)
    assert fetched.ready()
    flat, losses = fetched.get()
    assert (flat.tolist(), losses) == ([1.0] * 3, [2.0])
    waited_for = trainer.Fetched(cuda.put(torch.ones(3)), [])
    assert waited_for.get()[0].tolist() == [1.0] * 3


def test_padding_is_to_the_longest_of_the_step_and_is_predicted_nowhere():
    ids, token, targets, owner, counts, *_ = pad([[Example(np.array(ids))] for ids in ([5, 6, 7], [8], [9, 4])])
    assert ids.tolist() == [[5, 6, 7], [8, 0, 0], [9, 4, 0]]
    assert token.tolist() == [0, 1, 6]
    assert targets.tolist() == [6, 7, 4]
    assert owner.tolist() == [0, 0, 2]
    assert counts.tolist() == [2, 0, 1]


def test_of_an_example_with_a_span_only_that_is_predicted():
    ids, token, targets, owner, counts, *_ = pad(
        [[Example(np.array([5, 6, 7, 8]), 2)], [Example(np.array([9, 4, 3]), 0, 2)], [Example(np.array([1, 2]), 1)]]
    )
    assert [ids.flatten()[i + 1].item() for i in token] == targets.tolist() == [7, 8, 4, 2]
    assert owner.tolist() == [0, 0, 1, 2]
    assert counts.tolist() == [2, 1, 1]
