"""Requests answered by an OpenAI-compatible chat server: vLLM, llama.cpp's, or a hosted one.

`Server.converse` leads many talks at a time; `Server.write` asks for one reply until it is there, with the waits that
servers ask for.
"""

import itertools
import json
import logging
import random
import threading
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any

from ..core.errors import LoraryError
from ..core.work import Done, Fault, Item
from ..data.templates import fill
from .endpoint import TOO_LONG, Endpoint, retry_after
from .talk import Reply, Request, Talk

if TYPE_CHECKING:
    import openai

log = logging.getLogger(__name__)

FIRST_WAIT, LONGEST_WAIT = 1, 60  # seconds before a request is asked again: doubled each time
SAID_EVERY, TOLD_EVERY = 60, 300  # seconds, at least, between two lines about waiting, and about tokens
NONSENSE = 3  # replies that are none, before a request fails
# What a request can do without, where a server refuses it.
OPTIONAL = "max_tokens", "temperature", "seed", "stop"


@dataclass
class Usage:
    """What a server was asked, all together."""

    requests: int = 0  # that were answered
    retries: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cost: float = 0  # dollars, as far as the server or `prices` tells


class Server:
    """A model at an OpenAI-compatible server, whose key is in the environment variable OPENAI_API_KEY.

    At most `at_once` requests are in flight. One of which nothing comes for `timeout` seconds is asked again, and one
    that has no reply after `patience` seconds stops the job. `prices`: dollars for a million tokens read, and written.
    Raises LoraryError where the URL or the key can be none.
    """

    def __init__(
        self,
        base_url: str,
        model: str,
        at_once: int,
        timeout: float = 300,
        patience: float = 600,
        prices: tuple[float, float] | None = None,
    ):
        self.endpoint = Endpoint(base_url, model, timeout)
        self.at_once, self.patience, self.prices = at_once, patience, prices
        self.usage = Usage()
        self._free = threading.BoundedSemaphore(at_once)
        self._stopped = threading.Event()
        self._lock = threading.Lock()  # for `usage` and what follows
        self._refused: set[str] = set()  # of OPTIONAL
        self._said, self._told = -float("inf"), time.monotonic()

    def converse(self, items: Iterable[tuple[Item, Talk]]) -> Iterator[Done]:
        """Lead talks about items, many at a time, and yield each item with the result of its talk as soon as that is
        there. An item is taken when there is room for its requests.

        A talk that returns a Fault, or raises LoraryError, fails alone. Raises LoraryError where the server answers no
        more, after what was done by then. Thereafter, and when it is left before its end, nothing more is asked.
        """
        todo: SimpleQueue = SimpleQueue()  # conversation, number of the request in it, request
        replies: SimpleQueue = SimpleQueue()  # conversation, number of the request, reply or error
        for _ in range(self.at_once):
            threading.Thread(target=self._work, args=(todo, replies), daemon=True).start()  # nobody waits for these
        stream, out, broken = iter(items), 0, None
        try:
            while True:
                while not broken and out < self.at_once and (taken := next(stream, None)):
                    conversation = _Conversation(*taken)
                    out += conversation.go_on(todo)
                    yield from conversation.done()
                if broken and replies.empty():
                    raise broken
                if not out:
                    return
                conversation, number, reply = replies.get()
                out -= 1
                if isinstance(reply, Exception):
                    broken = broken or reply
                    self._stopped.set()
                    continue
                conversation.replies[number] = reply
                conversation.missing -= 1
                if not conversation.missing:
                    out += conversation.go_on(todo)
                    yield from conversation.done()
        finally:
            if out:
                self._stopped.set()
            for _ in range(self.at_once):
                todo.put(None)
            self.log_usage()

    def write(self, request: Request) -> Reply | Fault:
        """The reply to a request; a Fault where this one cannot be answered. `pattern` and `words_of` are not asked of
        a server. Many threads may call this. Raises LoraryError where the server answers no more."""
        import openai

        with self._free:
            without, began, nonsense = set(self._refused), time.monotonic(), 0
            for tries in itertools.count(1):
                after = 0.0
                try:
                    reply = self._reply(request, self._ask(request, without))
                    self._note_refused(without)
                    return reply
                except openai.APIStatusError as error:
                    if refused := self._refusal(error, request, without):
                        without.add(refused)
                        continue
                    if fault := self.endpoint.fault(error, answers=self.usage.requests > 0):
                        return fault
                    trouble, after = self.endpoint.trouble(error), retry_after(error)
                except openai.APIConnectionError as error:
                    trouble = self.endpoint.trouble(error)
                except _Nonsense as error:
                    trouble, nonsense = f"{self.endpoint.url} sends {error}", nonsense + 1
                    if nonsense == NONSENSE:
                        hint = "" if self.usage.requests else self.endpoint.about_url()
                        return Fault(f"{trouble} ({NONSENSE} times).{hint}")
                self._wait(tries, after, began, trouble)
        raise AssertionError("the loop has no end")

    def log_usage(self) -> None:
        """A line about what was asked so far."""
        used = self.usage
        where = f"{self.endpoint.model} at {self.endpoint.url}"
        tokens = f"{used.prompt_tokens:,} tokens read, {used.completion_tokens:,} written"
        cost = f", {used.cost:.4f} dollars" if used.cost else ""
        log.info(f"{where}: {used.requests:,} requests, {used.retries:,} tries more, {tokens}{cost}")

    def _work(self, todo: SimpleQueue, replies: SimpleQueue) -> None:
        while job := todo.get():
            conversation, number, request = job
            try:
                reply: Any = self.write(request)
            except Exception as error:  # for the thread that leads the talks
                reply = error
            replies.put((conversation, number, reply))

    def _ask(self, request: Request, without: set[str]) -> Any:
        """What the server sends, from JSON. Raises what the client raises, and _Nonsense."""
        if self._stopped.is_set():
            raise LoraryError(f"Nothing more is asked of {self.endpoint.url}.")
        wanted: dict[str, Any] = {
            "max_tokens": request.most_tokens,
            "temperature": 0 if request.seed is None else request.temperature,
            "seed": None if request.seed is None else request.seed % 2**31,  # not every server takes more bits
            "stop": request.stop,
        }
        optional = {name: value for name, value in wanted.items() if value is not None and name not in without}
        if "max_tokens" in without:
            optional["max_completion_tokens"] = request.most_tokens
        sent = self.endpoint.client.chat.completions.with_raw_response.create(
            model=self.endpoint.model,
            messages=[{"role": "user", "content": fill(request.template, **request.values)}],
            **optional,
        )
        try:
            return json.loads(sent.content)
        except (ValueError, RecursionError):
            text = sent.content.decode(errors="replace")
            raise _Nonsense(f"what is no JSON: {self.endpoint.short(text)}") from None

    def _reply(self, request: Request, sent: Any) -> Reply:
        """The reply in what was sent, and its tokens counted. Raises _Nonsense where there is none."""
        usage = sent.get("usage") if isinstance(sent, dict) else None
        read, written, cost = (_number(usage, name) for name in ("prompt_tokens", "completion_tokens", "cost"))
        if not cost and self.prices:
            cost = (read * self.prices[0] + written * self.prices[1]) / 1e6
        try:
            text, reason = sent["choices"][0]["message"].get("content"), sent["choices"][0].get("finish_reason")
        except (LookupError, TypeError, AttributeError):
            text = reason = None
        cut = reason in ("length", "content_filter")
        good = cut or (isinstance(text, str) and (text or request.stop))
        with self._lock:
            self.usage.requests += bool(good)
            self.usage.prompt_tokens += int(read)
            self.usage.completion_tokens += int(written)
            self.usage.cost += cost
            tell = time.monotonic() - self._told > TOLD_EVERY
            self._told = time.monotonic() if tell else self._told
        if tell:
            self.log_usage()
        if not good:
            raise _Nonsense(f"no text: {self.endpoint.short(json.dumps(sent))}")
        text, stop, _ = (text or "").partition(request.stop) if request.stop else (text or "", "", "")
        return Reply(text, finished=bool(stop) or not cut, prompt_tokens=int(read), tokens=int(written))

    def _refusal(self, error: "openai.APIStatusError", request: Request, without: set[str]) -> str | None:
        """What the server refuses of a request that can do without."""
        words = self.endpoint.words(error)
        if error.status_code not in (400, 422) or TOO_LONG.search(words):
            return None
        left = [name for name in OPTIONAL if name not in without]
        return next((name for name in left if name == getattr(error, "param", None) or name in words), None)

    def _note_refused(self, without: set[str]) -> None:
        with self._lock:
            new, self._refused = without - self._refused, self._refused | without
        for name in sorted(new):
            log.warning("%s does not take %s: it is asked without", self.endpoint.url, name)

    def _wait(self, tries: int, after: float, began: float, trouble: str) -> None:
        """Until a request may be asked again, or all is stopped. Raises LoraryError where it was asked long enough."""
        left = began + self.patience - time.monotonic()
        if left <= 0:
            raise LoraryError(
                f"{trouble} (Asked {tries} times in {self.patience:g} s.) What was finished is kept, and the same"
                " command goes on."
            )
        wait = min(FIRST_WAIT * 2 ** min(tries - 1, 30), LONGEST_WAIT)
        with self._lock:
            self.usage.retries += 1
            say = time.monotonic() - self._said > SAID_EVERY
            self._said = time.monotonic() if say else self._said
        log.log(logging.WARNING if say else logging.DEBUG, "%s It is asked again, for up to %.0f s.", trouble, left)
        spread = random.uniform(1, 1.25)  # noqa: S311 (so that not all come at once)
        self._stopped.wait(min(max(wait, after) * spread, left))


class _Nonsense(Exception):
    """A server has sent what is no reply."""


@dataclass
class _Conversation:
    item: Item
    talk: Talk
    replies: Any = None  # to the requests that were asked last
    missing: int = 0  # of those
    result: Any = None

    def go_on(self, todo: SimpleQueue) -> int:
        """Give the talk its replies, and put its next requests into `todo`. How many they are."""
        try:
            while not (requests := self.talk.send(self.replies)):
                self.replies = []
        except StopIteration as end:
            self.result, requests = end.value, []
        except LoraryError as error:
            self.result, requests = Fault(str(error)), []
        self.replies, self.missing = [None] * len(requests), len(requests)
        for number, request in enumerate(requests):
            todo.put((self, number, request))
        return len(requests)

    def done(self) -> Iterator[Done]:
        if not self.missing:
            yield [(self.item, self.result)]


def _number(usage: Any, name: str) -> float:
    value = usage.get(name) if isinstance(usage, dict) else None
    return value if isinstance(value, int | float) and 0 <= value < 1e12 else 0
