"""What is said over HTTP, in the shapes of OpenAI's chat completions: requests, which are checked, replies, errors."""

import json
import secrets
import time
from dataclasses import dataclass
from typing import Any

from ..answer.ask import Found
from ..core.values import finite, is_text
from ..plan.methods import METHODS

MOST_BYTES = 64_000  # of a request
MOST_CHARACTERS = 8_000  # of a question
MOST_PASSAGES = 16  # that a request may name, one by one or a question's together

# What a request may say besides: nothing of it decides an answer; or no other value would be done justice to.
WITHOUT_EFFECT = {"user", "seed", "metadata", "store", "top_p", "safety_identifier", "prompt_cache_key"}
ONLY: dict[str, Any] = {
    "temperature": 0,
    "n": 1,
    "presence_penalty": 0,
    "frequency_penalty": 0,
    "logprobs": False,
    "stop": [],
    "tools": [],
    "response_format": {"type": "text"},
}
READ = {"model", "messages", "max_tokens", "max_completion_tokens", "stream", "stream_options", "lorary"}


class Refused(Exception):
    """A request that gets no answer, and why; an error in OpenAI's shape."""

    def __init__(self, status: int, message: str, param: str | None = None, code: str | None = None, wait: int = 0):
        """`param`: which part of the request is wrong; `wait`: seconds, after which it may be sent again."""
        super().__init__(message)
        self.status, self.param, self.code, self.wait = status, param, code, wait

    def body(self) -> dict[str, Any]:
        kind = "invalid_request_error" if self.status < 500 else "server_error"
        return {"error": {"message": str(self), "type": kind, "param": self.param, "code": self.code}}


@dataclass(frozen=True)
class Asked:
    """A question that was sent."""

    question: str
    method: str  # of METHODS
    max_tokens: int
    passages: list[str]  # that were named; none: they are to be found
    stream: bool
    stream_usage: bool  # how many tokens it took, at the end of a stream too


@dataclass(frozen=True)
class Answered:
    text: str
    tokens: int
    prompt_tokens: int
    found: list[Found]
    active: list[Found]  # those of them whose adapters answered
    together: int  # how many questions were answered at once, this one among them


def read(body: bytes, methods: list[str], tokens: int, most_tokens: int) -> Asked:
    """A request's body, checked: `methods` can be asked, with `tokens` where it says nothing, `most_tokens` at most.
    Raises Refused."""
    try:
        said = json.loads(body, parse_float=finite)
    except (ValueError, RecursionError) as error:
        raise Refused(400, f"The body is no JSON: {error}.") from None
    if not isinstance(said, dict):
        raise Refused(400, "The body has to be a JSON object.")
    said = {key: value for key, value in said.items() if value is not None and key not in WITHOUT_EFFECT}
    for key, value in said.items():
        if key in ONLY and value != ONLY[key]:
            only = json.dumps(ONLY[key])
            raise Refused(400, f"{key}: only {only} is answered (answers are greedy, one a question).", key)
        if key not in ONLY and key not in READ:
            name = ascii(key[:50])  # JSON may have half characters, which no reply can
            raise Refused(400, f"{name} is not known here.", name[1:-1], "unknown_parameter")
    options = _object(said, "stream_options", {"include_usage"})
    return Asked(
        _question(said.get("messages")),
        _method(said.get("model"), methods),
        _tokens(said, tokens, most_tokens),
        _passages(_object(said, "lorary", {"passages"})),
        _flag(said, "stream"),
        _flag(options, "include_usage"),
    )


def _question(messages: Any) -> str:
    if not isinstance(messages, list) or len(messages) != 1 or not isinstance(messages[0], dict):
        raise Refused(
            400,
            "messages: exactly one is answered, the user's question. Adapters are trained for single questions: there"
            " is no place for a system message, or for what was said before.",
            "messages",
        )
    if messages[0].get("role") != "user":
        raise Refused(400, 'messages: its role has to be "user".', "messages")
    content = messages[0].get("content")
    if isinstance(content, list) and all(isinstance(part, dict) and part.get("type") == "text" for part in content):
        texts = [part.get("text") for part in content]
        content = "".join(texts) if all(map(is_text, texts)) else None
    if not isinstance(content, str) or not is_text(content) or not content.strip():
        raise Refused(400, "messages: its content has to be a question, as text.", "messages")
    if len(content) > MOST_CHARACTERS:
        raise Refused(
            400,
            f"messages: the question has {len(content)} characters, and {MOST_CHARACTERS} are the most.",
            "messages",
            "question_too_long",
        )
    return content


def _method(name: Any, methods: list[str]) -> str:
    if not isinstance(name, str) or name not in methods:
        raise Refused(
            404 if isinstance(name, str) else 400,
            f"model: it names how a question is answered: one of {', '.join(methods)}.",
            "model",
            "model_not_found",
        )
    return name


def _tokens(said: dict[str, Any], tokens: int, most: int) -> int:
    given = [key for key in ("max_completion_tokens", "max_tokens") if key in said]
    for key in given:
        value = said[key]
        if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= most:
            raise Refused(400, f"{key}: a whole number from 1 to {most}.", key)
    return min(said[key] for key in given) if given else min(tokens, most)


def _passages(lorary: dict[str, Any]) -> list[str]:
    names = lorary.get("passages", [])
    if not isinstance(names, list) or not all(map(is_text, names)) or len(names) > MOST_PASSAGES:
        raise Refused(400, f"lorary.passages: a list of names, {MOST_PASSAGES} at most.", "lorary.passages")
    return names


def _object(said: dict[str, Any], key: str, known: set[str]) -> dict[str, Any]:
    value = said.get(key, {})
    if not isinstance(value, dict) or not value.keys() <= known:
        raise Refused(400, f"{key}: an object with {' and '.join(sorted(known))}.", key)
    return value


def _flag(said: dict[str, Any], key: str) -> bool:
    if not isinstance(said.get(key, False), bool):
        raise Refused(400, f"{key}: true or false.", key)
    return said.get(key, False)


def completion(asked: Asked, answered: Answered) -> dict[str, Any]:
    """The reply to a question."""
    choice = {
        "index": 0,
        "message": {"role": "assistant", "content": answered.text, "refusal": None},
        "logprobs": None,
        "finish_reason": _finish(asked, answered),
    }
    return {
        **_head("chat.completion", asked),
        "choices": [choice],
        "usage": _usage(answered),
        "lorary": _lorary(asked, answered),
    }


def events(asked: Asked, answered: Answered) -> str:
    """The same as a stream of server-sent events, in which the answer is one piece: questions are answered together,
    and none is done before its batch is."""
    head = _head("chat.completion.chunk", asked)
    deltas = [
        ({"role": "assistant", "content": ""}, None),
        ({"content": answered.text}, None),
        ({}, _finish(asked, answered)),
    ]
    chunks: list[dict[str, Any]] = [
        {**head, "choices": [{"index": 0, "delta": delta, "logprobs": None, "finish_reason": reason}]}
        for delta, reason in deltas
    ]
    chunks[-1]["lorary"] = _lorary(asked, answered)
    if asked.stream_usage:
        chunks.append({**head, "choices": [], "usage": _usage(answered)})
    return "".join(f"data: {said}\n\n" for said in [*map(json.dumps, chunks), "[DONE]"])


def _head(kind: str, asked: Asked) -> dict[str, Any]:
    return {
        "id": f"chatcmpl-{secrets.token_hex(12)}",
        "object": kind,
        "created": int(time.time()),
        "model": asked.method,
    }


def _finish(asked: Asked, answered: Answered) -> str:
    return "length" if answered.tokens == asked.max_tokens else "stop"


def _usage(answered: Answered) -> dict[str, int]:
    prompt, own = answered.prompt_tokens, answered.tokens
    return {"prompt_tokens": prompt, "completion_tokens": own, "total_tokens": prompt + own}


def _lorary(asked: Asked, answered: Answered) -> dict[str, Any]:
    """Which passages were used, and for what."""
    method = METHODS[asked.method]
    passages = [
        {
            "name": passage.name,
            "score": passage.score,
            "text": passage.text,
            "adapter": method.adapters and passage in answered.active,
            "in_prompt": method.passages and passage.text is not None,
        }
        for passage in answered.found
    ]
    return {"passages": passages}


def models(methods: list[str], owner: str, created: int) -> dict[str, Any]:
    """The methods, as a client lists models."""
    return {"object": "list", "data": [model(name, owner, created) for name in methods]}


def model(name: str, owner: str, created: int) -> dict[str, Any]:
    title = METHODS[name].title
    return {"id": name, "object": "model", "created": created, "owned_by": owner, "lorary": {"title": title}}
