"""An OpenAI-compatible chat server that answers, fails, stalls and talks nonsense as it is told.

In a test: `with FakeServer(temper, speaker) as server: ... server.url ... server.asked`. As a process of its own, until
it is killed:

    python tests/fake_server.py --port-file FILE --log FILE --temper stormy --speaker module:function

A temper is a function from a request's number (from 0) and body to what is done with it: the name of an act below, or
(status, headers, content) to send. A speaker is a function from the body to the text of the reply.
"""

import argparse
import collections
import importlib
import json
import random
import socket
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

Body = dict
Temper = Callable[[int, Body], str | tuple]
Speaker = Callable[[Body], str]

ANSWER = "answer"  # the one act that gives what was asked for


def error(words: str, **more) -> Body:
    return {"error": {"message": words, "type": "fake", **more}}


def limited(after: str | None = None) -> tuple:
    """429, with that Retry-After."""
    return 429, {} if after is None else {"Retry-After": after}, error("Slow down")


def steady(number: int, body: Body) -> str:
    return ANSWER


def dead(number: int, body: Body) -> tuple:
    return 503, {}, error("Loading model")


def slow(number: int, body: Body) -> str:
    """Answers after half a second, so that there is always something in hand."""
    time.sleep(0.5)
    return ANSWER


def stormy(seed: int = 0, acts: tuple = (), calm: float = 0.5) -> Temper:
    """Answers a share `calm` of the requests, and does something of `acts` with the others: by chance, the same each
    time for a number."""
    choices = acts or (limited("0.05"), limited(), (500, {}, error("Out of order")), "drop", "half", "babble")

    def temper(number: int, body: Body) -> str | tuple:
        chance = random.Random(f"{seed} {number}")
        return ANSWER if chance.random() < calm else chance.choice(choices)

    return temper


def fixed(body: Body) -> str:
    return "A fixed text."


def echo(body: Body) -> str:
    return "re: " + body["messages"][-1]["content"]


def completion(text: str | None, reason: str = "stop") -> Body:
    usage = {"prompt_tokens": 10, "completion_tokens": 4, "total_tokens": 14}
    message = {"role": "assistant", "content": text}
    choices = [{"index": 0, "message": message, "finish_reason": reason}]
    return {
        "id": "fake",
        "object": "chat.completion",
        "created": 0,
        "model": "fake",
        "choices": choices,
        "usage": usage,
    }


class FakeServer(ThreadingHTTPServer):
    """Listens on `url` from the start, answers within `with`. `asked`: every chat request that came in with a right key
    and model, as {number, act, body, at (seconds)}; to `log` as JSON lines, when it has been dealt with."""

    daemon_threads = True
    block_on_close = False
    request_queue_size = 128

    def __init__(
        self,
        temper: Temper = steady,
        speaker: Speaker = fixed,
        models: tuple[str, ...] = ("fake",),
        key: str | None = None,
        log: str | None = None,
    ):
        super().__init__(("127.0.0.1", 0), Handler)
        self.temper, self.speaker, self.models, self.key, self.log = temper, speaker, models, key, log
        self.url = f"http://127.0.0.1:{self.server_address[1]}/v1"
        self.asked: list[dict] = []
        self.at_once = self.most_at_once = 0
        self.lock, self.closed = threading.Lock(), threading.Event()

    def __enter__(self) -> "FakeServer":
        threading.Thread(target=self.serve_forever, args=(0.005,), daemon=True).start()
        return self

    def __exit__(self, *_) -> None:
        self.closed.set()
        self.shutdown()
        self.server_close()

    def handle_error(self, request, client_address) -> None:
        """A client that is gone is nothing to print."""

    def answered(self) -> collections.Counter:
        """How often each user message was answered as it should be."""
        return collections.Counter(
            asked["body"]["messages"][-1]["content"] for asked in self.asked if asked["act"] == ANSWER
        )


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"  # connections are kept, as real servers keep them
    disable_nagle_algorithm = True  # which would have each reply wait for 40 ms
    server: FakeServer

    def log_message(self, *_) -> None:
        pass

    def do_GET(self) -> None:
        if self.path == "/v1/models":
            self.send(200, {"object": "list", "data": [{"id": name, "object": "model"} for name in self.server.models]})
        else:
            self.send(404, {"detail": "Not Found"})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.path != "/v1/chat/completions":
            return self.send(404, {"detail": "Not Found"})
        if self.server.key and self.headers["Authorization"] != f"Bearer {self.server.key}":
            return self.send(401, error(f"Incorrect API key provided: {self.headers['Authorization']}"))
        if body["model"] not in self.server.models:
            return self.send(404, error(f"The model `{body['model']}` does not exist."))
        with self.server.lock:
            number = len(self.server.asked)
            asked = {"number": number, "act": None, "body": body, "at": time.monotonic()}
            self.server.asked.append(asked)
            self.server.at_once += 1
            self.server.most_at_once = max(self.server.most_at_once, self.server.at_once)
        try:
            act = self.server.temper(number, body)
            asked["act"] = act if isinstance(act, str) else act[0]
            if isinstance(act, str):
                getattr(self, f"do_{act}")(body)
            else:
                status, headers, content = act
                self.send(status, content, **headers)
        finally:
            with self.server.lock:
                self.server.at_once -= 1
                if self.server.log:
                    with Path(self.server.log).open("a", encoding="utf-8") as file:
                        file.write(json.dumps(asked) + "\n")

    # The acts.

    def do_answer(self, body: Body) -> None:
        self.send(200, completion(self.server.speaker(body)))

    def do_cut(self, body: Body) -> None:
        """As where max_tokens is reached."""
        self.send(200, completion(self.server.speaker(body)[:5], "length"))

    def do_stall(self, body: Body) -> None:
        self.close_connection = True
        self.server.closed.wait()

    def do_drop(self, body: Body) -> None:
        self.close_connection = True
        self.connection.shutdown(socket.SHUT_RDWR)

    def do_half(self, body: Body) -> None:
        """The connection breaks within the reply."""
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", "1000")
        self.end_headers()
        self.wfile.write(b'{"choices": [{"mess')
        self.do_drop(body)

    def do_babble(self, body: Body) -> None:
        self.send(200, b"Sorry, I am having a bad day.")

    def do_page(self, body: Body) -> None:
        self.send(200, b"<html><body>Welcome!</body></html>", **{"Content-Type": "text/html"})

    def do_list(self, body: Body) -> None:
        self.send(200, [1, 2])

    def do_no_choices(self, body: Body) -> None:
        self.send(200, {"object": "chat.completion", "choices": []})

    def do_nothing(self, body: Body) -> None:
        self.send(200, completion(None))

    def do_empty(self, body: Body) -> None:
        self.send(200, completion(""))

    def send(self, status: int, content: object, **headers: str) -> None:
        data = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        for name, value in {"Content-Type": "application/json", "Content-Length": str(len(data)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)


TEMPERS: dict[str, Temper] = {"steady": steady, "slow": slow, "dead": dead, "stormy": stormy()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--port-file", required=True, help="gets the port as soon as it listens")
    parser.add_argument("--log", help="a JSON line for each request")
    parser.add_argument("--temper", choices=TEMPERS, default="steady")
    parser.add_argument("--speaker", default="fake_server:fixed", help="module:function, of this folder")
    parser.add_argument("--model", default="fake")
    parser.add_argument("--key")
    given = parser.parse_args()
    module, _, function = given.speaker.partition(":")
    speaker = getattr(importlib.import_module(module), function)
    with FakeServer(TEMPERS[given.temper], speaker, (given.model,), given.key, given.log) as server:
        port_file = Path(given.port_file)
        whole = port_file.with_name(port_file.name + ".part")
        whole.write_text(str(server.server_address[1]), encoding="utf-8")
        whole.replace(port_file)
        threading.Event().wait()


if __name__ == "__main__":
    main()
