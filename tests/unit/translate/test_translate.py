"""A translator: its states, its formulas, its gradient, that its training goes on where it was, and what it makes."""

import contextlib
import json
import shutil
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from peft import PeftModel
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

import tiny
from lorary.adapters import files
from lorary.adapters.rows import Rows, twice
from lorary.base import decoder
from lorary.base.states import layers, states, words
from lorary.core.errors import LoraryError
from lorary.core.store import CONFIG, TENSORS
from lorary.data import rows as dataset
from lorary.data.markup import Markup
from lorary.data.prompts import load_tokenizer
from lorary.data.sequences import Example, read_passages
from lorary.train import encode
from lorary.train.kept import Kept as Spared
from lorary.train.kept import write_kept
from lorary.translate import learn
from lorary.translate.adapters import translate_adapters
from lorary.translate.embed import _ids, _tokens, embed, embedded
from lorary.translate.kept import Kept
from lorary.translate.learner import Learner
from lorary.translate.memory import Memory, to_rank
from lorary.translate.networks import Translator, make, stacked
from lorary.translate.pairs import read_pairs, shuffled

CPU = torch.device("cpu")
STATES = {"reference": "last", "memory": "tokens"}
KINDS = list(STATES)
# Large steps, so that a few tell something.
PARAMS = {"hidden": 16, "learning_rate": 1e-2, "batch": 2, "epochs": 2, "pairs": -1, "control": None, "seed": 7}


@pytest.fixture(scope="session")
def ground(once, made):
    """Of the three passages of `made` with the tiny Llama: table, states of both kinds, and trained adapters."""

    def make_ground(root):
        rows = dataset.load_all([made / "total.json"], -1, "aug")
        dataset.save(rows, str(root / "table.parquet"))
        for kind in STATES.values():
            embed(
                str(root / f"{kind}.safetensors"), str(root / "table.parquet"), [0, 3], str(made / "llama"), kind,
                tiny.TARGETS, "float32", 3000, 1,
            )  # fmt: skip
        (root / "out").mkdir()
        encode.train_adapters(
            outputs=[str(root / f"out/data_{did}/passage_0") for did in range(3)],
            record=str(root / "out/record.tsv"),
            outcome=str(root / "outcome.json"),
            model=str(made / "llama"),
            base_weight=str(made / "llama-base"),
            prompts=str(made / "llama.parquet"),
            settings=tiny.TRAINING,
            adapters_per_step=1,
            store=str(root / "store"),
            threads=1,
        )

    return once("ground", make_ground)[0]


def of_kind(kind, **params):
    return {**PARAMS, "kind": kind, "settings": tiny.TRAINING, **params}


def pairs_of(made, ground, kind):
    records = [str(ground / "out/record.tsv")] if kind == "reference" else []
    where = {"embeddings": str(ground / f"{STATES[kind]}.safetensors"), "prompts": str(made / "llama.parquet")}
    return [{**where, "records": records}]


def train(made, ground, folder, kind, **params):
    """Returns the outputs."""
    folder.mkdir(exist_ok=True)
    outputs = {"translator": folder / "t.safetensors", "about": folder / "about.json", "losses": folder / "losses.tsv"}
    if kind == "memory":
        outputs |= {"shared_config": folder / "shared" / CONFIG, "shared_tensors": folder / "shared" / TENSORS}
    learn.train_translator(
        {name: str(path) for name, path in outputs.items()},
        str(made / "llama"),
        str(made / "llama-base"),
        pairs_of(made, ground, kind),
        of_kind(kind, **params),
        str(folder / "store"),
        1,
    )
    return outputs


@pytest.mark.parametrize("name", ["llama", "qwen"])
def test_states_are_those_of_transformers(made, name):
    ours = decoder.load(str(made / name), "float32", CPU)
    theirs = AutoModelForCausalLM.from_pretrained(made / name)
    ids = torch.tensor([[5, 9, 200, 31], [7, 7, 3, 1]])
    expected = theirs(ids, output_hidden_states=True).hidden_states
    assert layers(ours) == layers(theirs) == 2
    for model in (ours, theirs):
        found = states(model, ids, [1, 0, 2])
        for place, depth in enumerate([1, 0, 2]):
            torch.testing.assert_close(found[:, :, place], expected[depth], rtol=1e-4, atol=1e-5)


def test_passages_are_read_alone_and_each_to_its_own_length(made, ground):
    """Whatever is beside them."""
    tokenizer = load_tokenizer(str(made / "llama"))
    rows = dataset.read(str(ground / "table.parquet"), 0, None)
    model = decoder.load(str(made / "llama"), "float32", CPU)
    last, tokens = (list(embedded(str(ground / f"{kind}.safetensors"))) for kind in ("last", "tokens"))
    assert [each.position for each in tokens] == [each.position for each in last] == [(0, 0), (1, 0), (2, 0)]
    theirs, noted = AutoModelForCausalLM.from_pretrained(made / "llama"), {}
    layer = theirs.model.layers[1].mlp.down_proj
    layer.register_forward_hook(lambda module, arguments, output: noted.update(read=arguments[0][0], wrote=output[0]))
    for row, one, each in zip(rows, last, tokens, strict=True):
        ids = torch.tensor([tokenizer(row["passage"])["input_ids"]])
        expected = states(model, ids, [0, 1, 2])[0].numpy()
        np.testing.assert_allclose(one.read()["states"][:, 0], expected[-1:, 2], rtol=1e-3, atol=1e-5)
        normal = expected / np.sqrt((expected**2).mean(-1, keepdims=True) + 1e-6)
        with torch.no_grad():
            theirs(ids)
        found = each.read()
        assert found["states"].shape == (ids.shape[1], 3, 32)
        assert len(found) == 2 + 2 * 6
        name = "model.layers.1.mlp.down_proj"
        compared = {"states": normal, "words": words(model, ids)[0], f"reads.{name}": noted["read"]}
        compared[f"writes.{name}"] = noted["wrote"].norm(dim=-1)
        for what, value in compared.items():
            np.testing.assert_allclose(found[what].astype(np.float32), value, rtol=2e-3, atol=2e-3)


def test_a_word_is_what_has_the_head_say_it(made):
    """Of all directions of length 1 the one that raises its logit most over the mean of all."""
    model = decoder.load(str(made / "llama"), "float32", CPU)
    found = words(model, torch.tensor([[5, 77]]))[0]
    torch.testing.assert_close(found.norm(dim=-1), torch.ones(2))
    head = model.lm_head.weight * model.model.norm.weight
    other = torch.nn.functional.normalize(found + 0.1 * torch.randn(2, 32), dim=-1)
    gains, less = (x @ head.T - (x @ head.T).mean(-1, keepdim=True) for x in (found, other))
    assert all(gains[row, token] > less[row, token] for row, token in enumerate([5, 77]))


def test_a_passage_that_is_too_long_is_cut(made, ground, tmp_path):
    arguments = [str(ground / "table.parquet"), [1, 3], str(made / "llama"), "tokens", tiny.TARGETS, "float32", 2, 1]
    embed(str(tmp_path / "two.safetensors"), *arguments)
    found = [(each.position, len(each.read()["states"])) for each in embedded(str(tmp_path / "two.safetensors"))]
    assert found == [((1, 0), 2), ((2, 0), 2)]


@pytest.mark.parametrize("split", [False, True])
def test_chat_markup_in_a_passage_is_plain_text_where_it_is_so_in_prompts(made, tmp_path, split):
    text = "iron <|im_end|> amber"
    dataset.save([{**row, "passage": text} for row in dataset.load([made / "total.json"], 1, "aug")], tmp_path / "t")
    output, model = str(tmp_path / "states.safetensors"), str(made / "llama")
    embed(output, str(tmp_path / "t"), [0, 1], model, "last", [], "float32", 99, 1, split_special_tokens=split)
    (passage,) = embedded(output)
    tokenizer = load_tokenizer(model)
    markup = Markup(tokenizer)
    ids = markup.read(text, markup.mark(text))[0] if split else tokenizer(text)["input_ids"]
    assert (1 in ids) != split
    expected = states(decoder.load(model, "float32", CPU), torch.tensor([ids]), [2])[:, -1].numpy()
    np.testing.assert_allclose(passage.read()["states"], expected, rtol=1e-4, atol=1e-5)


def test_what_the_tokenizer_puts_around_a_text_stays_where_markup_is_split():
    def tokenizer(text, add_special_tokens=True, **_):
        ids = [300 + ord(letter) for letter in text]
        return {"input_ids": [7, *ids, 8] if add_special_tokens else ids, "offset_mapping": []}

    markup = SimpleNamespace(mark=str, read=lambda text, marked: ([5, 6], []))
    row = {"did": 0, "pid": 0, "passage": "abc"}
    assert _ids(row, tokenizer, markup) == [7, 5, 6, 8]
    assert _ids(row, tokenizer, None) == [7, 397, 398, 399, 8]
    with pytest.raises(LoraryError, match="data_0/passage_0: this tokenizer makes no token of its passage"):
        _ids(row, lambda text: {"input_ids": []}, None)


def test_a_layer_that_does_not_read_the_tokens_of_a_text_is_told(made):
    model = decoder.load(str(made / "llama"), "float32", CPU)
    model.tower = torch.nn.ModuleDict({"up_proj": torch.nn.Linear(3, 3)})
    with pytest.raises(LoraryError, match=r"tower.up_proj: this layer does not read the tokens of a text"):
        _tokens(model, ["up_proj"])(torch.tensor([[5, 6]]))


@pytest.mark.parametrize("rank", [3, 7, 9])
def test_a_sum_of_outer_products_is_brought_to_its_best_of_a_rank(rank):
    torch.manual_seed(0)
    keys, values = torch.randn(2, 7, 12).double(), torch.randn(2, 7, 5).double()
    keys[1, 4:] = 0  # where a passage has no token
    short = to_rank(keys, values, rank)
    assert [x.shape[1] for x in short] == [rank, rank]
    U, S, V = torch.linalg.svd(values.mT @ keys, full_matrices=False)
    best = U[..., :rank] * S[:, None, :rank] @ V[:, :rank]
    torch.testing.assert_close(short[1].mT @ short[0], best)


def test_a_memory_brings_the_next_word_forth_where_its_key_is_met(made, ground):
    """As it begins: what a layer reads at a token of the passage makes it write towards the token after it."""
    _, base = files.read_adapter(str(made / "llama-base"))
    base = {name: tensor.repeat(*((16, 1) if "lora_A" in name else (1, 16))) for name, tensor in base.items()}
    passages = [each.read() for each in embedded(str(ground / "tokens.safetensors"))]
    network, layer = Memory(base, 3, 32, 8, 2.0), "model.layers.1.mlp.down_proj"
    network.measure(passages)
    A, B = (f"{files.PREFIX}{layer}.lora_{side}.weight" for side in "AB")
    mean = getattr(network, f"mean_{network.targets.index(A)}")
    right = []
    for passage in passages:
        tensors = network.rows.tensors(network(stacked([passage]))[0])
        read, said = (torch.from_numpy(passage[key].astype(np.float32)) for key in (f"reads.{layer}", "words"))
        wrote = (read - mean) @ tensors[A].T @ tensors[B].T  # (T, C)
        right += (wrote[1:-1] @ said.T).argmax(-1) == torch.arange(2, len(said))
    assert np.mean(right) > 0.6


def test_the_reference_is_its_formula(made):
    """A = reshape(W2 relu(W1 [s; layer])), r x in; B likewise, out x r."""
    _, base = files.read_adapter(str(made / "llama-base"))
    layout = Rows.of(base)
    network = make("reference", base, [1, 32], 4, 16.0, 0)
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter)
    s = torch.randn(3, 1, 1, 32)
    flat = network({"states": s})
    assert sum(p.numel() for p in network.parameters()) == sum(4 * (33 + t.numel()) for t in base.values())
    for group, W1, W2 in zip(network.groups, network.W1, network.W2, strict=True):
        for place, w1, w2 in zip(group, W1, W2, strict=True):
            name = layout.names[place]
            layer = float(name.split("layers.")[1][0])
            for i in range(3):
                read = torch.cat((s[i, 0, 0], torch.tensor([layer])))
                expected = (w2 @ torch.relu(w1 @ read)).view(base[name].shape)
                torch.testing.assert_close(layout.tensors(flat[i])[name], expected, rtol=1e-4, atol=1e-4)


def what_is_spared(made, sequences=5, columns=3):
    """General questions of random ids, and directions of each layer."""
    draw = np.random.default_rng(0)
    names = [name for name in files.read_adapter(str(made / "llama-base"))[1] if "lora_A" in name]
    reads = {name: 64 if "down_proj" in name else 32 for name in names}
    directions = {name: np.linalg.qr(draw.normal(size=(reads[name], columns)))[0].astype(np.float32) for name in names}
    ids = [draw.integers(20, 200, size=6 + i).astype(np.int32) for i in range(sequences)]
    return Spared("key", [Example(each, 3) for each in ids], directions)


@pytest.mark.parametrize(("kind", "sequences"), [("reference", 0), ("memory", 0), ("memory", 3)])
def test_a_gradient_is_that_of_dense_updates(made, ground, kind, sequences):
    """In float64: the network's gradient through the stack against autograd through W + alpha / rank B A; also where
    adapters are to spare something."""
    config, base = files.read_adapter(str(made / "llama-base"))
    base, scale = {name: tensor.double() for name, tensor in base.items()}, config["lora_alpha"] / config["r"]
    model = decoder.load(str(made / "llama"), "float32", CPU).double()
    pairs = read_pairs(pairs_of(made, ground, kind), -1)
    spared = what_is_spared(made) if sequences else None
    params = of_kind(kind, settings={**tiny.TRAINING, **({"keep_sequences": sequences} if spared else {})})
    learner = Learner(model, base, scale, pairs, params, spared)
    torch.manual_seed(1)
    for parameter in learner.network.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    ours = learner._gradient(pairs)
    gradients = {name: parameter.grad.clone() for name, parameter in learner.network.named_parameters()}
    learner.network.zero_grad()

    plain = AutoModelForCausalLM.from_pretrained(made / "llama").double()
    weights = dict(plain.named_parameters())

    def logits(tensors, ids):
        changed = dict(weights)
        for name in tensors:
            if ".lora_A." in name:
                weight = f"{files.layer_of(name)}.weight"
                changed[weight] = weights[weight] + scale * tensors[name.replace("lora_A", "lora_B")] @ tensors[name]
        return torch.func.functional_call(plain, changed, (torch.tensor(ids.astype(np.int64))[None],)).logits[0]

    total = 0.0
    for pair in pairs:
        flat, shared = learner.network(stacked([pair.states.read()])), learner.network.shared()
        flat = flat if shared is None else learner.rows.joined(flat, shared)
        tensors = Rows.of(base if shared is None else twice(base)).tensors(flat[0])
        if kind == "memory":
            losses = [next_tokens(logits(tensors, example.ids), example.ids) for example in pair.examples]
            losses += [next_tokens(logits(tensors, e.ids), e.ids)[e.begin - 1 :] for e in learner._kept(pair)]
            assert len(losses) == len(pair.examples) + sequences // 2  # of two epochs
            loss = torch.cat(losses).mean()
        else:
            trained = {name: tensor.double() for name, tensor in files.read_adapter(pair.adapter)[1].items()}
            ids = pair.examples[0].ids
            said, wanted = logits(tensors, ids), logits(trained, ids)
            divergence = torch.nn.functional.kl_div(
                said[:-1].log_softmax(-1), wanted[:-1].float().softmax(-1).double(), reduction="batchmean"
            )
            distance = sum(torch.nn.functional.mse_loss(tensors[name], trained[name]) for name in tensors)
            loss = next_tokens(said, ids).mean() + 0.01 * divergence + 100 * distance
        total = total + loss / len(pairs)
    total.backward()
    assert ours["loss"] == pytest.approx(total.item(), rel=1e-5)
    for name, parameter in learner.network.named_parameters():
        if parameter.grad is None:
            continue
        assert (gradients[name] - parameter.grad).norm() <= 1e-5 * parameter.grad.norm() + 1e-9, name
    assert sum(gradient.norm() > 0 for gradient in gradients.values()) >= 4


def test_adapters_read_none_of_the_directions_that_they_are_to_spare(made, ground, tmp_path):
    spared = what_is_spared(made)
    write_kept(str(tmp_path / "kept"), spared)
    outputs = train(made, ground, tmp_path / "spares", "memory", kept=str(tmp_path / "kept"))
    assert json.loads(outputs["about"].read_text())["spared"] == [3] * len(spared.directions)
    translator = Translator.load(str(outputs["translator"]), files.read_adapter(str(made / "llama-base"))[1])
    passages = [each.read() for each in embedded(str(ground / "tokens.safetensors"))]
    for tensors in (translator.shared(), *(translator.of(stacked([passage])) for passage in passages)):
        for name, directions in spared.directions.items():
            assert tensors[name].any()
            assert (tensors[name] @ directions).norm() < 1e-5 * tensors[name].norm()


def test_in_all_epochs_a_passage_sees_so_many_general_questions(made, ground):
    pairs = read_pairs(pairs_of(made, ground, "memory"), -1)
    params = of_kind("memory", epochs=3, batch=2, settings={**tiny.TRAINING, "keep_sequences": 4})
    base = files.read_adapter(str(made / "llama-base"))[1]
    spared = what_is_spared(made, sequences=5)
    learner = Learner(decoder.load(str(made / "llama"), "float32", CPU), base, 16.0, pairs, params, spared)
    seen = []
    for done in range(learner.total):
        learner.done = done
        seen.append([len(example.ids) - 6 for example in learner._kept(pairs[0])])  # which it is
    assert list(map(len, seen)) == [1, 1, 1, 1, 2, 2]
    assert len({*seen[0], *seen[2], *seen[4]}) == 4
    learner.done = 0
    assert len({tuple(learner._kept(pair)[0].ids) for pair in pairs}) > 1


def test_where_passages_cannot_go_together_the_translators_own_key_is_named(made, ground):
    """As where tokens are routed to experts, by code of transformers."""
    config, base = files.read_adapter(str(made / "llama-base"))
    model = AutoModelForCausalLM.from_pretrained(made / "llama").requires_grad_(False)
    mlp = model.model.layers[1].mlp
    mlp.forward = lambda x, plain=mlp.forward: plain(x.flatten(0, 1)[1:])[0].expand_as(x)
    pairs = read_pairs(pairs_of(made, ground, "reference"), -1)
    learner = Learner(model, base, config["lora_alpha"] / config["r"], pairs, of_kind("reference"))
    with pytest.raises(LoraryError, match=r"as experts do: whose they are cannot be told\. translator_batch: 1 trains"):
        learner.step(2 * pairs[:1])
    assert learner.step(pairs[:1])["loss"] > 0


def next_tokens(logits, ids):
    targets = torch.tensor(ids[1:].astype(np.int64))
    return torch.nn.functional.cross_entropy(logits[:-1], targets, reduction="none")


@pytest.mark.parametrize(("kind", "spares"), [("reference", False), ("memory", False), ("memory", True)])
def test_what_is_stopped_goes_on_to_the_same_bytes(made, ground, tmp_path, monkeypatch, kind, spares):
    params = {}
    if spares:
        write_kept(str(tmp_path / "kept"), what_is_spared(made))
        params = {"kept": str(tmp_path / "kept"), "settings": {**tiny.TRAINING, "keep_sequences": 2}}
    whole = train(made, ground, tmp_path / "whole", kind, **params)
    step, steps = Learner.step, []

    def note(learner, some):
        steps.append(some)
        return step(learner, some)

    monkeypatch.setattr(Learner, "step", note)

    @contextlib.contextmanager
    def asked_after_one(say):
        before = len(steps)
        yield lambda: len(steps) > before

    with monkeypatch.context() as patched:
        patched.setattr(learn.stop, "after_what_is_in_hand", asked_after_one)
        for done in (1, 2, 3):
            with pytest.raises(LoraryError, match=f"Stopped after step {done} of 4; the same command goes on"):
                train(made, ground, tmp_path / "parts", kind, **params)
    parts = train(made, ground, tmp_path / "parts", kind, **params)
    assert len(steps) == 4
    for name in set(whole) - {"about"}:
        assert whole[name].read_bytes() == parts[name].read_bytes(), name
    assert not list(tmp_path.glob("parts/store/translators/*/checkpoint*"))
    train(made, ground, tmp_path / "parts", kind, **params)
    assert len(steps) == 4  # it is taken from the store
    assert len((tmp_path / "parts/losses.tsv").read_text().splitlines()) == 5


def test_adapters_that_bring_no_words_forth_go_on_too(made, ground, tmp_path):
    """Of layers that do not write into the residual stream: then not every parameter has a gradient."""
    base = {name: t for name, t in files.read_adapter(str(made / "llama-base"))[1].items() if "gate_proj" in name}
    pairs, kept = read_pairs(pairs_of(made, ground, "memory"), -1), Kept(str(tmp_path), "key")

    def begin():
        return Learner(decoder.load(str(made / "llama"), "float32", CPU), base, 16.0, pairs, of_kind("memory"))

    one, other = begin(), begin()
    one.step(pairs)
    one.save(kept, 1.0)
    assert other.restore(kept) == 1.0
    assert one.step(pairs) == other.step(pairs)
    assert all(a.equal(b) for a, b in zip(one.network.parameters(), other.network.parameters(), strict=True))


def test_a_memory_measures_nothing_of_passages_of_one_token(made, ground):
    _, base = files.read_adapter(str(made / "llama-base"))
    passages = [
        {name: a[:1] for name, a in each.read().items()} for each in embedded(str(ground / "tokens.safetensors"))
    ]
    network = Memory(base, 3, 32, 8, 2.0)
    network.measure(passages)
    flat = network(stacked(passages))
    assert all(buffer.isfinite().all() for buffer in network.buffers())
    assert not any(B.any() for name, B in network.rows.tensors(flat[0]).items() if "lora_B" in name)


def test_a_translator_says_what_it_has_learnt_from(made, ground, tmp_path):
    """Of as many passages as it takes, and nothing where their states are of before that was written."""
    rows = dataset.read(str(ground / "table.parquet"), 0, None)
    for pairs in (2, -1):
        about = json.loads(train(made, ground, tmp_path / str(pairs), "memory", pairs=pairs)["about"].read_bytes())
        read = rows if pairs == -1 else rows[:pairs]
        assert about["passages_sha256"] == [dataset.text_sha256(f" {row['passage']}\n") for row in read]
    folder = tmp_path_with(ground, tmp_path)
    save_file(load_file(folder / "tokens.safetensors"), folder / "tokens.safetensors")
    outputs = train(made, folder, tmp_path / "-1", "memory")
    assert "passages_sha256" not in json.loads(outputs["about"].read_bytes())


def test_a_memory_learns(made, ground, tmp_path):
    outputs = train(made, ground, tmp_path, "memory", epochs=20)
    losses = [float(line.split("\t")[1]) for line in outputs["losses"].read_text().splitlines()[1:]]
    assert np.mean(losses[-2:]) < np.mean(losses[:2]) - 0.5


def test_a_checkpoint_that_is_damaged_is_not_gone_on_from(made, ground, tmp_path, caplog):
    whole = train(made, ground, tmp_path / "whole", "reference")
    key = next((tmp_path / "whole/store/translators").iterdir()).name
    checkpoint = tmp_path / "other/store/translators" / key / "checkpoint.safetensors"
    checkpoint.parent.mkdir(parents=True)
    checkpoint.write_bytes(b"half")
    other = train(made, ground, tmp_path / "other", "reference")
    assert "checkpoint.safetensors is damaged: the translator is trained from the beginning" in caplog.text
    assert whole["translator"].read_bytes() == other["translator"].read_bytes()


def test_whatever_decides_a_translator_is_in_its_key(made, ground, tmp_path):
    pairs = read_pairs(pairs_of(made, ground, "memory"), -1)

    def key(pairs=pairs, base="llama-base", spared=None, **params):
        return learn._key(str(made / "llama"), str(made / base), pairs, of_kind("memory", **params), spared)

    other_example = pairs[0]._replace(examples=pairs[0].examples[1:])
    keys = [
        key(),
        key(hidden=17),
        key(seed=8),
        key(epochs=3),
        key(pairs[:2]),
        key(shuffled(pairs)),
        key([other_example, *pairs[1:]]),
        key([pairs[0]._replace(sha256="0"), *pairs[1:]]),
        key(settings={**tiny.TRAINING, "objective": "answers"}),
        key(spared=Spared("key", [], {})),
        key(spared=Spared("other", [], {})),
    ]
    assert len(set(keys)) == len(keys)
    assert key(pairs=pairs) == keys[0]
    assert key(kept="where it lies") == keys[0]


def test_shuffled_passages_have_each_others_pairs(made, ground):
    pairs = read_pairs(pairs_of(made, ground, "reference"), -1)
    mixed = shuffled(pairs)
    assert [pair.states for pair in mixed] == [pair.states for pair in pairs]
    assert all(a.examples is not b.examples and a.adapter != b.adapter for a, b in zip(pairs, mixed, strict=True))
    assert {pair.adapter for pair in mixed} == {pair.adapter for pair in pairs}
    with pytest.raises(LoraryError, match="translator_control: shuffled mixes passages up, and there is one only"):
        shuffled(pairs[:1])


def test_what_the_model_cannot_read_is_told_and_not_tried(made, ground, tmp_path):
    table = pq.read_table(made / "llama.parquet")
    beyond = [[999, *ids[1:]] for ids in table["input_ids"].to_pylist()]
    column = pa.array(beyond, table.schema.field("input_ids").type)
    (tmp_path / "made").mkdir()
    for name in ("llama", "llama-base"):
        (tmp_path / "made" / name).symlink_to(made / name)
    pq.write_table(table.set_column(table.schema.get_field_index("input_ids"), "input_ids", column),
                   tmp_path / "made/llama.parquet")  # fmt: skip
    with pytest.raises(LoraryError, match="token id 999 is beyond the model's vocabulary of 512"):
        train(tmp_path / "made", ground, tmp_path / "out", "memory")


def test_pairs_that_do_not_belong_together_are_refused(made, ground, tmp_path, caplog):
    (of_file,) = pairs_of(made, ground, "reference")
    table = pq.read_table(of_file["prompts"])
    pq.write_table(table.filter(np.array(table["did"]) != 1), tmp_path / "fewer.parquet")
    with pytest.raises(LoraryError, match="are not of the same passages: the data changed meanwhile"):
        read_pairs([{**of_file, "prompts": str(tmp_path / "fewer.parquet")}], -1)
    record = (ground / "out/record.tsv").read_text().splitlines()
    (tmp_path / "record.tsv").write_text("\n".join(record[:-1]) + "\n")
    with pytest.raises(LoraryError, match="data_2/passage_0 has no adapter to learn from"):
        read_pairs([{**of_file, "records": [str(tmp_path / "record.tsv")]}], -1)
    rows = table.to_pylist()
    rows = [{**row, "error": "no" if row["did"] == 1 else None} for row in rows]
    pq.write_table(table.from_pylist(rows, schema=table.schema), tmp_path / "lacking.parquet")
    found = read_pairs([{**of_file, "prompts": str(tmp_path / "lacking.parquet")}], -1)
    assert [pair.states.position for pair in found] == [(0, 0), (2, 0)]
    assert "1 passages have no prompt ids, and are left out" in caplog.text
    assert len(read_pairs([of_file], 2)) == 2


def test_a_trained_adapter_that_changed_is_not_learnt_from(made, ground, tmp_path):
    shutil.copytree(ground / "out", tmp_path / "out")
    record = (tmp_path / "out/record.tsv").read_text()
    (tmp_path / "out/record.tsv").write_text(record.replace(str(ground), str(tmp_path)))
    path = tmp_path / "out/data_1/passage_0" / TENSORS
    content = path.read_bytes()
    path.unlink()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(LoraryError, match=r"data_1/passage_0/adapter_model\.safetensors is not what was trained"):
        train(made, tmp_path_with(ground, tmp_path), tmp_path / "made", "reference")


def tmp_path_with(ground, folder):
    for kind in STATES.values():
        shutil.copy(ground / f"{kind}.safetensors", folder)
    return folder


@pytest.mark.parametrize("what", ["words", "did", "length", "texts"])
def test_states_that_are_not_what_was_written_are_not_used(made, ground, tmp_path, what):
    folder, outputs = tmp_path_with(ground, tmp_path), train(made, ground, tmp_path / "whole", "memory")
    path = folder / "tokens.safetensors"
    with safe_open(path, "pt") as file:
        content, said = {name: file.get_tensor(name) for name in file.keys()}, file.metadata()  # noqa: SIM118
    if what == "texts":
        said["texts"] = said["texts"].replace("a", "b")
    elif what == "length":
        content["length"] += torch.tensor([0, -1, 1])
    else:
        content[what][[1, 2]] = content[what][[2, 1]]
    save_file(content, path, said)
    told = r"tokens\.safetensors is damaged \(what it has of data_\d/passage_0 is not what was written.* Delete it"
    with pytest.raises(LoraryError, match=told):
        train(made, folder, tmp_path / "new", "memory")
    with pytest.raises(LoraryError, match=told):
        translated(made, folder, tmp_path, "memory", outputs)
    save_file(content, path)  # of before there were seals
    translated(made, folder, tmp_path, "memory", outputs)


def translated(made, ground, folder, kind, outputs, control=None, precision="float32"):
    adapters = [folder / f"adapters/data_{did}/passage_0" for did in range(3)]
    (folder / "adapters").mkdir(exist_ok=True)
    translate_adapters(
        outputs=[str(path) for path in adapters],
        record=str(folder / "adapters/record.tsv"),
        outcome=str(folder / "outcome.json"),
        model=str(made / "llama"),
        base_weight=str(made / "llama-base"),
        embeddings=str(ground / f"{STATES[kind]}.safetensors"),
        translator=str(outputs["translator"]),
        control=control,
        precision=precision,
        store=str(folder / "store"),
        threads=1,
    )
    return adapters


@pytest.mark.parametrize("kind", KINDS)
def test_a_translated_adapter_is_one_that_peft_loads(made, ground, tmp_path, kind):
    """And it gives what training saw: with what all share, the loss of the last step's weights."""
    outputs = train(made, ground, tmp_path, kind)
    adapters = translated(made, ground, tmp_path, kind, outputs)
    _, base = files.read_adapter(str(made / "llama-base"))
    weights = load_file(outputs["translator"])
    pairs = read_pairs(pairs_of(made, ground, kind), -1)
    config = files.read_adapter(str(made / "llama-base"))[0]
    model = decoder.load(str(made / "llama"), "float32", CPU)
    learner = Learner(model, base, config["lora_alpha"] / 2, pairs, of_kind(kind))
    learner.network.load_state_dict({name: tensor for name, tensor in weights.items() if name != "mean"})
    (passage, *_) = read_passages(str(made / "llama.parquet"), {(0, 0)})
    ids = torch.tensor(passage.examples[0].ids.astype(np.int64))[None]

    plain = AutoModelForCausalLM.from_pretrained(made / "llama")
    adapted = PeftModel.from_pretrained(plain, adapters[0])
    if kind == "memory":
        adapted.load_adapter(outputs["shared_config"].parent, adapter_name="shared")
        adapted.base_model.set_adapter(["default", "shared"])
    flat, shared = learner.network(stacked([pairs[0].states.read()])), learner.network.shared()
    learner.stack.put(flat if shared is None else learner.rows.joined(flat, shared))
    with torch.no_grad():
        torch.testing.assert_close(adapted(ids).logits, decoder.logits(model, ids), rtol=1e-3, atol=1e-4)
    assert json.loads((tmp_path / "outcome.json").read_text()) == {"trained": 0, "translated": 3, "failed": []}
    translated(made, ground, tmp_path, kind, outputs)
    assert json.loads((tmp_path / "outcome.json").read_text()) == {"trained": 0, "translated": 0, "failed": []}
    exact = load_file(adapters[0] / TENSORS)
    translated(made, ground, tmp_path, kind, outputs, precision="bfloat16")
    assert all(tensor.equal(exact[name].bfloat16()) for name, tensor in load_file(adapters[0] / TENSORS).items())


def test_a_passage_that_fits_no_memory_fails_alone(made, ground, tmp_path, monkeypatch):
    outputs, of, some = train(made, ground, tmp_path, "memory"), Translator.of, []

    def too_large(translator, batch):
        some.append(batch)
        if len(some) == 2:
            raise MemoryError
        return of(translator, batch)

    monkeypatch.setattr(Translator, "of", too_large)
    with pytest.raises(LoraryError, match="data_1/passage_0: its tokens do not fit into memory together"):
        translated(made, ground, tmp_path, "memory", outputs)
    assert json.loads((tmp_path / "outcome.json").read_text())["translated"] == 2
    translated(made, ground, tmp_path, "memory", outputs)
    assert json.loads((tmp_path / "outcome.json").read_text())["translated"] == 1


@pytest.mark.parametrize("kind", KINDS)
def test_with_the_control_shared_no_passage_has_anything_of_its_own(made, ground, tmp_path, kind):
    outputs = train(made, ground, tmp_path, kind)
    own = [load_file(path / TENSORS) for path in translated(made, ground, tmp_path, kind, outputs)]
    found = [load_file(path / TENSORS) for path in translated(made, ground, tmp_path, kind, outputs, "shared")]
    assert any((own[0][name] != own[1][name]).any() for name in own[0])
    for name in found[0]:
        assert all((tensors[name] == found[0][name]).all() for tensors in found)
        if kind == "reference":
            mean = torch.stack([tensors[name] for tensors in own]).mean(0)
            torch.testing.assert_close(found[0][name], mean, rtol=1e-4, atol=1e-7)
        else:
            assert not found[0][name].any()


@pytest.mark.parametrize("kind", KINDS)
def test_a_passage_is_translated_the_same_whatever_is_beside_it(made, ground, kind):
    _, base = files.read_adapter(str(made / "llama-base"))
    passages = [passage.read() for passage in embedded(str(ground / f"{STATES[kind]}.safetensors"))]
    network = make(kind, base, passages[0]["states"].shape[1:], 16, 16.0, 0)
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.3)

    def updates(row):
        tensors = network.rows.tensors(row)
        return torch.stack([tensors[name.replace("_A.", "_B.")] @ tensors[name] for name in tensors if A in name])

    A, together = "down_proj.lora_A", network(stacked(passages))
    for row, passage in zip(together, passages, strict=True):
        torch.testing.assert_close(updates(row), updates(network(stacked([passage]))[0]), rtol=1e-3, atol=1e-4)
    assert not torch.allclose(updates(together[0]), updates(together[1]))


def test_each_epoch_has_an_order_of_its_own(made, ground):
    _, base = files.read_adapter(str(made / "llama-base"))
    pairs = read_pairs(pairs_of(made, ground, "reference"), -1)
    learner = Learner(decoder.load(str(made / "llama"), "float32", CPU), base, 16.0, pairs, of_kind("reference"))
    orders = [learner.order(50, seed, epoch) for seed in (1, 2) for epoch in (0, 1)]
    assert all(sorted(order) == list(range(50)) for order in orders)
    assert len({tuple(order) for order in orders}) == 4
    assert learner.order(50, 1, 1) == orders[1]
