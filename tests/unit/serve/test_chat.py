"""What a request may say, and the shapes of replies."""

import json

import pytest

import fake_answers as fakes
from fake_answers import METHODS, body
from lorary.serve import chat
from lorary.serve.chat import Answered, Asked, Refused


def read(said):
    return chat.read(said if isinstance(said, bytes) else json.dumps(said).encode(), METHODS, 8, 16)


@pytest.mark.parametrize(
    ("said", "meant"),
    [
        (body(), Asked("Who?", "prag", 8, [], False, False)),
        (body(max_tokens=16), Asked("Who?", "prag", 16, [], False, False)),
        (body(max_tokens=5, max_completion_tokens=3), Asked("Who?", "prag", 3, [], False, False)),
        (body(model="vanilla", temperature=0.0, top_p=0.9, n=1, user="me", stop=None, seed=3), None),
        (body(stream=True, stream_options={"include_usage": True}), Asked("Who?", "prag", 8, [], True, True)),
        (body(lorary={"passages": ["a/data_0"]}), Asked("Who?", "prag", 8, ["a/data_0"], False, False)),
        (body([{"type": "text", "text": "W"}, {"type": "text", "text": "ho?"}]), None),
        (body("京" * chat.MOST_CHARACTERS), Asked("京" * chat.MOST_CHARACTERS, "prag", 8, [], False, False)),
    ],
)
def test_what_is_said_is_what_is_asked(said, meant):
    found = read(said)
    assert found.question == "Who?" or meant
    assert meant is None or found == meant


def turns(*roles):
    return [{"role": role, "content": "Who?"} for role in roles]


@pytest.mark.parametrize(
    ("said", "status", "param"),
    [
        (b"{", 400, None),
        (b"\xff", 400, None),
        (b"[" * 100_000, 400, None),
        (b"[]", 400, None),
        (b'{"temperature": 1e999}', 400, None),
        (body(temperature=0.7), 400, "temperature"),
        (body(n=2), 400, "n"),
        (body(tools=[{}]), 400, "tools"),
        (body(response_format={"type": "json_object"}), 400, "response_format"),
        (body(sample=True), 400, "sample"),
        ({"messages": turns("user")}, 400, "model"),
        (body(model="gpt"), 404, "model"),
        (body(model="combine_routed"), 404, "model"),  # which is not served
        ({"model": "prag"}, 400, "messages"),
        (body() | {"messages": turns("system", "user")}, 400, "messages"),
        (body() | {"messages": turns("system")}, 400, "messages"),
        (body() | {"messages": []}, 400, "messages"),
        (body() | {"messages": ["Who?"]}, 400, "messages"),
        (body("  "), 400, "messages"),
        (body(3), 400, "messages"),
        (body("\ud800"), 400, "messages"),
        (body([{"type": "image_url", "image_url": {"url": "x"}}]), 400, "messages"),
        (body([{"type": "text", "text": 3}]), 400, "messages"),
        (body([]), 400, "messages"),
        (body("x" * (chat.MOST_CHARACTERS + 1)), 400, "messages"),
        (body(max_tokens=0), 400, "max_tokens"),
        (body(max_tokens=17), 400, "max_tokens"),
        (body(max_tokens=True), 400, "max_tokens"),
        (body(max_tokens=1.5), 400, "max_tokens"),
        (body(stream="yes"), 400, "stream"),
        (body(stream_options={"other": 1}), 400, "stream_options"),
        (body(lorary=[]), 400, "lorary"),
        (body(lorary={"top": 3}), 400, "lorary"),
        (body(größe=3), 400, "gr\\xf6\\xdfe"),
        (body(**{"\ud800": 1}), 400, "\\ud800"),
        (body(lorary={"passages": "a"}), 400, "lorary.passages"),
        (body(lorary={"passages": [3]}), 400, "lorary.passages"),
        (body(lorary={"passages": ["a"] * (chat.MOST_PASSAGES + 1)}), 400, "lorary.passages"),
    ],
)
def test_what_cannot_be_done_is_refused(said, status, param):
    with pytest.raises(Refused) as refused:
        read(said)
    error = refused.value.body()["error"]
    assert (refused.value.status, error["param"], error["type"]) == (status, param, "invalid_request_error")
    assert error["message"].endswith(".")
    json.dumps(error, ensure_ascii=False).encode()  # as it is sent


def test_a_reply_names_the_passages_and_what_they_were_for():
    answered = Answered("It is.", 3, 10, fakes.FOUND, fakes.FOUND[:1], 1)
    reply = chat.completion(fakes.asked(method="combine_routed"), answered)
    assert reply["model"] == "combine_routed"
    assert reply["choices"][0]["message"] == {"role": "assistant", "content": "It is.", "refusal": None}
    assert reply["usage"] == {"prompt_tokens": 10, "completion_tokens": 3, "total_tokens": 13}
    assert reply["lorary"]["passages"] == [
        {"name": one.name, "score": one.score, "text": one.text, "adapter": is_active, "in_prompt": is_in}
        for one, is_active, is_in in zip(fakes.FOUND, (True, False), (True, False), strict=True)
    ]
    icl = chat.completion(fakes.asked(method="icl"), Answered("", 0, 10, fakes.FOUND, [], 1))
    assert [one["adapter"] for one in icl["lorary"]["passages"]] == [False, False]


@pytest.mark.parametrize(("tokens", "reason"), [(7, "stop"), (8, "length")])
def test_an_answer_says_why_it_ends(tokens, reason):
    answered = Answered("It is.", tokens, 10, [], [], 1)
    assert chat.completion(fakes.asked(), answered)["choices"][0]["finish_reason"] == reason
    said = fakes.events(chat.events(fakes.asked(stream=True), answered))
    assert [one["choices"][0]["finish_reason"] for one in said] == [None, None, reason]
