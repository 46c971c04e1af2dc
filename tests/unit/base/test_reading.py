"""Prompts that begin alike are read as those that do not, and what they share once."""

import pytest
import torch

import tiny
from lorary.base import decoder, reading

CPU = torch.device("cpu")
KINDS = {"llama": {"tie_word_embeddings": True}, "qwen2": {}, "qwen3": {"head_dim": 16}}


def ids(length, seed):
    return torch.randint(2, 512, (length,), generator=torch.Generator().manual_seed(seed)).tolist()


HEADER, PASSAGE, OTHER = ids(35, 0), ids(90, 1), ids(40, 2)
PROMPTS = [
    [*HEADER, *PASSAGE, *ids(7, 3)],
    ids(20, 4),
    [*HEADER, *OTHER, 5],
    [*HEADER, *PASSAGE, *ids(30, 5)],
    [7],
    [*HEADER, *OTHER, 5],
    [*HEADER, *OTHER, 5, 6],
    [*HEADER, *PASSAGE, 9],
    ids(150, 6),
    [*HEADER, 11],
]


def test_what_is_read_once_is_what_saves_most():
    beginnings, whose = reading.shared(PROMPTS)
    assert beginnings == [[], [*HEADER, *OTHER], [*HEADER, *PASSAGE]]
    assert whose == [2, 0, 1, 2, 0, 1, 1, 2, 0, 0]


def test_the_header_of_all_is_shared_where_nothing_more_is():
    prompts = [[*HEADER, *ids(50, seed)] for seed in range(10, 14)]
    assert reading.shared(prompts) == ([[], HEADER], [1] * 4)
    assert reading.shared([prompt[10:] for prompt in prompts]) == ([[]], [0] * 4)  # too short to be worth it


@pytest.fixture(params=KINDS)
def model(request, tmp_path, monkeypatch):
    monkeypatch.setitem(reading.AT_ONCE, "cpu", 100)  # several groups, with and without padding
    tiny.make_model(tmp_path, request.param, initializer_range=0.3, **KINDS[request.param])
    made = decoder.load(str(tmp_path), "float32", CPU).double()
    decoder.prepare(made)
    return made


def alone(model, prompt):
    return model.hidden(torch.tensor([prompt]))[0, -1]


@torch.inference_mode()
def test_hidden_states_are_those_of_each_prompt_alone_and_so_they_are_further_on(model):
    order, cache, last = reading.read(model, PROMPTS, 160)
    assert sorted(order) == list(range(len(PROMPTS)))
    assert cache.lengths.tolist() == [len(PROMPTS[i]) for i in order]
    rows = [list(PROMPTS[i]) for i in order]
    torch.testing.assert_close(last, torch.stack([alone(model, row) for row in rows]))
    for step in range(3):
        tokens = torch.arange(len(rows))[:, None] + 100 * step
        last = model.hidden(tokens, cache)[:, 0]
        cache.lengths += 1
        rows = [[*row, int(token)] for row, token in zip(rows, tokens, strict=True)]
        torch.testing.assert_close(last, torch.stack([alone(model, row) for row in rows]))
        some = [i for i in range(len(rows)) if i % 3]  # the others leave
        rows = [rows[i] for i in some]
        cache.take(some, max(map(len, rows)) + 1)
    # what a row has once is there twice, and each goes on by itself
    cache.take([0, 0], 200)
    last = model.hidden(torch.tensor([[3, 4], [5, 6]]), cache)[:, -1]
    torch.testing.assert_close(last[0], alone(model, [*rows[0], 3, 4]))
    torch.testing.assert_close(last[1], alone(model, [*rows[0], 5, 6]))


@torch.inference_mode()
def test_one_prompt_is_read_too(model):
    order, cache, last = reading.read(model, [PROMPTS[0]], 150)
    assert (order, cache.lengths.tolist(), cache.room) == ([0], [len(PROMPTS[0])], 150)
    torch.testing.assert_close(last[0], alone(model, PROMPTS[0]))


@torch.inference_mode()
def test_what_an_end_is_predicted_from_is_read_as_in_each_sequence_alone(model):
    """Two that are the same to their last token share no more than their prompts."""
    sequences = [(prompt, max(1, len(prompt) - 1 - i)) for i, prompt in enumerate(PROMPTS) if len(prompt) > 1]
    sequences += [(PROMPTS[0], 125), (PROMPTS[0], 125)]
    for (whole, begin), states in zip(sequences, reading.ends(model, sequences), strict=True):
        assert len(states) == len(whole) - begin
        torch.testing.assert_close(states, model.hidden(torch.tensor([whole]))[0, begin - 1 : -1])
