"""The address of an OpenAI-compatible server, and what its errors mean, in words."""

import ipaddress
import json
import os
import re
import time
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from ..core.errors import LoraryError
from ..core.work import Fault

if TYPE_CHECKING:
    import openai

KEY = "OPENAI_API_KEY"  # environment variable
TO_CONNECT = 20  # seconds
MODELS = 20  # names in a message
# How servers say that a prompt is too long for the model.
TOO_LONG = re.compile(r"context|too long|too large|longer than|maximum.*length|tokens.* must be <", re.I | re.S)


class Endpoint:
    """A model at a server. The key is in the environment variable OPENAI_API_KEY where the server asks for one, and is
    never shown. Raises LoraryError where the URL or the key can be none."""

    def __init__(self, base_url: str, model: str, timeout: float):
        import openai

        self.model = model
        self.url = re.sub(r"//[^/]*@", "//", base_url.rstrip("/"))  # for people: without a password
        self.key = os.environ.get(KEY, "").strip()
        if not (self.key.isascii() and self.key.isprintable()):
            raise LoraryError(f"The environment variable {KEY} has letters that no key has.")
        waits = openai.Timeout(timeout, connect=min(timeout, TO_CONNECT))
        direct = _is_here(_host(base_url, self.url))  # not through a proxy, whatever the environment says of others
        try:
            http = openai.DefaultHttpxClient(trust_env=not direct, timeout=waits)
        except (ImportError, ValueError) as error:  # a kind of proxy that it does not know
            raise LoraryError(
                f"{self.url} cannot be asked through the proxy that the environment names: {error}"
            ) from None
        self.client = openai.OpenAI(
            api_key=self.key or "none", base_url=base_url, max_retries=0, timeout=waits, http_client=http
        )

    def fault(self, error: "openai.APIStatusError", answers: bool) -> Fault | None:
        """Why this request fails alone; None where it may be asked again. `answers`: whether the server has answered
        any. Raises LoraryError where it will answer none."""
        status, words = error.status_code, self.words(error)
        if status == 401:
            raise LoraryError(
                f"{self.url} does not take the key in the environment variable {KEY} (401): is it that server's?"
                if self.key
                else f"{self.url} asks for a key (401): set the environment variable {KEY}."
            )
        if status == 403:
            raise LoraryError(f"{self.url} refuses {self.model} to the key in {KEY} (403: {words}).")
        if status == 402 or error.code == "insufficient_quota":
            raise LoraryError(f"{self.url} asks to be paid ({status}: {words}). Then the same command goes on.")
        if status in (404, 405) or (status == 400 and not answers and self.model in words):
            raise LoraryError(self._not_there(f"{status}: {words}"))
        if status in (408, 409, 429) or status >= 500:
            return None
        if status == 413 or TOO_LONG.search(words):
            return Fault(f"it is too long for {self.model} at {self.url} ({words})")
        return Fault(f"{self.url} refuses it ({status}: {words})")

    def trouble(self, error: "openai.APIConnectionError | openai.APIStatusError") -> str:
        """What may pass, and what to do about it."""
        import openai

        if isinstance(error, openai.APITimeoutError):
            return f"{self.url} does not answer in time. Give it more time, or ask it for fewer at once."
        if isinstance(error, openai.APIConnectionError):
            reason = self.short(str(error.__cause__ or error))
            return f"{self.url} cannot be reached ({reason}). Is the server running, and the address right?"
        words = f"({error.status_code}: {self.words(error)})"
        if error.status_code == 429:
            return f"{self.url} limits how much it is asked {words}. Ask it for fewer at once, or later."
        return f"{self.url} has a fault {words}. See its log."

    def words(self, error: "openai.APIStatusError") -> str:
        """What the server says of an error."""
        body = error.body
        said = body.get("message") or body.get("detail") if isinstance(body, dict) else None
        return self.short(str(said or body or error.response.reason_phrase))

    def short(self, text: str) -> str:
        """What a server sends, for a message: without the key."""
        text = " ".join(text.split())
        text = text.replace(self.key, "***") if self.key else text
        return text if len(text) <= 200 else text[:200] + "..."

    def about_url(self) -> str:
        """A hint, where nothing at this server is as it should be."""
        return "" if self.url.endswith("/v1") else f" The URL of most servers ends in /v1: try {self.url}/v1"

    def _not_there(self, words: str) -> str:
        names = self._models()
        if names and self.model not in names:
            more = ", ..." if len(names) > MODELS else ""
            return f"{self.url} has no model {self.model}; it has {', '.join(names[:MODELS])}{more}."
        return f"{self.url} does not answer for {self.model} ({words}). Is the URL right?{self.about_url()}"

    def _models(self) -> list[str]:
        """Those that the server says it has; none where it does not say."""
        import openai

        try:
            sent = self.client.models.with_raw_response.list()
            return [str(model["id"]) for model in json.loads(sent.content)["data"]]
        except (openai.OpenAIError, ValueError, LookupError, TypeError):
            return []


def retry_after(error: "openai.APIStatusError") -> float:
    """The seconds that a server asks to wait; 0 where it does not say."""
    value = error.response.headers.get("retry-after", "")
    try:
        seconds = float(value) if value[:1].isdigit() else parsedate_to_datetime(value).timestamp() - time.time()
    except ValueError:
        return 0
    return max(0, seconds)


def _host(base_url: str, shown: str) -> str:
    """Raises LoraryError where this is no URL of a server."""
    try:
        parts = urlsplit(base_url)
        good = parts.scheme in ("http", "https") and parts.hostname and (parts.port or True)
    except ValueError:
        good = False
    if not good or re.search(r"\s", base_url):
        raise LoraryError(f"{shown} is no URL of a server: one is like http://localhost:8000/v1.")
    return str(parts.hostname)


def _is_here(host: str) -> bool:
    """Whether this is a name of the machine itself."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")
    return address.is_loopback or address.is_unspecified
