"""The benchmark of serving: questions one by one, and over HTTP from 1, 8 and 32 clients at once; and what becomes of
them at a SIGTERM.

Clients ask the next question when they have the answer to the last. Each text is compared with what the same question
gets one by one, without a server (`python -m benchmarks.serve`, which reads the arguments of `one_by_one` as JSON).
"""

import contextlib
import http.client
import json
import logging
import os
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

from benchmarks.machine import in_a_process, machine
from lorary.core.device import cores
from lorary.data import rows as dataset

log = logging.getLogger("lorary.benchmarks")

METHOD = "prag"
DIFFERENT = 32  # questions, which are asked again and again
CLIENTS = {1: 32, 8: 96, 32: 192}  # how many at once, and how many requests they have in all
STOPS = 3  # servers that are told to end while as many clients as there are at most ask
PATIENCE = 600  # seconds for a server to start, to answer and to end


def bench_serve(table: str, adapter_dir: str, run: str, max_new_tokens: int, output: str) -> str:
    """Ask a run's adapters, below `adapter_dir`, the questions of the pairs of a table; write JSON. Returns a table for
    reading."""
    pairs = [pair["question"] for row in dataset.read(table, 0, None) for pair in row["pairs"]]
    questions = list(dict.fromkeys(pairs))[:DIFFERENT]
    log.info("%d questions one by one", len(questions))
    asked = {"adapter_dir": adapter_dir, "run": run, "questions": questions, "max_new_tokens": max_new_tokens}
    alone = in_a_process("benchmarks.serve", asked)
    asking = Asking(dict(zip(questions, alone["texts"], strict=True)), max_new_tokens)
    figures: dict[str, Any] = {"machine": machine(cores()), "max_new_tokens": max_new_tokens}
    figures["one_by_one"] = len(questions) / alone["seconds"]
    figures["clients"], figures["stops"] = {}, []
    with serving(adapter_dir, run) as (port, _, _):
        for clients, requests in CLIENTS.items():
            log.info("%d requests of %d clients", requests, clients)
            began, told = time.perf_counter(), asking.by(clients, port, requests)
            figures["clients"][str(clients)] = {
                "requests": requests,
                "a_second": requests / (time.perf_counter() - began),
                "median_seconds": statistics.median(told.seconds),
                "most_seconds": max(told.seconds),
                **told.counts(),
            }
    for i in range(STOPS):
        log.info("a SIGTERM, %d of %d", i + 1, STOPS)
        figures["stops"].append(_stop(asking, adapter_dir, run, max(CLIENTS)))
    Path(output).write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
    return _table(figures)


@dataclass
class Told:
    """What clients were told."""

    right: int = 0
    wrong: int = 0
    failed: int = 0  # replies that are no answers
    cut: int = 0  # connections that ended without a reply, or did not begin
    seconds: list[float] = field(default_factory=list)  # that each answer took

    def counts(self) -> dict[str, int]:
        return {name: value for name, value in vars(self).items() if isinstance(value, int)}


@dataclass
class Asking:
    texts: dict[str, str]  # by question, what is right
    max_tokens: int

    def by(self, clients: int, port: int, requests: float) -> Told:
        """What so many clients are told who have so many requests in all. One that is cut off asks no more."""
        told, lock, numbers = Told(), threading.Lock(), count()

        def ask() -> None:
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
            with contextlib.closing(connection):
                while (number := next(numbers)) < requests:
                    question = list(self.texts)[number % len(self.texts)]
                    began = time.perf_counter()
                    try:
                        status, said = _post(connection, question, self.max_tokens)
                    except (OSError, http.client.HTTPException):
                        with lock:
                            told.cut += 1
                        return
                    with lock:
                        told.seconds.append(time.perf_counter() - began)
                        if status != 200:
                            told.failed += 1
                        elif said["choices"][0]["message"]["content"] == self.texts[question]:
                            told.right += 1
                        else:
                            told.wrong += 1

        threads = [threading.Thread(target=ask) for _ in range(clients)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return told


def _post(connection: http.client.HTTPConnection, question: str, max_tokens: int) -> tuple[int, Any]:
    said = {"model": METHOD, "max_tokens": max_tokens, "messages": [{"role": "user", "content": question}]}
    headers = {"content-type": "application/json"}
    connection.request("POST", "/v1/chat/completions", json.dumps(said).encode(), headers)
    reply = connection.getresponse()
    return reply.status, json.loads(reply.read())


def _stop(asking: Asking, adapter_dir: str, run: str, clients: int) -> dict[str, int]:
    """Of a server that is told to end in the middle of it: what clients were told, what it says itself, and how it
    ended; `lost` are the questions that it took and of which no client has the answer."""
    with serving(adapter_dir, run) as (port, process, said):
        found: list[Told] = []
        asked = threading.Thread(target=lambda: found.append(asking.by(clients, port, float("inf"))))
        asked.start()
        _until(lambda: _health(port)["asked"] >= 2 * clients, process)
        process.send_signal(signal.SIGTERM)
        status = process.wait(PATIENCE)
        asked.join()
        (told,) = found
        taken = re.search(r"stopped: (\d+) questions", said())
        accepted = int(taken[1]) if taken else -1
        return {"status": status, "accepted": accepted, "lost": accepted - told.right - told.wrong, **told.counts()}


def _health(port: int) -> dict[str, Any]:
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)) as connection:
        connection.request("GET", "/health")
        return json.loads(connection.getresponse().read())


@contextlib.contextmanager
def serving(adapter_dir: str, run: str) -> Iterator[tuple[int, subprocess.Popen, Callable[[], str]]]:
    """A server's port, its process, and a function for what it has said."""
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    where = ["--adapter-dir", adapter_dir, "--run", run, "--port", "0"]
    with tempfile.TemporaryDirectory() as folder, Path(folder, "log").open("wb") as file:
        process = subprocess.Popen([sys.executable, "-m", "lorary", "serve", *where], stderr=file, env=environment)

        def said() -> str:
            return Path(folder, "log").read_text(encoding="utf-8")

        try:
            _until(lambda: " at http://" in said(), process, said)
            address = re.search(r"at http://127\.0\.0\.1:(\d+)/", said())
            assert address, said()
            yield int(address[1]), process, said
        finally:
            process.terminate()
            process.wait(PATIENCE)


def _until(condition: Callable[[], bool], process: subprocess.Popen, said: Callable[[], str] = str) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        if process.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError(f"the server has ended, or does not come on: {said()}")
        time.sleep(0.05)


def _table(figures: dict[str, Any]) -> str:
    alone = figures["one_by_one"]
    lines = [
        f"On {figures['machine']}: `{METHOD}`, at most {figures['max_new_tokens']} new tokens:",
        "",
        "| | requests a second | | median, longest reply | wrong, lost |",
        "| --- | --- | --- | --- | --- |",
        f"| one by one, without a server | {alone:.2f} | 1.0× | {1 / alone:.1f} s | |",
    ]
    for clients, one in figures["clients"].items():
        times = f"{one['median_seconds']:.1f}, {one['most_seconds']:.1f} s"
        lost = one["requests"] - one["right"] - one["wrong"]
        name = f"{clients} client{'s' if clients != '1' else ''}"
        rate = one["a_second"]
        lines.append(f"| {name} | {rate:.2f} | {rate / alone:.1f}× | {times} | {one['wrong']}, {lost} |")
    stops = figures["stops"]
    accepted, lost, wrong = (sum(stop[key] for stop in stops) for key in ("accepted", "lost", "wrong"))
    ends = ", ".join(str(stop["status"]) for stop in stops)
    lines += [
        "",
        f"SIGTERM while {max(CLIENTS)} clients asked, {len(stops)} times: of {accepted} questions that were accepted"
        f" {lost} were lost and {wrong} answered otherwise than one by one; exit status {ends}.",
    ]
    return "\n".join(lines) + "\n"


def one_by_one(adapter_dir: str, run: str, questions: list[str], max_new_tokens: int) -> dict[str, Any]:
    """What is served, without a server: the text of each question, alone in its batch, and the seconds of all."""
    from lorary.answer.ask import open_run
    from lorary.answer.predict import answerer
    from lorary.serve.chat import Answered, Asked
    from lorary.serve.library import Library

    with contextlib.closing(open_run(adapter_dir, run)) as opened:
        setting = opened.setting(opened.kinds)
        opened.index()
        some = opened.table["name"].iloc[0]
        with answerer(setting.model, setting.precision, cores(), setting.source, some) as ready:
            library, texts = Library(opened, setting, ready, top=3), []
            began = time.perf_counter()
            for question in questions:
                (reply,) = library.answer([Asked(question, METHOD, max_new_tokens, [], False, False)])
                assert isinstance(reply, Answered), reply
                texts.append(reply.text)
            return {"texts": texts, "seconds": time.perf_counter() - began}


if __name__ == "__main__":
    print(json.dumps(one_by_one(**json.loads(sys.stdin.read()))))
