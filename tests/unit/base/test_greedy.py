"""Greedy answers of many prompts, some of which begin alike, are those of a plain loop over each."""

import pytest
import torch

import tiny
from lorary.base import decoder, greedy, reading

CPU = torch.device("cpu")
KINDS = {"llama": {"tie_word_embeddings": True}, "qwen2": {}, "granite": {"logits_scaling": 3.0}}  # the last: theirs
MOST = 9


def ids(length, seed):
    return torch.randint(2, 512, (length,), generator=torch.Generator().manual_seed(seed)).tolist()


HEADER = ids(40, 0)
PROMPTS = [[*HEADER, *ids(7, 1)], ids(20, 2), [7], [*HEADER, *ids(30, 3)], [*HEADER, 5], ids(90, 4), [*HEADER, 5]]


def plain(model, prompt, ends):
    tokens = []
    while len(tokens) < MOST:
        token = int(decoder.logits(model, torch.tensor([prompt + tokens]))[0, -1].argmax())
        if token in ends:
            break
        tokens.append(token)
    return tokens


@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_tokens_are_those_of_a_plain_loop(kind, tmp_path, monkeypatch):
    monkeypatch.setitem(reading.AT_ONCE, "cpu", 100)  # several groups, with and without padding
    tiny.make_model(tmp_path, kind, initializer_range=0.3, **KINDS[kind])
    model = decoder.load(str(tmp_path), "float32", CPU).double()
    decoder.prepare(model)
    wanted = [plain(model, prompt, set()) for prompt in PROMPTS]
    assert greedy.greedy(model, PROMPTS, set(), MOST) == wanted
    assert len({tuple(tokens) for tokens in wanted}) == len(PROMPTS) - 1
    ends = {wanted[3][0], wanted[1][4], wanted[0][6]}
    stopped = [plain(model, prompt, ends) for prompt in PROMPTS]
    assert stopped[3] == []
    assert len({len(tokens) for tokens in stopped}) > 2
    monkeypatch.setitem(greedy.ROWS_AT_ONCE, "cpu", 3)
    assert greedy.greedy(model, PROMPTS, ends, MOST) == stopped
    assert greedy.greedy(model, [], ends, MOST) == []


def test_training_goes_on_after_it(tmp_path):
    """What a model keeps for later passes may have a gradient then."""
    tiny.make_model(tmp_path)
    model = decoder.load(str(tmp_path), "float32", CPU)
    greedy.greedy(model, PROMPTS, set(), 2)
    inputs = model.get_input_embeddings().weight.requires_grad_()
    model(torch.tensor([PROMPTS[0]])).sum().backward()
    assert inputs.grad.abs().sum() > 0


def test_batches_are_bounded_and_hold_every_row(monkeypatch):
    monkeypatch.setitem(greedy.ROWS_AT_ONCE, "cpu", 3)
    model = torch.nn.Linear(1, 1)
    assert [list(range(7))[rows] for rows in greedy.batches(model, [5] * 7)] == [[0, 1, 2], [3, 4, 5], [6]]
    assert list(greedy.batches(model, [])) == []
