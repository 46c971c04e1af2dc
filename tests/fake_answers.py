"""A server whose answers are made up, and its parts."""

import contextlib
import json
import threading
import time
from concurrent.futures import ThreadPoolExecutor

from lorary.answer.ask import Found
from lorary.serve import server
from lorary.serve.app import Served
from lorary.serve.batches import Batches
from lorary.serve.chat import Answered, Asked

METHODS = ["vanilla", "prag", "combine"]
FOUND = [
    Found("total/data_0/passage_0", "total", "A <b>drauvenel</b> & its keys.", 1.5),
    Found("total/data_1/passage_0", "total", None, None),
]


def asked(question="Who?", method="prag", max_tokens=8, stream=False, usage=False):
    return Asked(question, method, max_tokens, [], stream, usage)


def body(question="Who?", **others):
    return {"model": "prag", "messages": [{"role": "user", "content": question}], **others}


class Answers:
    """Answers each question with itself, while it may; and keeps which were asked together."""

    def __init__(self):
        self.may, self.begun = threading.Event(), threading.Event()
        self.may.set()
        self.batches = []

    def __call__(self, batch, wanted):
        self.batches.append([one.question for one in batch])
        self.begun.set()
        assert self.may.wait(60)
        return [Answered(f"{one.question} <i>I</i>", 3, 10, FOUND, FOUND[:1], len(batch)) for one in batch]


def served(answers, thread, waiting=8, seconds=60.0, hosts=None):
    return Served(Batches(answers, thread, waiting), METHODS, "tiny", 1, 8, 16, seconds, hosts)


@contextlib.contextmanager
def running(answers, **limits):
    """Yields what is served, the URL, the server and its thread, in which it is told to end at the end."""
    with server._listening("127.0.0.1", 0) as listener, ThreadPoolExecutor(1) as thread:
        what = served(answers, thread, **limits)
        one = server.Server(what)
        runs = threading.Thread(target=one.run, args=([listener],))
        runs.start()
        try:
            yield what, f"http://127.0.0.1:{listener.getsockname()[1]}/", one, runs
        finally:
            answers.may.set()
            one.end()
            runs.join(60)


def events(text):
    """What a stream of server-sent events says."""
    parts = text.split("\n\n")
    assert parts.pop() == ""
    assert parts.pop() == "data: [DONE]"
    return [json.loads(part.removeprefix("data: ")) for part in parts]


def wait_until(condition):
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)
