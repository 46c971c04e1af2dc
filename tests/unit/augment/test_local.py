"""A model here answers requests in batches as it would one by one, and several talks side by side."""

import re

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

import tiny
from lorary.augment import local, writing
from lorary.augment.talk import Reply, Request
from lorary.base import greedy, reading
from lorary.base.fetch import get_model
from lorary.core.errors import LoraryError
from lorary.core.work import Fault, Item
from lorary.data.prompts import load_chat

CPU = torch.device("cpu")
CHAT = {"chat_date": "26 Jul 2024"}
KINDS = {  # the last is transformers'
    "llama": {"tie_word_embeddings": True},
    "qwen2": {},
    "qwen3": {"head_dim": 16},
    "granite": {"logits_scaling": 3.0},
}
PASSAGE = "In the village of Tessolm the ferry Silver Tarn crosses to Cravisk on Tuesdays and Fridays, since 1983. " * 3


def base_model(kind, folder):
    source = tiny.make_model(folder / "source", kind, initializer_range=0.3, **KINDS[kind])
    get_model(str(source), None, str(folder / "model"))
    return folder / "model"


def local_of(folder):
    return local.Local(str(folder), "float32", CPU, load_chat(str(folder), CHAT))


@pytest.fixture(scope="module", params=KINDS)
def folder(request, tmp_path_factory):
    return base_model(request.param, tmp_path_factory.mktemp(request.param))


@pytest.fixture(scope="module")
def model(folder):
    return local_of(folder)


@pytest.fixture(scope="module")
def llama(tmp_path_factory):
    return local_of(base_model("llama", tmp_path_factory.mktemp("base")))


def ask(text, tokens=12, passage=PASSAGE, **more):
    return Request("Read.\n{passage}\n{text}", {"passage": passage, "text": text}, tokens, **more)


REQUESTS = [
    ask("Who?"),
    ask("Where to, and why on these days and on no others?", 30),
    ask("short", 3, passage="Nothing."),
    ask("When?", 1),
    ask("Who?"),
    ask("What?", 20, passage=PASSAGE * 2),
    ask("Which?", 20, passage=PASSAGE * 2),
    ask("Why?", 25, passage="Some other."),
]


def one_by_one(model, folder):
    """transformers' greedy replies, and their tokens."""
    theirs = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    for request in REQUESTS:
        ids = model.chat.ids(request.template, request.values)
        output = theirs.generate(
            input_ids=torch.tensor([ids]),
            attention_mask=torch.ones(1, len(ids), dtype=torch.long),
            do_sample=False,
            max_new_tokens=request.most_tokens,
            eos_token_id=sorted(model.writer.ends) or None,
            pad_token_id=0,
        )
        tokens = output[0, len(ids) :].tolist()
        finished = tokens[-1] in model.writer.ends
        tokens = tokens[:-1] if finished else tokens
        text = model.chat.tokenizer.decode(tokens, skip_special_tokens=True)
        yield Reply(text, finished, len(ids), len(tokens)), tokens


def test_greedy_replies_are_those_of_transformers_one_by_one(model, folder, monkeypatch):
    monkeypatch.setitem(reading.AT_ONCE, "cpu", 300)
    wanted, tokens = zip(*one_by_one(model, folder), strict=True)
    assert model.write(REQUESTS) == [*wanted]
    assert wanted[0] == wanted[4]
    assert len({reply.text for reply in wanted}) == len(wanted) - 1
    # in another order, alone, and some at a time
    assert model.write(REQUESTS[::-1]) == [*wanted[::-1]]
    assert model.write(REQUESTS[2:3]) == [wanted[2]]
    monkeypatch.setitem(greedy.ROWS_AT_ONCE, "cpu", 3)
    assert model.write(REQUESTS) == [*wanted]
    # one ends before its end token, and the others go on
    monkeypatch.setattr(model.writer, "ends", {tokens[1][15]})
    wanted, _ = zip(*one_by_one(model, folder), strict=True)
    assert model.write(REQUESTS) == [*wanted]
    assert {reply.finished for reply in wanted} == {True, False}
    assert model.write([]) == []


def test_a_long_prompt_whose_reply_has_ended_waits_for_the_others(llama):
    requests = [ask("long", 1, passage=PASSAGE * 4), *(ask(str(i), 30, passage="short") for i in range(6))]
    assert llama.write(requests)[1:] == llama.write(requests[1:])


def test_what_can_have_no_reply_says_why_and_the_others_have_theirs(llama, monkeypatch):
    good = llama.write(REQUESTS[:2])
    broken = Request("{passage}", {}, 5)
    first, fault, second = llama.write([REQUESTS[0], broken, REQUESTS[1]])
    assert [first, second] == good
    assert fault == Fault("its prompt cannot be made: KeyError: 'passage'")
    monkeypatch.setattr(local, "beyond", lambda model, highest, length: "too long" if length > 200 else None)
    assert Fault("too long") in llama.write(REQUESTS)


def test_rows_that_do_not_fit_into_memory_are_halved_and_one_alone_fails_in_words(llama, monkeypatch):
    requests = [*REQUESTS, *(ask(str(seed), 9, passage="", seed=seed, pattern="[a-z]{3}[0-9]{9}") for seed in range(3))]
    wanted, tried = llama.write(requests), []
    longest = max(reply.prompt_tokens for reply in wanted)

    def decode(model, rows, plain=llama._decode):
        tried.append(len(rows))
        plain(model, rows)
        if len(rows) > 3 or any(len(row.ids) == longest for row in rows):
            raise torch.OutOfMemoryError("no more")

    monkeypatch.setattr(llama, "_decode", decode)
    for reply, full in zip(llama.write(requests), wanted, strict=True):
        if full.prompt_tokens == longest:
            assert reply == Fault(f"its prompt of {longest} tokens does not fit into memory")
        else:
            assert reply == full
    assert tried[:2] == [11, 6]

    def fail(model, rows):
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    monkeypatch.setattr(llama, "_decode", fail)
    with pytest.raises(RuntimeError, match="illegal memory access"):
        llama.write(REQUESTS)


CHINESE = "银色的渡船每周二开往。从1983年起。"
HELD = [
    ask("words", 60, words_of=PASSAGE),
    ask("words again", 60, words_of="one"),
    ask("characters", 60, words_of=CHINESE),
    ask("pattern", 60, pattern="[A-Z][a-z]{2,5} [0-9]{4}"),
]


def test_replies_are_held_to_what_is_asked_for_and_others_beside_them_are_not(model):
    free = model.write(REQUESTS)
    replies = model.write([*HELD, *REQUESTS])
    assert replies[len(HELD) :] == free
    words, one, characters, pattern = (reply.text for reply in replies[: len(HELD)])
    assert words in PASSAGE
    assert set(re.findall(r"\w+", words)) <= set(re.findall(r"\w+", PASSAGE))  # whole ones
    assert one == "one"
    assert len(characters) > 0
    assert characters in CHINESE
    assert re.fullmatch("[A-Z][a-z]{2,5} [0-9]{4}", pattern)
    assert all(reply.finished for reply in replies[1:2] + replies[3 : len(HELD)])
    # alone, one after the other, and without what the first time left
    assert [model.write([request])[0] for request in HELD] == replies[: len(HELD)]


def test_a_reply_that_is_held_ends_where_nothing_can_follow(llama):
    (reply,) = llama.write([ask("?", 60, pattern="yes|no")])
    assert (reply.text in ("yes", "no"), reply.finished) == (True, True)
    assert reply.tokens < 4
    (cut,) = llama.write([ask("?", 3, pattern="[ab]{20}")])
    assert (cut.finished, cut.tokens) == (False, 3)


def led(model, request, *liked):
    """The reply of a model that always likes these tokens best, the first most."""
    row = model.writer.row(0, request, [])
    row.begin()
    logits = torch.zeros(1, 512)
    for i, token in enumerate(liked):
        logits[0, token if isinstance(token, int) else model.chat.tokenizer.convert_tokens_to_ids(token)] = 9.0 - i
    while not row.ended:
        model.writer.choose(logits.clone(), [row])
    return row


END, BLANK = 1, "\u0120"  # a blank as the tokenizer writes it


@pytest.mark.parametrize(
    ("wanted", "liked", "text"),
    [
        ({"pattern": "a{2,}"}, (END, "a"), "aa"),
        ({"words_of": "amber basalt"}, (END, "a", "b"), "amber"),  # whole words
        ({"words_of": "amber basalt"}, (BLANK, END, "a"), "amber basalt"),  # no blank at an end
        ({"words_of": "是是"}, (END,), "是"),
    ],
)
def test_the_likeliest_of_what_is_allowed_comes_next_and_an_end_where_it_may(llama, wanted, liked, text):
    assert llama.writer.ends == {END}
    row = led(llama, ask("?", 60, **wanted), *liked)
    assert (row.text, row.finished) == (text, True)


def test_a_grammar_that_allows_nothing_fails_its_request_alone_in_words(llama):
    fault, reply = llama.write([ask("?", 9, pattern="(["), REQUESTS[0]])
    assert fault.reason.startswith("no reply is as it is wanted: ")
    assert "unclosed character class" in fault.reason
    assert isinstance(reply, Reply)
    (reply,) = llama.write([ask("?", 9, words_of=" \n")])
    assert (reply.text, reply.finished) == ("", False)


def test_a_seed_decides_what_is_drawn_and_the_batch_does_not(model, monkeypatch):
    drawn = [ask("Who?", 10, seed=seed) for seed in (1, 2, 1)] + [ask("Who?", 10, seed=2**63, pattern="[a-z ]+")]
    replies = model.write([*REQUESTS, *drawn])
    assert replies[: len(REQUESTS)] == model.write(REQUESTS)
    one, two, again, held = replies[len(REQUESTS) :]
    assert one == again
    assert len({one.text, two.text, replies[0].text}) == 3
    assert re.fullmatch("[a-z ]+", held.text)
    assert [model.write([request])[0] for request in drawn] == [one, two, again, held]
    monkeypatch.setitem(greedy.ROWS_AT_ONCE, "cpu", 2)
    assert model.write(drawn) == [one, two, again, held]


def test_equally_likely_tokens_are_drawn_in_one_order(llama):
    row, drawn = llama.writer.row(0, ask("?", 9, seed=3), []), set()
    for ids in (np.arange(9), np.arange(9)[::-1]):
        row.begin()
        drawn.add(writing._draw(np.zeros(9), ids, row))
    assert len(drawn) == 1


def test_the_likelier_is_drawn_the_more_often_at_a_lower_temperature_yet_more(llama):
    logits = torch.full((1, 512), -9.0)
    logits[0, 100:160] = torch.arange(60.0) / -30  # the last ten are not among the 50 likeliest
    logits[0, 300] = 1.0

    def share(temperature):
        row = llama.writer.row(0, ask("?", 4001, seed=3, temperature=temperature), [])
        row.begin()
        for _ in range(4000):
            llama.writer.choose(logits.clone(), [row])
        assert set(row.tokens) <= {300, *range(100, 149)}
        return row.tokens.count(300) / 4000

    for temperature in (0.5, 1.0):
        expected = torch.softmax(logits[0].topk(50).values / temperature, -1)[0].item()
        assert share(temperature) == pytest.approx(expected, abs=0.03)


def test_a_reply_ends_before_the_text_that_stops_it(model):
    whole = model.write([ask("Where to?", 30)])[0]
    middle = len(whole.text) // 2
    for stop in (whole.text[middle : middle + 3], whole.text[:2]):
        (reply,) = model.write([ask("Where to?", 30, stop=stop)])
        assert reply.text == whole.text.partition(stop)[0]
        assert reply.finished
        assert reply.tokens < whole.tokens
    assert model.write([ask("Where to?", 30, stop="never there")]) == [whole]


def talk(*rounds):
    """Asks so many requests, round after round; returns what it has read."""
    read = []
    for round, count in enumerate(rounds):
        replies = yield [ask(f"{round} {i}", 3) for i in range(count)]
        assert len(replies) == count
        read += [reply.text for reply in replies]
    return read


def failing(error):
    yield [ask("and?", 3)]
    raise error


def converse(model, talks, size):
    items = [Item(str(i), f"passage {i}") for i in range(len(talks))]
    return list(model.converse(zip(items, talks, strict=True), size))


def test_talks_go_side_by_side_and_each_is_as_it_is_alone(llama, monkeypatch):
    rounds = [(2, 1), (1,), (), (3, 0, 2), (1, 1)]
    alone = [converse(llama, [talk(*some)], 1)[0][0][1] for some in rounds]
    assert [len(read) for read in alone] == [3, 1, 0, 5, 2]
    asked, plain = [], llama.write
    monkeypatch.setattr(llama, "write", lambda requests: asked.append(len(requests)) or plain(requests))
    done = converse(llama, [talk(*some) for some in rounds], 4)
    assert [[item.key for item, _ in some] for some in done] == [["2"], ["1"], ["0"], ["3"], ["4"]]  # as they end
    assert [result for _, result in sorted((item.key, result) for some in done for item, result in some)] == alone
    assert asked[:3] == [6, 1, 2]


def test_a_talk_that_fails_fails_alone(llama):
    (done,) = converse(llama, [talk(1), failing(LoraryError("no good")), talk(2)], 3)
    assert [type(result) for _, result in done] == [list, Fault, list]
    assert done[1][1] == Fault("no good")
    with pytest.raises(ZeroDivisionError):  # a mistake of ours
        converse(llama, [failing(ZeroDivisionError())], 1)


def test_talks_are_taken_when_their_turn_comes(llama):
    taken = []

    def items():
        for i in range(5):
            taken.append(i)
            yield Item(str(i), "passage"), talk(1)

    groups = llama.converse(items(), 2)
    next(groups)
    assert taken == [0, 1]
    assert sum(map(len, groups)) == 3
