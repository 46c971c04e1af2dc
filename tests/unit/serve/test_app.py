"""What each path says, and what is refused at the door."""

import asyncio
import json
import logging
from concurrent.futures import ThreadPoolExecutor

import pytest
from starlette.testclient import TestClient

import fake_answers as fakes
from fake_answers import body
from lorary.serve import app, chat

ASK = "/v1/chat/completions"


@pytest.fixture
def answers():
    return fakes.Answers()


@pytest.fixture
def client(answers):
    """With `served`: what is served."""
    with ThreadPoolExecutor(1) as thread:
        what = fakes.served(answers, thread, hosts={"testserver", "[::1]"})
        with TestClient(app.build(what), raise_server_exceptions=False) as client:
            client.served = what
            yield client
        answers.may.set()


def refused(reply, status):
    assert reply.status_code == status
    assert reply.json()["error"].keys() == {"message", "type", "param", "code"}
    return reply.json()["error"]["message"]


def test_an_answer(client):
    reply = client.post(ASK, json=body("Who’s <b>?"))
    assert reply.status_code == 200
    assert reply.json()["choices"][0]["message"]["content"] == "Who’s <b>? <i>I</i>"
    assert [one["name"] for one in reply.json()["lorary"]["passages"]] == [one.name for one in fakes.FOUND]
    streamed = client.post(ASK, json=body("Who?", stream=True, stream_options={"include_usage": True}))
    assert streamed.headers["content-type"].startswith("text/event-stream")
    said = fakes.events(streamed.text)
    assert "".join(one["choices"][0]["delta"].get("content", "") for one in said[:-1]) == "Who? <i>I</i>"
    assert said[-2]["lorary"] == reply.json()["lorary"]
    assert (said[-1]["choices"], said[-1]["usage"]) == ([], reply.json()["usage"])
    assert client.get("/health").json() == {"status": "ok", "waiting": 0, "answering": 0, "asked": 2, "answered": 2}


def test_models_are_methods(client):
    listed = client.get("/v1/models").json()["data"]
    assert [one["id"] for one in listed] == fakes.METHODS
    assert client.get("/v1/models/prag").json() == listed[1]
    assert "There is no model" in refused(client.get("/v1/models/gpt"), 404)


def test_what_is_refused_is_refused_in_openais_shape(client):
    assert "nothing under this path" in refused(client.get("/v2"), 404)
    assert "another method" in refused(client.get(ASK), 405)
    assert "application/json" in refused(client.post(ASK, content=json.dumps(body())), 415)
    large = body("Who?", metadata={"x": "y" * chat.MOST_BYTES})
    assert "bytes" in refused(client.post(ASK, json=large), 413)
    assert "one of vanilla, prag, combine" in refused(client.post(ASK, json=body(model="gpt")), 404)
    assert client.get("/health").json()["asked"] == 0


def test_what_takes_too_long_and_what_finds_no_place_are_ended(client, answers):
    answers.may.clear()
    client.served.seconds = 0.2
    assert "more than 0.2 seconds" in refused(client.post(ASK, json=body()), 504)
    client.served.batches.most_waiting = 0
    reply = client.post(ASK, json=body())
    assert "ask again later" in refused(reply, 503)
    assert int(reply.headers["retry-after"]) >= 1
    answers.may.set()
    assert client.served.batches.waiting.__len__() == 0


def test_a_bug_is_told_without_its_traceback(client, monkeypatch):
    def bug(*_):
        raise ValueError("of ours")

    monkeypatch.setattr(chat, "read", bug)
    assert "see its log" in refused(client.post(ASK, json=body()), 500)


def test_every_reply_says_what_a_browser_may_do_with_it(client):
    for path in ("/", "/page.js", "/page.css", "/health", "/v2"):
        headers = client.get(path).headers
        assert headers["content-security-policy"].startswith("default-src 'none'")
        assert headers["x-content-type-options"] == "nosniff"
        assert "access-control-allow-origin" not in headers
    page = client.get("/").text
    assert "http" not in page.replace("https://", "http")
    assert "<script>" not in page


def test_a_name_that_is_not_this_servers_is_refused(client):
    assert "not reached under this name" in refused(client.get("/health", headers={"host": "evil.example:80"}), 421)
    assert "not reached under this name" in refused(client.get("/health", headers={"host": ""}), 421)
    for host in ("testserver:8000", "TESTSERVER", "[::1]", "[::1]:8000"):
        assert client.get("/health", headers={"host": host}).status_code == 200
    client.served.hosts = None
    assert client.get("/health", headers={"host": "any.example"}).status_code == 200


def test_a_line_in_the_log_for_each_request_without_what_was_asked(client, caplog):
    caplog.set_level(logging.INFO, "lorary.serve")
    client.post(ASK, json=body("a secret"))
    client.get("/no%0Awhere")
    asked, lost = caplog.messages
    assert asked.startswith("testclient POST /v1/chat/completions 200, 0.")
    assert asked.endswith(" s, prag, 3 tokens, 1 at once")
    assert lost.startswith("testclient GET /no%0Awhere 404, 0.")


@pytest.mark.parametrize("whole", [True, False], ids=["after its question", "within it"])
def test_whoever_hangs_up_leaves_no_question_behind(answers, whole):
    """As the server tells the application: a question, and then that the client has gone."""
    answers.may.clear()
    sent = json.dumps(body()).encode()
    scope = {
        "type": "http",
        "method": "POST",
        "path": ASK,
        "raw_path": ASK.encode(),
        "query_string": b"",
        "headers": [(b"content-type", b"application/json")],
    }

    async def run(thread):
        what = fakes.served(answers, thread)
        told = iter([{"type": "http.request", "body": sent, "more_body": not whole}, {"type": "http.disconnect"}])
        replies = []

        async def receive():
            if whole and replies == [] and what.batches.asked:
                while not what.batches.waiting:  # only then it goes
                    await asyncio.sleep(0.001)
            return next(told)

        async def send(message):
            replies.append(message)

        await app.build(what)(scope, receive, send)
        assert replies[0]["status"] == app.HUNG_UP
        assert not what.batches.waiting
        assert what.batches.asked == whole

    with ThreadPoolExecutor(1) as thread:
        asyncio.run(run(thread))
    assert answers.batches == []
