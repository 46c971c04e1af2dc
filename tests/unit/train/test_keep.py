"""What is kept of the base model: its own answers, the directions of its activations, and adapters that spare both."""

import json
from itertools import pairwise

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

import tiny
from lorary.adapters import files as adapter
from lorary.base import decoder
from lorary.base.fetch import end_tokens
from lorary.core.errors import LoraryError
from lorary.core.store import Store
from lorary.data import prompts, rows
from lorary.data.sequences import Example, Passage
from lorary.train import directions, encode, keep
from lorary.train.kept import Kept, among, read_kept, write_kept

QUESTIONS = ["What is ice?", "Who wrote Hamlet?", "Which metal is liquid?", "What do pandas eat?", "What is two?"]


def prompter(made):
    return prompts.load_prompter(str(made / "llama"), tiny.PROMPTS)


@pytest.fixture
def kept(made, tmp_path):
    """The file, with directions."""
    tiny.write_rows(tmp_path / "questions.json", QUESTIONS)
    ask(made, tmp_path)
    return str(tmp_path / "kept.safetensors")


def ask(made, folder, share=0.7, threads=1, **settings):
    """The job."""
    files = {"output": str(folder / "kept.safetensors"), "questions": str(folder / "questions.json")}
    how = {"model": str(made / "llama"), "prompter": prompter(made), "target_modules": tiny.TARGETS, **files}
    keep.keep(**how, share=share, threads=threads, **{"precision": "float32", **settings})
    return read_kept(files["output"])


def test_the_answers_are_the_base_models_own(made, kept):
    model = AutoModelForCausalLM.from_pretrained(made / "llama", dtype=torch.float32)
    ends, expected = end_tokens(str(made / "llama")), []
    for question in QUESTIONS:
        ids = prompt = prompter(made).prompt_ids(question, [])
        while len(ids) < len(prompt) + keep.ANSWER_TOKENS:
            with torch.no_grad():
                token = int(model(input_ids=torch.tensor([ids])).logits[0, -1].argmax())
            if token in ends:
                break
            ids = [*ids, token]
        expected.append((ids, len(prompt)))
    found = [(example.ids.tolist(), example.begin) for example in read_kept(kept).sequences]
    assert sorted(found) == sorted(pair for pair in expected if len(pair[0]) > pair[1])


def test_the_directions_hold_their_share_of_what_goes_into_a_layer(made, kept):
    spared = read_kept(kept)
    model = AutoModelForCausalLM.from_pretrained(made / "llama", dtype=torch.float32)
    names = [name for name in adapter.read_adapter(made / "llama-base")[1] if "lora_A" in name]
    assert sorted(spared.directions) == sorted(names)
    for name in names:
        seen = []
        hook = model.get_submodule(adapter.layer_of(name)).register_forward_pre_hook(
            lambda _, inputs, seen=seen: seen.append(inputs[0][0].double())
        )
        with torch.no_grad():
            for example in spared.sequences:
                model(input_ids=torch.tensor(example.ids, dtype=torch.long)[None])
        hook.remove()
        X, U = torch.cat(seen), torch.tensor(spared.directions[name], dtype=torch.float64)
        assert torch.allclose(U.T @ U, torch.eye(U.shape[1], dtype=torch.float64), atol=1e-5)
        best = torch.linalg.svdvals(X).square()
        held = (X @ U).square().sum() / X.square().sum()
        assert held >= 0.7 - 1e-4
        assert held == pytest.approx(float(best[: U.shape[1]].sum() / best.sum()), rel=1e-4)
        assert best[: U.shape[1] - 1].sum() < 0.7 * best.sum()


def test_fewer_tokens_than_a_layer_reads_numbers_have_the_same_directions(made, kept):
    """Two of them, the first in both sequences, which so counts twice."""
    llama = decoder.load(str(made / "llama"), "float32", torch.device("cpu"))
    names = list(read_kept(kept).directions)
    sequences = [sequence(1, 10), sequence(1, 11), sequence(1, 10, 12)]
    found = directions.directions_of(llama, names, sequences, 0.9)
    for name in names:
        seen = []
        hook = llama.get_submodule(adapter.layer_of(name)).register_forward_pre_hook(
            lambda _, inputs, seen=seen: seen.append(inputs[0][0].double())
        )
        with torch.no_grad():
            for example in sequences:
                decoder.logits(llama, torch.tensor(example.ids, dtype=torch.long)[None])
        hook.remove()
        energy, vectors = np.linalg.eigh(torch.cat(seen).T.numpy() @ torch.cat(seen).numpy())
        U = found[name]
        assert 1 <= U.shape[1] <= 4 < U.shape[0]
        assert energy[-U.shape[1] :].sum() >= 0.9 * energy.sum() > energy[-U.shape[1] :][1:].sum()
        best = vectors[:, -U.shape[1] :]
        assert np.allclose(U @ U.T, best @ best.T, atol=1e-4)


def test_layers_that_do_not_fit_together_are_looked_at_one_after_the_other(made, kept, monkeypatch):
    spared = read_kept(kept)
    monkeypatch.setattr(directions, "ACTIVATIONS", 1)
    llama = decoder.load(str(made / "llama"), "float32", torch.device("cpu"))
    found = directions.directions_of(llama, list(spared.directions), spared.sequences, 0.7)
    for name, each in spared.directions.items():
        assert np.allclose(found[name] @ found[name].T, each @ each.T, atol=1e-4)


def test_a_file_that_is_not_what_was_written_is_refused(kept, tmp_path):
    content = bytearray((tmp_path / "kept.safetensors").read_bytes())
    content[-1] ^= 1
    (tmp_path / "kept.safetensors").write_bytes(content)
    with pytest.raises(LoraryError, match="not what was written"):
        read_kept(kept)


def sequence(*ids):
    return Example(np.array(ids, dtype=np.int32), 1)


def test_kept_sequences_stand_evenly_among_those_of_all_epochs(tmp_path):
    general = [sequence(1, 10 + i) for i in range(7)]
    write_kept(str(tmp_path / "k"), Kept("key", general, {}))
    general = read_kept(str(tmp_path / "k")).sequences
    own = [sequence(5, 1), sequence(5, 2)]
    woven = among(Passage((3, 4), own), general, 9, 3)
    assert woven.position == (3, 4)
    assert [int(example.ids[0]) for example in woven.examples] == [5, 1, 5, 1, 1, 5, 1, 5, 1, 1, 5, 1, 5, 1, 1]
    assert [example.ids.tolist() for example in woven.examples if example.ids[0] == 5] == [[5, 1], [5, 2]] * 3
    numbers = [int(example.ids[1]) - 10 for example in woven.examples if example.ids[0] == 1]
    assert [(b - a) % 7 for a, b in pairwise(numbers)] == [1] * 8
    other = among(Passage((9, 9), own), general, 9, 3)
    assert [e.ids.tolist() for e in other.examples] == [e.ids.tolist() for e in woven.examples]  # wherever it stands
    counts = [len(among(Passage((3, 4), own), general, 9, n).examples) - 2 * n for n in (1, 25, 26, 100)]
    assert counts == [9, 9, 9, 36]
    few = among(Passage((3, 4), own), general, 2, 4).examples
    assert [int(example.ids[0]) for example in few] == [5, 5, 5, 5, 1, 5, 5, 5, 5, 1]


def test_adapters_that_spare_what_is_kept(made, kept, tmp_path):
    """Each objective, with and without: another digest, and general answers that stay likelier."""
    spared, found = read_kept(kept), {}
    for objective in ("answers", "distill"):
        file = tmp_path / f"{objective}.parquet"
        prompts.save(
            prompts.build(rows.load_all([made / "total.json"], -1, "aug"), prompter(made), 3000, objective), file
        )
        for how in ({}, {"keep_sequences": 24, "keep_directions": 0.7}):
            settings = {**tiny.TRAINING, "num_train_epochs": 4, "objective": objective, **how}
            settings |= {"distill_top_k": 4, "distill_temperature": 1.0} if objective == "distill" else {}
            store = tmp_path / f"{objective}{len(how)}"
            encode.train_adapters(
                outputs=[f"{store}/data_0/passage_0"],
                record=str(store / "r.tsv"),
                outcome=str(store / "o.json"),
                model=str(made / "llama"),
                base_weight=str(made / "llama-base"),
                prompts=str(file),
                settings=settings,
                adapters_per_step=1,
                store=str(store / "store"),
                threads=1,
                kept=kept if how else None,
            )
            (digest,) = Store(str(store / "store")).digests()
            training = json.loads((store / "store" / digest[:2] / digest / "training.json").read_text())
            _, tensors = adapter.read_adapter(store / "data_0/passage_0")
            found[objective, bool(how)] = digest, training, tensors
    for objective in ("answers", "distill"):
        (_, without, _), (digest, training, tensors) = found[objective, False], found[objective, True]
        assert digest != found[objective, False][0]
        assert training["sequences"] == without["sequences"] == 3
        assert training["tokens"] == without["tokens"]
        assert training["predicted"] == without["predicted"]
        assert len(training["losses"]) == len(without["losses"]) == 12
        assert training["kept_tokens"] > 24 * 5
        for name, each in spared.directions.items():
            assert np.abs(tensors[name].numpy() @ each).max() < 1e-6
        assert training["losses"][0] == pytest.approx(without["losses"][0], rel=0.2)  # of its own sequences
        assert training["losses"][-1] < training["losses"][0]


def test_the_digest_is_of_what_is_kept(made):
    arguments = str(made / "llama"), str(made / "llama-base"), str(made / "llama.parquet"), tiny.TRAINING, {(0, 0)}
    without, with_it, other = (encode.passage_digests(*arguments, kept)[0][0, 0][0] for kept in (None, "a", "b"))
    assert len({without, with_it, other}) == 3
    assert without == encode.passage_digests(*arguments)[0][0, 0][0]


def test_the_key_is_of_what_decides_and_not_of_how_a_machine_rounds(made, kept, tmp_path, monkeypatch):
    first = read_kept(kept).key
    assert ask(made, tmp_path, threads=2).key == first
    monkeypatch.setattr(directions, "directions_of", lambda *_: {})
    assert ask(made, tmp_path).key == first
    assert len({first, ask(made, tmp_path, share=0.5).key, ask(made, tmp_path, precision="bfloat16").key}) == 3
    tiny.write_rows(tmp_path / "questions.json", QUESTIONS[:4])
    assert ask(made, tmp_path).key != first


def test_layers_that_read_the_same_share_their_directions(kept):
    found = read_kept(kept).directions
    gates = [name for name in found if "gate_proj" in name]
    assert all(found[name] is found[name.replace("gate_proj", "up_proj")] for name in gates)
    assert len({id(each) for each in found.values()}) == 2 * len(gates) == 4


def test_a_question_that_the_model_cannot_read_is_refused(made, tmp_path, monkeypatch):
    tiny.write_rows(tmp_path / "questions.json", QUESTIONS)
    monkeypatch.setattr(decoder, "beyond", lambda model, highest, length: f"{length > 30} of a model")
    with pytest.raises(LoraryError, match=r"keep_questions: .*questions.json: True of a model"):
        ask(made, tmp_path)


def test_what_does_not_fit_into_memory_is_asked_one_by_one_or_told(made, tmp_path, monkeypatch):
    tiny.write_rows(tmp_path / "questions.json", QUESTIONS)
    whole = ask(made, tmp_path)
    hidden, least = decoder.Decoder.hidden, [90]

    def limited(self, ids, *cache):
        if ids.numel() > least[0]:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return hidden(self, ids, *cache)

    monkeypatch.setattr(decoder.Decoder, "hidden", limited)
    apart = ask(made, tmp_path)
    assert [e.ids.tolist() for e in apart.sequences] == [e.ids.tolist() for e in whole.sequences]
    least[0] = 3
    with pytest.raises(LoraryError, match=r"does not fit into memory beside it. precision: bfloat16 takes half"):
        ask(made, tmp_path)
