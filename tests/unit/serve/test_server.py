"""The server over a socket: with OpenAI's own client, and when it is told to end."""

import asyncio
import contextlib
import http.client
import json
import logging
import os
import signal
import socket
import threading
from concurrent.futures import ThreadPoolExecutor

import openai
import pytest

import fake_answers as fakes
from fake_answers import body
from lorary.answer.ask import Found
from lorary.core.errors import LoraryError
from lorary.serve import server

POST = "POST /v1/chat/completions HTTP/1.1"


def ask(url, said, connection=None):
    """Status and content of a reply."""
    connection = connection or http.client.HTTPConnection(url.removeprefix("http://").strip("/"), timeout=60)
    headers = {"content-type": "application/json"}
    connection.request("POST", "/v1/chat/completions", json.dumps(said).encode(), headers)
    reply = connection.getresponse()
    return reply.status, json.loads(reply.read())


def test_openais_client_reads_answers_streams_and_errors():
    with fakes.running(fakes.Answers()) as (_, url, _, _):
        client = openai.OpenAI(base_url=f"{url}v1", api_key="none", max_retries=0)
        assert [model.id for model in client.models.list()] == fakes.METHODS
        messages = [{"role": "user", "content": "Who?"}]
        reply = client.chat.completions.create(model="prag", messages=messages, max_completion_tokens=4)
        assert reply.choices[0].message.content == "Who? <i>I</i>"
        assert reply.usage.total_tokens == 13
        assert reply.lorary["passages"][0]["name"] == "total/data_0/passage_0"
        chunks = list(client.chat.completions.create(model="prag", messages=messages, stream=True))
        assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == "Who? <i>I</i>"
        assert chunks[-1].choices[0].finish_reason == "stop"
        with pytest.raises(openai.NotFoundError, match="one of vanilla, prag, combine"):
            client.chat.completions.create(model="gpt", messages=messages)
        with pytest.raises(openai.BadRequestError, match="temperature"):
            client.chat.completions.create(model="prag", messages=messages, temperature=1)


def test_what_was_accepted_is_answered_after_the_server_was_told_to_end(monkeypatch, caplog):
    """Also what comes over a connection that was open then."""
    caplog.set_level(logging.INFO, "lorary.serve")
    lingering = threading.Event()

    async def linger(_):
        lingering.set()
        assert await asyncio.to_thread(later.wait, 60)

    answers, later = fakes.Answers(), threading.Event()
    with fakes.running(answers) as (served, url, one, runs), ThreadPoolExecutor(8) as clients:
        open_ = http.client.HTTPConnection(url.removeprefix("http://").strip("/"), timeout=60)
        assert ask(url, body("first"), open_)[0] == 200
        answers.may.clear()
        replies = [clients.submit(ask, url, body(str(i))) for i in range(6)]
        fakes.wait_until(lambda: served.batches.asked == 7)
        monkeypatch.setattr(server, "_linger", linger)
        one.end()
        assert lingering.wait(60)
        with pytest.raises(ConnectionRefusedError):
            ask(url, body("a new one"))
        late = clients.submit(ask, url, body("on its way"), open_)
        fakes.wait_until(lambda: served.batches.asked == 8)
        later.set()
        answers.may.set()
        told = [reply.result(60) for reply in [*replies, late]]
        runs.join(60)
    assert not runs.is_alive()
    assert [status for status, _ in told] == [200] * 7
    said = [reply["choices"][0]["message"]["content"] for _, reply in told]
    assert said == [f"{question} <i>I</i>" for question in [*"012345", "on its way"]]
    assert (served.batches.asked, served.batches.answered) == (8, 8)
    assert "stopping: 6 questions are answered first" in caplog.messages


@pytest.mark.parametrize(
    ("signals", "status", "gave_up"),
    [
        ([signal.SIGTERM], 200, False),
        ([signal.SIGINT], 200, False),
        ([signal.SIGTERM, signal.SIGTERM], 200, False),  # as from Slurm, and passed on
        ([signal.SIGINT, signal.SIGINT], 503, True),
    ],
)
def test_signals_end_it_after_its_answers_and_a_second_ctrl_c_at_once(monkeypatch, signals, status, gave_up):
    """In this thread, which gets the signals."""
    monkeypatch.setattr(server, "LINGERING", 0)
    answers, replies = fakes.Answers(), []
    answers.may.clear()
    with server._listening("127.0.0.1", 0) as listener, ThreadPoolExecutor(1) as thread:
        served = fakes.served(answers, thread)
        one = server.Server(served)
        url = f"http://127.0.0.1:{listener.getsockname()[1]}/"

        def client():
            with ThreadPoolExecutor(1) as asking:
                reply = asking.submit(ask, url, body())
                fakes.wait_until(answers.begun.is_set)
                os.kill(os.getpid(), signals[0])
                fakes.wait_until(lambda: served.stopping)
                for number in signals[1:]:
                    os.kill(os.getpid(), number)
                fakes.wait_until(lambda: served.batches.given_up == gave_up)
                answers.may.set()
                replies.append(reply.result(60))

        asks = threading.Thread(target=client)
        asks.start()
        one.until_told(listener)
        asks.join(60)
    assert (replies[0][0], one.gave_up) == (status, gave_up)
    assert (served.batches.asked, served.batches.answered) == (1, not gave_up)


def send(url):
    """A client that sends a question, and reads nothing."""
    host, _, port = url.removeprefix("http://").strip("/").partition(":")
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    client.settimeout(10)
    client.connect((host, int(port)))
    content = json.dumps(body()).encode()
    head = f"{POST}\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {len(content)}\r\n\r\n"
    client.sendall(head.encode() + content)
    return client


@pytest.mark.parametrize("again", [False, True])
def test_a_client_that_does_not_read_its_reply_does_not_keep_it_from_ending(monkeypatch, again):
    """Nor where a second Ctrl-C does not wait for the time that a request may take."""
    for name in ("LINGERING", "UNREAD", "UNREAD_AT_ONCE"):
        monkeypatch.setattr(server, name, 0)
    monkeypatch.setattr(fakes, "FOUND", [Found("total/data_0/passage_0", "total", "long " * 4_000_000, 1.5)])
    with fakes.running(fakes.Answers()) as (served, url, one, runs), send(url):
        fakes.wait_until(lambda: served.batches.answered == 1)
        served.seconds = 3600 if again else 0
        one.end()
        fakes.wait_until(lambda: served.stopping)
        if again:
            one.handle_exit(signal.SIGINT, None)
        runs.join(15)
        assert (runs.is_alive(), one.gave_up) == (False, again)


def test_a_client_that_sends_on_before_its_reply_is_hung_up_on(monkeypatch):
    monkeypatch.setattr(server, "LINGERING", 0)
    answers = fakes.Answers()
    answers.may.clear()
    with fakes.running(answers) as (served, url, _, _), send(url) as client:
        fakes.wait_until(lambda: served.batches.asked == 1)
        client.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
        with contextlib.suppress(ConnectionResetError):
            assert client.recv(1) == b""
        answers.may.set()
        assert ask(url, body())[0] == 200


@pytest.mark.parametrize(
    ("host", "fault"),
    [
        ("127.0.0.1", "this port is taken: choose another with --port"),
        ("203.0.113.9", "this machine has no such address"),
        ("no such host", "this is no address"),
        ("a" * 70, "this is no address"),
    ],
)
def test_where_it_cannot_listen_it_says_so(host, fault):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with (
            pytest.raises(LoraryError, match=fault),
            server._listening(host, taken.getsockname()[1]),
        ):
            pass


@pytest.mark.parametrize(("host", "alone"), [("127.0.0.1", True), ("localhost", True), ("0.0.0.0", False)])
def test_it_says_who_can_reach_it(host, alone):
    with server._listening(host, 0) as listener:
        told = server._tell(listener)
        assert ("this machine alone" in told) == alone
        assert ("no password" in told) == (not alone)
        assert server._names(host, listener) == ({"localhost", "127.0.0.1", "[::1]", host} if alone else None)
