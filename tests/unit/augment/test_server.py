"""Servers that fail, stall, limit and talk nonsense lose no passage, and are asked nothing twice that they answered."""

import contextlib
import email.utils
import os
import random
import signal
import subprocess
import sys
import threading
import time

import pytest

import fake_server
import tiny
from fake_server import FakeServer, completion, echo, error, limited
from lorary.augment import server
from lorary.augment.server import Server
from lorary.augment.talk import Reply, Request
from lorary.core import stop, work
from lorary.core.errors import LoraryError
from lorary.core.work import Fault, Item
from project import wait_until

HELLO = Request("Say {what}.", {"what": "hello"}, 20)
STORM = (limited("0.02"), limited(), (500, {}, error("Out of order")), "drop", "half", "stall", "babble", "nothing")


@pytest.fixture(autouse=True)
def surroundings(monkeypatch, caplog):
    """Waits are short, and no key of the caller's is used."""
    monkeypatch.setattr(server, "FIRST_WAIT", 0.01)
    monkeypatch.setattr(server, "LONGEST_WAIT", 0.05)
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    caplog.set_level("DEBUG", "lorary")


def in_turn(*acts):
    """Each request gets the next of these, and an answer after the last."""
    return lambda number, body: acts[number] if number < len(acts) else "answer"


def always(act):
    return lambda number, body: act


def client(fake, **given):
    given = {"at_once": 4, "timeout": 5, "patience": 5, **given}
    return Server(given.pop("base_url", fake.url), given.pop("model", "fake"), **given)


def talk(name, rounds=2):
    """Three requests: two, and one with what they brought."""
    first = yield [Request("{x} one", {"x": name}, 9), Request("{x} two", {"x": name}, 9)]
    for _ in range(rounds - 1):
        if any(isinstance(reply, Fault) for reply in first):
            return Fault("it has no reply")
        first = yield [Request("{a}, {b}", {"a": first[0].text, "b": first[1].text}, 9)]
    return first[0].text


def talks(count):
    return [(Item(f"key{i}", f"passage {i}"), talk(f"p{i}")) for i in range(count)]


def outcome(i):
    return f"re: re: p{i} one, re: p{i} two"


# What is asked, and what comes back.


def test_a_request_is_put_as_servers_expect_it():
    with FakeServer(speaker=echo) as fake:
        asked = client(fake)
        assert asked.write(HELLO) == Reply("re: Say hello.", True, 10, 4)
        # braces of a value are no fields; a seed of more bits than servers take
        drawn = Request("{t}", {"t": "{t} {"}, 30, stop="\n", seed=2**40 + 5, temperature=0.3)
        asked.write(drawn)
    likeliest, drawn = (entry["body"] for entry in fake.asked)
    assert likeliest == {
        "model": "fake",
        "messages": [{"role": "user", "content": "Say hello."}],
        "temperature": 0,
        "max_tokens": 20,
    }
    assert drawn["messages"][0]["content"] == "{t} {"
    assert {name: drawn[name] for name in ("temperature", "seed", "stop", "max_tokens")} == {
        "temperature": 0.3,
        "seed": 5,
        "stop": "\n",
        "max_tokens": 30,
    }


def test_a_reply_that_was_cut_is_not_finished():
    with FakeServer(always("cut"), echo) as fake:
        assert client(fake).write(HELLO) == Reply("re: S", False, 10, 4)


def test_a_reply_ends_at_its_stop_though_the_server_goes_on():
    with FakeServer(in_turn("answer", "cut", "empty"), lambda body: "a\nb and more") as fake:
        asked, request = client(fake), Request("x", {}, 9, stop="\n")
        assert [asked.write(request) for _ in range(3)] == [
            Reply("a", True, 10, 4),
            Reply("a", True, 10, 4),
            Reply("", True, 10, 4),  # it ended at once
        ]


# What may pass is asked again.


@pytest.mark.parametrize(
    "act",
    [
        *(limited(), limited("0"), limited("soon"), (408, {}, error("Late")), (409, {}, error("Busy"))),
        *((500, {}, error("Out of order")), (503, {}, b"<html>Bad gateway</html>"), "drop", "half"),
        *("babble", "page", "list", "no_choices", "nothing", "empty"),
    ],
    ids=str,
)
def test_what_may_pass_is_asked_again(act, caplog):
    with FakeServer(in_turn(act, act), echo) as fake:
        asked = client(fake)
        assert asked.write(HELLO).text == "re: Say hello."
    assert len(fake.asked) == 3
    assert (asked.usage.requests, asked.usage.retries) == (1, 2)
    said = [record for record in caplog.records if "asked again" in record.message]
    assert [record.levelname for record in said] == ["WARNING", "DEBUG"]  # one line for a person


def test_a_server_that_stalls_is_asked_again():
    with FakeServer(in_turn("stall"), echo) as fake:
        assert client(fake, timeout=0.2).write(HELLO).text == "re: Say hello."
    assert len(fake.asked) == 2


@pytest.mark.parametrize(  # with names, since the workers of make test have to collect the same ones
    "after",
    ["0.3", "in words", email.utils.formatdate(time.time() + 3600, usegmt=True)],
    ids=["seconds", "words", "date"],
)
def test_a_server_that_says_how_long_to_wait_is_heard(after, monkeypatch):
    waits = []
    with FakeServer(in_turn(limited(after)), echo) as fake:
        asked = client(fake, patience=0.5)
        monkeypatch.setattr(asked._stopped, "wait", waits.append)
        asked.write(HELLO)
    low, high = {"0.3": (0.3, 0.4), "in words": (0, 0.02)}.get(after, (0.4, 0.5))  # no longer than its patience
    assert low <= waits[0] <= high


def test_waits_are_doubled_up_to_the_longest(monkeypatch):
    monkeypatch.setattr(server, "FIRST_WAIT", 1)
    monkeypatch.setattr(server, "LONGEST_WAIT", 60)
    waits = []
    with FakeServer(in_turn(*[limited()] * 9), echo) as fake:
        asked = client(fake, patience=600)
        monkeypatch.setattr(asked._stopped, "wait", waits.append)
        asked.write(HELLO)
    assert all(low <= wait <= 1.25 * low for low, wait in zip([1, 2, 4, 8, 16, 32, 60, 60, 60], waits, strict=True))


def test_nonsense_without_end_fails_that_request_alone():
    with FakeServer(always("page"), echo) as fake:
        fault = client(fake, base_url=fake.url.removesuffix("/v1") + "/v1/").write(HELLO)
    assert fault == Fault(f"{fake.url} sends what is no JSON: <html><body>Welcome!</body></html> (3 times).")
    assert len(fake.asked) == 3


# What does not pass, in words.


def test_a_server_that_is_not_there_is_named():
    with FakeServer() as fake:
        pass
    words = rf"{fake.url} cannot be reached \(.*refused\)\. Is the server running.*Asked \d+ times in 0\.1 s"
    with pytest.raises(LoraryError, match=words):
        client(fake, patience=0.1).write(HELLO)


@pytest.mark.parametrize(
    ("act", "words"),
    [
        (limited(), r"limits how much it is asked \(429: Slow down\)\. Ask it for fewer at once"),
        ((503, {}, error("Loading model")), r"has a fault \(503: Loading model\)\. See its log"),
        ("stall", r"does not answer in time\. Give it more time"),
    ],
    ids=str,
)
def test_patience_ends_in_words(act, words):
    with FakeServer(always(act)) as fake, pytest.raises(LoraryError, match=words + r".*What was finished is kept"):
        client(fake, patience=0.1, timeout=0.2).write(HELLO)


def test_a_key_is_sent_and_never_shown(monkeypatch, caplog):
    with FakeServer(key="sk-right-one") as fake:
        with pytest.raises(LoraryError, match=r"asks for a key \(401\): set the environment variable OPENAI_API_KEY"):
            client(fake).write(HELLO)
        monkeypatch.setenv("OPENAI_API_KEY", "sk-wrong-one")
        with pytest.raises(
            LoraryError, match="does not take the key in the environment variable OPENAI_API_KEY"
        ) as told:
            client(fake).write(HELLO)
        monkeypatch.setenv("OPENAI_API_KEY", "sk-right-one\n")
        assert client(fake).write(HELLO).text == "A fixed text."
        fake.temper = in_turn(
            None, (403, {}, error("sk-right-one is not for here")), (400, {}, b"Bearer sk-right-one?")
        )
        with pytest.raises(LoraryError, match=r"refuses fake to the key in OPENAI_API_KEY \(403: \*\*\* is not"):
            client(fake).write(HELLO)
        assert client(fake).write(HELLO) == Fault(f"{fake.url} refuses it (400: Bearer ***?)")
    assert "sk-" not in caplog.text + str(told.value)


@pytest.mark.parametrize("key", ["sk-ä", "sk-\x07"])
def test_what_can_be_no_key_is_refused(key, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", key)
    with pytest.raises(LoraryError, match="OPENAI_API_KEY has letters that no key has"):
        Server("http://localhost:1/v1", "fake", 1)


@pytest.mark.parametrize("url", ["localhost:8000/v1", "", "ftp://a/v1", "http://", "http://a b/v1", "http://a:b/v1"])
def test_what_can_be_no_url_is_refused(url):
    with pytest.raises(LoraryError, match="is no URL of a server: one is like http://localhost:8000/v1"):
        Server(url, "fake", 1)


def test_a_password_in_the_url_is_not_shown():
    assert Server("http://me:secret@localhost:8/v1/", "fake", 1).endpoint.url == "http://localhost:8/v1"


def test_a_model_that_is_not_there_is_named_with_those_that_are():
    with FakeServer(models=("one", "two")) as fake:
        with pytest.raises(LoraryError, match=rf"{fake.url} has no model fake; it has one, two\."):
            client(fake).write(HELLO)
        fake.temper = always((400, {}, error("fake:free is not a valid model ID")))  # as some hosted ones have it
        with pytest.raises(
            LoraryError, match=r"does not answer for one \(400: .*valid model ID\)\. Is the URL right\?"
        ):
            fake.temper = always((400, {}, error("one is not a valid model ID")))
            client(fake, model="one").write(HELLO)


def test_a_url_without_its_end_is_told():
    with FakeServer() as fake:
        root = fake.url.removesuffix("/v1")
        words = rf"{root} does not answer for fake \(404: Not Found\)\. .* ends in /v1: try {root}/v1"
        with pytest.raises(LoraryError, match=words):
            client(fake, base_url=root).write(HELLO)


@pytest.mark.parametrize("act", [(402, {}, error("No credit")), (429, {}, error("Pay", code="insufficient_quota"))])
def test_what_has_to_be_paid_is_not_waited_for(act):
    with FakeServer(always(act)) as fake, pytest.raises(LoraryError, match="asks to be paid"):
        client(fake).write(HELLO)
    assert len(fake.asked) == 1


@pytest.mark.parametrize(
    "words",
    [
        "This model's maximum context length is 2048 tokens. However, you requested 5000 tokens.",
        "'max_tokens' is too large: 900. This model's maximum context length is 2048 tokens.",
        "the request exceeds the available context size. try increasing the context size",
        "The decoder prompt (length 5000) is longer than the maximum model length of 2048.",
    ],
)
def test_a_passage_that_is_too_long_fails_alone(words):
    with FakeServer(in_turn((400, {}, error(words))), echo) as fake:
        asked = client(fake)
        fault = asked.write(Request("x", {}, 9))
        assert fault.reason.startswith(f"it is too long for fake at {fake.url} ({words[:40]}")
        assert asked.write(HELLO).text == "re: Say hello."
    assert len(fake.asked) == 2


# What a server does not take.


def picky(name, status=400, words="Unsupported parameter: '{}'"):
    def temper(number, body):
        return (status, {}, error(words.format(name))) if name in body else "answer"

    return temper


@pytest.mark.parametrize(
    ("temper", "name"),
    [
        (picky("max_tokens", words="'{}' is not supported with this model. Use 'max_completion_tokens'"), "max_tokens"),
        (picky("temperature", status=422), "temperature"),
        (picky("seed"), "seed"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_a_server_does_not_take_is_left_out_from_then_on(temper, name, caplog):
    with FakeServer(temper, echo) as fake:
        asked, request = client(fake), Request("x", {}, 9, seed=3)
        assert [asked.write(request).text for _ in range(3)] == ["re: x"] * 3
    assert [name in entry["body"] for entry in fake.asked] == [True, False, False, False]
    assert all(("max_completion_tokens" in entry["body"]) == (name == "max_tokens") for entry in fake.asked[1:])
    assert caplog.messages.count(f"{fake.url} does not take {name}: it is asked without") == 1


def test_a_refusal_of_one_text_leaves_the_others_as_they_are():
    def temper(number, body):
        return (400, {}, error("Content policy")) if "bad" in body["messages"][0]["content"] else "answer"

    with FakeServer(temper, echo) as fake:
        asked = client(fake)
        assert asked.write(Request("bad", {}, 9, seed=1)).reason == f"{fake.url} refuses it (400: Content policy)"
        asked.write(Request("good", {}, 9, seed=1))
    assert {"max_tokens", "temperature", "seed"} <= fake.asked[-1]["body"].keys()


# Counting.


def test_tokens_and_cost_are_counted(caplog):
    with FakeServer(in_turn("nothing", "answer"), echo) as fake:
        asked = client(fake, prices=(1000, 10000))
        asked.write(HELLO)
        asked.log_usage()
    assert asked.usage == server.Usage(requests=1, retries=1, prompt_tokens=20, completion_tokens=8, cost=0.1)
    assert caplog.messages[-1] == (
        f"fake at {fake.url}: 1 requests, 1 tries more, 20 tokens read, 8 written, 0.1000 dollars"
    )


def test_what_the_server_says_of_cost_counts():
    sent = completion("yes")
    sent["usage"] = {"prompt_tokens": None, "cost": 0.25}
    with FakeServer(in_turn((200, {}, sent), (200, {}, {**sent, "usage": "much"}))) as fake:
        asked = client(fake, prices=(1, 1))
        assert [asked.write(HELLO).tokens for _ in range(2)] == [0, 0]
    assert asked.usage.cost == 0.25


def test_while_it_lasts_the_tokens_are_told_now_and_then(caplog, monkeypatch):
    monkeypatch.setattr(server, "TOLD_EVERY", 0)
    with FakeServer() as fake:
        client(fake).write(HELLO)
    assert any("1 requests" in message for message in caplog.messages)


# Many talks at a time.


def test_talks_go_side_by_side_and_no_more_is_in_flight_than_may_be():
    def temper(number, body):
        time.sleep(random.Random(number).random() / 50)
        return "answer"

    with FakeServer(temper, echo) as fake:
        done = list(client(fake, at_once=5).converse(talks(20)))
    assert all(len(some) == 1 for some in done)
    assert {item.key: result for [(item, result)] in done} == {f"key{i}": outcome(i) for i in range(20)}
    assert (fake.most_at_once, len(fake.asked)) == (5, 60)


def test_many_threads_may_write_and_no_more_is_in_flight_than_may_be():
    def temper(number, body):
        time.sleep(0.02)
        return "answer"

    with FakeServer(temper) as fake:
        asked = client(fake, at_once=2)
        threads = [threading.Thread(target=asked.write, args=(HELLO,)) for _ in range(9)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert (fake.most_at_once, asked.usage.requests) == (2, 9)


def test_an_item_is_taken_when_there_is_room():
    taken = []

    def items():
        for pair in talks(9):
            taken.append(pair[0].key)
            yield pair

    with FakeServer(speaker=echo) as fake:
        for count, _ in enumerate(client(fake, at_once=2).converse(items()), 1):
            assert len(taken) <= count + 2
    assert len(taken) == 9


def test_a_storm_loses_no_passage_and_what_was_answered_is_not_asked_again(monkeypatch):
    """Faults of every kind, for more than half of the requests."""
    monkeypatch.setattr(server, "NONSENSE", 99)
    with FakeServer(fake_server.stormy(14, STORM, calm=0.45), echo) as fake:
        asked = client(fake, at_once=16, timeout=1, patience=60)
        done = {item.key: result for some in asked.converse(talks(40)) for item, result in some}
    assert done == {f"key{i}": outcome(i) for i in range(40)}
    assert set(fake.answered().values()) == {1}
    assert len(fake.asked) > 240
    assert {str(act[0]) if isinstance(act, tuple) else act for act in STORM} < {str(one["act"]) for one in fake.asked}


def test_calls_until_a_storm_is_over_make_no_passage_twice(tmp_path):
    """Nonsense three times over fails a passage, and a server that breaks down ends a call: the next one goes on."""
    storm, calls, failed = fake_server.stormy(3, STORM, calm=0.45), 0, {}

    def temper(number, body):
        return storm(number, body) if number // 60 % 2 else "answer" if number % 60 < 30 else (402, {}, error("Pay"))

    with FakeServer(temper, echo) as fake:
        for calls in range(1, 300):  # noqa: B007 (of a slow one, one request is enough to end it while it is out of money)
            failed.clear()
            before = kept_in(tmp_path)
            start = len(fake.asked)
            with contextlib.suppress(LoraryError):
                finish(fake, tmp_path, 25, failed, at_once=8, timeout=0.2, patience=60)
            asked_now = "".join(entry["body"]["messages"][0]["content"] for entry in fake.asked[start:])
            assert not any(f"p{key.removeprefix('key')} " in asked_now for key in before)
            if len(kept_in(tmp_path)) == 25:
                break
    assert kept_in(tmp_path) == {f"key{i}": outcome(i) for i in range(25)}
    assert not failed
    assert calls > 2


def kept_in(folder):
    return work.Journal(str(folder / "j.jsonl")).results


def finish(fake, folder, count, failed, **given):
    """As a job does it."""

    @contextlib.contextmanager
    def begin():
        asked = client(fake, **given)
        yield lambda items: asked.converse((item, talk(f"p{item.content}")) for item in items)

    items = [Item(f"key{i}", f"passage {i}", i) for i in range(count)]
    work.finish(items, work.Journal(str(folder / "j.jsonl")), failed, begin, ("passage", "passages"))


def test_a_talk_that_fails_does_so_alone():
    def refuses():
        raise LoraryError("not this one")
        yield []

    def asks_nothing():
        replies = yield []
        return replies

    with FakeServer(always((400, {}, error("Content policy"))), echo) as fake:
        pairs = [(Item("a", ""), refuses()), (Item("b", ""), talk("p")), (Item("c", ""), asks_nothing())]
        done = {item.key: result for some in client(fake).converse(pairs) for item, result in some}
    assert done == {"a": Fault("not this one"), "b": Fault("it has no reply"), "c": []}


def test_when_the_server_breaks_down_what_is_done_is_kept():
    two = threading.Event()

    def temper(number, body):
        if "p3 two" not in body["messages"][0]["content"]:
            return "answer"
        two.wait()
        return 401, {}, error("no")

    with FakeServer(temper, echo) as fake:
        done = []
        with pytest.raises(LoraryError, match="asks for a key"):
            for some in client(fake, at_once=2).converse(talks(40)):
                done += some
                if len(done) == 2:
                    two.set()
        while at_work():
            time.sleep(0.01)
    assert len(done) >= 2
    assert len(fake.asked) < 20
    assert all(result == outcome(int(item.key.removeprefix("key"))) for item, result in done)


def test_what_is_done_while_the_server_breaks_down_is_kept_too():
    first, refused = threading.Event(), threading.Event()

    def temper(number, body):
        name = body["messages"][0]["content"]
        if name == "refused":
            first.wait()
            refused.set()
            return 401, {}, error("no")
        if name == "second":
            refused.wait()
            time.sleep(0.1)
        return "answer"

    def short_talk(name):
        (reply,) = yield [Request(name, {}, 9)]
        return reply.text

    with FakeServer(temper, echo) as fake:
        asked, done = client(fake), []
        with pytest.raises(LoraryError, match="asks for a key"):
            for some in asked.converse((Item(name, name), short_talk(name)) for name in ("first", "second", "refused")):
                done += some
                first.set()
                while asked.usage.requests < 2:  # as where storing takes its time
                    time.sleep(0.05)
    assert [result for _, result in done] == ["re: first", "re: second"]


def test_a_bug_in_a_thread_is_no_hang(monkeypatch):
    monkeypatch.setattr(server, "fill", lambda *_, **__: 1 / 0)
    with FakeServer() as fake, pytest.raises(ZeroDivisionError):
        list(client(fake).converse(talks(3)))


# A stop.


def test_a_stop_is_after_what_is_in_hand(tmp_path):
    def temper(number, body):
        if number == 3:
            os.kill(os.getpid(), signal.SIGINT)
        return "answer"

    with (
        FakeServer(temper, echo) as fake,
        pytest.raises(LoraryError, match=r"Stopped after \d+ of 40 passages: they are"),
    ):
        finish(fake, tmp_path, 40, {}, at_once=2)
    kept = len(kept_in(tmp_path))
    assert 1 <= kept < 10
    assert len(fake.asked) == 3 * kept


@pytest.mark.parametrize("act", ["stall", limited("60")], ids=str)
def test_a_stop_does_not_wait_for_a_server_that_does_not_answer(act, tmp_path, monkeypatch):
    monkeypatch.setattr(stop, "PATIENCE", 0.2)

    def temper(number, body):
        if number == 3:
            os.kill(os.getpid(), signal.SIGINT)
        return act

    began = time.monotonic()
    with FakeServer(temper) as fake:
        with pytest.raises(LoraryError, match="Stopped after 0 of 40 passages"):
            finish(fake, tmp_path, 40, {}, timeout=60, patience=600)
        assert time.monotonic() - began < 3
        assert len(fake.asked) == 4
    while at_work() and time.monotonic() - began < 5:
        time.sleep(0.01)
    assert not at_work()


def at_work():
    return [thread for thread in threading.enumerate() if "_work" in thread.name]


def test_a_process_ends_though_requests_are_in_flight():
    program = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "from lorary.augment.server import Server\n"
        "from lorary.augment.talk import Request\n"
        "assert 'openai' not in sys.modules\n"  # which takes its time
        "def talk(): yield [Request('x', {}, 9)] * 3\n"
        "list(Server(sys.argv[2], 'fake', 2, timeout=60).converse([('item', talk())]))"
    )
    with FakeServer(always("stall")) as fake:
        process = subprocess.Popen(
            [sys.executable, "-c", program, str(tiny.ROOT / "workflow"), fake.url], stderr=subprocess.PIPE, text=True
        )
        while len(fake.asked) < 2 and process.poll() is None:
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=10)
    assert errors.endswith("KeyboardInterrupt\n")


# Where it runs.


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_a_server_on_this_machine_is_not_asked_through_a_proxy(host, monkeypatch):
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")  # where nothing is
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    with FakeServer() as fake:
        asked = client(fake, base_url=fake.url.replace("127.0.0.1", host))
        assert asked.write(HELLO).text == "A fixed text."
        with pytest.raises(LoraryError, match="cannot be reached"):  # others are
            client(fake, base_url="http://elsewhere.invalid/v1", patience=0.1).write(HELLO)


def test_a_proxy_that_cannot_be_used_is_told(monkeypatch):
    monkeypatch.setenv("all_proxy", "gopher://127.0.0.1:9")
    with pytest.raises(LoraryError, match=r"http://elsewhere/v1 cannot be asked through the proxy .*gopher"):
        Server("http://elsewhere/v1", "fake", 1)


def test_the_fake_server_runs_by_itself(tmp_path):
    port, log = tmp_path / "port", tmp_path / "log"
    command = [sys.executable, fake_server.__file__, "--port-file", port, "--log", log, "--speaker", "fake_server:echo"]
    process = subprocess.Popen([*command, "--temper", "stormy"])
    try:
        while not port.exists():
            assert process.poll() is None
            time.sleep(0.01)
        asked = Server(f"http://127.0.0.1:{port.read_text()}/v1", "fake", 4)
        assert [asked.write(HELLO).text for _ in range(5)] == ["re: Say hello."] * 5
        wait_until(lambda: log.read_text().count('"act": "answer"') == 5, process)  # it answers first, then notes it
    finally:
        process.kill()
        process.wait()
    assert len(log.read_text().splitlines()) > 5
