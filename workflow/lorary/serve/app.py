"""The server's paths, as an ASGI application: a page, /v1/chat/completions, /v1/models and /health.

All but answering happens in the event loop, which waits for nothing else.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Awaitable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from starlette.applications import Starlette
from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from . import chat
from .batches import Batches
from .chat import Refused

log = logging.getLogger(__name__)
T = TypeVar("T")

PAGE = {"/": "page.html", "/page.js": "page.js", "/page.css": "page.css"}
HEADERS = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self';"
    " img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cache-control": "no-store",
}
HUNG_UP = 499  # as nginx logs whoever did not wait for a reply


@dataclass
class Served:
    """What the paths know, and have counted."""

    batches: Batches
    methods: list[str]  # that can be asked
    owner: str  # the base model's name
    created: int  # when the run was finished, in seconds
    max_tokens: int  # of an answer, where a request does not say
    most_tokens: int  # that a request may say
    seconds: float  # that a request may take
    hosts: set[str] | None  # under which names this may be reached; None: any
    stopping: bool = False


def build(served: Served) -> ASGIApp:
    async def completions(request: Request) -> Response:
        try:
            async with asyncio.timeout(served.seconds):
                body = await _body(request)
                asked = chat.read(body, served.methods, served.max_tokens, served.most_tokens)
                answered = await _unless_hung_up(request, served.batches.put(asked))
        except TimeoutError:
            raise Refused(504, f"This took more than {served.seconds:g} seconds.", code="timeout") from None
        request.state.said = f", {asked.method}, {answered.tokens} tokens, {answered.together} at once"
        if asked.stream:
            return Response(chat.events(asked, answered), media_type="text/event-stream")
        return JSONResponse(chat.completion(asked, answered))

    async def models(request: Request) -> Response:
        return JSONResponse(chat.models(served.methods, served.owner, served.created))

    async def model(request: Request) -> Response:
        name = request.path_params["name"]
        if name not in served.methods:
            raise Refused(404, f"There is no model of this name; {', '.join(served.methods)} are.", "model")
        return JSONResponse(chat.model(name, served.owner, served.created))

    async def health(request: Request) -> Response:
        batches = served.batches
        now = {"waiting": len(batches.waiting), "answering": len(batches.in_hand)}
        so_far = {"asked": batches.asked, "answered": batches.answered}
        return JSONResponse({"status": "stopping" if served.stopping else "ok", **now, **so_far})

    async def page(request: Request) -> Response:
        return FileResponse(Path(__file__).with_name(PAGE[request.url.path]))

    @contextlib.asynccontextmanager
    async def answering(_: Starlette) -> AsyncIterator[None]:
        task = asyncio.create_task(served.batches.run())
        yield
        task.cancel()

    routes = [
        Route("/v1/chat/completions", completions, methods=["POST"]),
        Route("/v1/models", models),
        Route("/v1/models/{name}", model),
        Route("/health", health),
        *(Route(path, page) for path in PAGE),
    ]
    handlers: dict[Any, Any] = {Refused: _refuse, HTTPException: _refuse_path, Exception: _refuse_all}
    return Door(Starlette(routes=routes, exception_handlers=handlers, lifespan=answering), served)


async def _body(request: Request) -> bytes:
    """The request's body. Raises Refused where it is too long, or not said to be JSON: so no page of another origin
    can send one without being asked first, and none is ever allowed."""
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
        raise Refused(415, "content-type has to be application/json.")
    body = b""
    try:
        async with contextlib.aclosing(request.stream()) as stream:
            async for part in stream:
                body += part
                if len(body) > chat.MOST_BYTES:
                    raise Refused(413, f"The body has more than {chat.MOST_BYTES} bytes.")
    except ClientDisconnect:
        raise Refused(HUNG_UP, "The client has hung up.") from None
    return body


async def _unless_hung_up(request: Request, work: Awaitable[T]) -> T:
    """What comes of some work, which is cancelled where the client does not wait for it."""

    async def hung_up() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass

    gone, done = asyncio.ensure_future(hung_up()), asyncio.ensure_future(work)
    try:
        await asyncio.wait({gone, done}, return_when=asyncio.FIRST_COMPLETED)
        if not done.done():
            raise Refused(HUNG_UP, "The client has hung up.")
        return done.result()
    finally:
        gone.cancel()
        done.cancel()


def _refuse(_: Request, refused: Any) -> Response:
    headers = {"retry-after": str(refused.wait)} if refused.wait else None
    return JSONResponse(refused.body(), refused.status, headers)


def _refuse_path(request: Request, error: Any) -> Response:
    what = {404: "There is nothing under this path", 405: "This path takes another method"}
    return _refuse(request, Refused(error.status_code, f"{what.get(error.status_code, error.detail)}."))


def _refuse_all(request: Request, _: Any) -> Response:
    return _refuse(request, Refused(500, "The server has failed over this request: see its log."))


class Door:
    """What every request goes through: whether it is for this server, headers of safety, and a line in the log."""

    def __init__(self, app: ASGIApp, served: Served):
        self.app, self.served = app, served

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        began, status = time.monotonic(), 0

        async def send_on(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                headers.update(HEADERS)
                if self.served.stopping:
                    headers["connection"] = "close"
            await send(message)

        scope.setdefault("state", {})
        try:
            if self._is_for_us(scope):
                await self.app(scope, receive, send_on)
            else:
                host = Refused(421, "This server is not reached under this name; see --host.", code="host")
                await _refuse(Request(scope), host)(scope, receive, send_on)
        finally:
            client = (scope.get("client") or ["?"])[0]
            path = scope.get("raw_path", b"").decode("ascii", "backslashreplace")
            taken = time.monotonic() - began
            said = scope["state"].get("said", "")
            log.info("%s %s %s %d, %.2f s%s", client, scope["method"], path[:100], status, taken, said)

    def _is_for_us(self, scope: Scope) -> bool:
        """A page of another origin could have its name lead here (DNS rebinding), and read what is here."""
        host = Headers(scope=scope).get("host", "").lower()
        name = host.rpartition(":")[0] if not host.endswith("]") and ":" in host else host
        return self.served.hosts is None or name in self.served.hosts
