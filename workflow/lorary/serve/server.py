"""python -m lorary serve: a run's adapters, answering over HTTP until it is told to stop."""

import asyncio
import contextlib
import errno
import ipaddress
import logging
import signal
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

import h11
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from ..answer.ask import open_run
from ..answer.predict import answerer
from ..core import stop
from ..core.device import cores
from ..core.errors import LoraryError
from ..plan import layout
from .app import Served, build
from .batches import Batches
from .library import Library, methods

log = logging.getLogger(__name__)

LINGERING = 1.0  # seconds from a stop in which open connections are still read: a request may be on its way
UNREAD = 5.0  # seconds from the last reply after a stop, until whoever has not read its own is hung up on
UNREAD_AT_ONCE = 1.0  # the same, where a second Ctrl-C has given up
KEPT_OPEN = 30  # seconds for which a connection may wait for its next request
REFUSALS = {
    errno.EADDRINUSE: "this port is taken: choose another with --port, or stop what listens there",
    errno.EACCES: "this port is not yours to take: choose one from 1024 on with --port",
    errno.EADDRNOTAVAIL: "this machine has no such address: choose one of its own with --host",
}


@dataclass(frozen=True)
class Limits:
    max_tokens: int  # that a request may ask for
    waiting: int  # questions, beside those that are being answered
    seconds: float  # that a request may take


def serve(root: str, run: str | None, top: int, host: str, port: int, limits: Limits) -> int:
    """Answer questions with the adapters of a run (see `find_run`), with the `top` passages that BM25 finds, until
    SIGTERM or Ctrl-C; then answer what was accepted. Returns the exit status. Raises LoraryError."""
    with contextlib.closing(open_run(root, run)) as opened, _listening(host, port) as listener:
        setting = opened.setting(opened.kinds)
        for kind in (None, *opened.kinds):
            opened.index(kind)  # now, and not while the first question waits
        some = opened.table["name"].iloc[0]
        with (
            answerer(setting.model, setting.precision, cores(), setting.source, some) as ready,
            ThreadPoolExecutor(1, "model", _on_the_same_device, (ready.device,)) as thread,
        ):
            library = Library(opened, setting, ready, top)
            served = Served(
                batches=Batches(library.answer, thread, limits.waiting),
                methods=list(methods(setting)),
                owner=Path(setting.model).name,
                created=int((opened.folder / layout.ABOUT).stat().st_mtime),
                max_tokens=setting.max_new_tokens,
                most_tokens=limits.max_tokens,
                seconds=limits.seconds,
                hosts=_names(host, listener),
            )
            server = Server(served)
            log.info("serving %s at %s", opened.folder, _tell(listener))
            server.until_told(listener)
            if served.batches.fault:
                raise served.batches.fault
    log.info("stopped: %d questions were taken, %d of them answered", served.batches.asked, served.batches.answered)
    return 130 if server.gave_up else 0


class OneAtATime(H11Protocol):
    """Hangs up on a client that sends on before it has its reply: all of that would have to be kept."""

    def data_received(self, data: bytes) -> None:
        if self.conn.their_state is h11.DONE:
            self.transport.abort()
        else:
            super().data_received(data)


class Server(uvicorn.Server):
    """One that answers, when it is told to stop, also what is on its way over open connections."""

    def __init__(self, served: Served):
        config = uvicorn.Config(
            build(served),
            http=OneAtATime,
            ws="none",
            loop="asyncio",
            log_config=None,
            access_log=False,
            proxy_headers=False,
            server_header=False,
            timeout_keep_alive=KEPT_OPEN,
        )
        super().__init__(config)
        self.served, self.gave_up = served, False
        self.loop: asyncio.AbstractEventLoop | None = None
        served.batches.on_fault = self.end

    def until_told(self, listener: socket.socket) -> None:
        """Serve until SIGTERM or Ctrl-C; a second Ctrl-C gives up what is not answered yet."""
        # Until it listens to signals itself, and after it has ended.
        with stop.handled(lambda *_: self.end()):
            self.run([listener])

    def end(self) -> None:
        self.should_exit = True

    def handle_exit(self, number: int, frame: FrameType | None) -> None:
        if self.should_exit and number == signal.SIGINT and self.loop:
            self.gave_up = True
            self.loop.call_soon_threadsafe(self._give_up, self.loop)
        self.should_exit = True

    def _give_up(self, loop: asyncio.AbstractEventLoop) -> None:
        self.served.batches.give_up()
        loop.call_later(UNREAD_AT_ONCE, self._hang_up)

    def _hang_up(self) -> None:
        """On whoever is still there: a reply that is not read would keep this from ending."""
        for connection in list(self.server_state.connections):
            connection.transport.abort()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        self.loop = asyncio.get_running_loop()
        await super().startup(sockets)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        batches = self.served.batches
        log.info("stopping: %d questions are answered first", len(batches.in_hand) + len(batches.waiting))
        self.served.stopping = True
        for server in self.servers:
            server.close()
        await _linger(LINGERING)
        asyncio.get_running_loop().call_later(self.served.seconds + UNREAD, self._hang_up)
        await super().shutdown(sockets)


async def _linger(seconds: float) -> None:
    await asyncio.sleep(seconds)


@contextlib.contextmanager
def _listening(host: str, port: int) -> Iterator[socket.socket]:
    """A socket that listens there: whoever calls while the base model is loaded, waits. Raises LoraryError."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except (OSError, UnicodeError) as error:
        raise LoraryError(f"--host {host}: this is no address ({error}). 127.0.0.1 is this machine alone.") from None
    with socket.socket(family, kind, protocol) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind(address)
            listener.listen()
        except OSError as error:
            if error.errno not in REFUSALS:
                raise
            raise LoraryError(f"--host {host} --port {port}: {REFUSALS[error.errno]}.") from None
        yield listener


def _names(host: str, listener: socket.socket) -> set[str] | None:
    """The names that a request may call this server by: any (None), where others reach it too."""
    return {"localhost", "127.0.0.1", "[::1]", host.lower()} if _alone(listener) else None


def _alone(listener: socket.socket) -> bool:
    """Whether only this machine reaches it."""
    return ipaddress.ip_address(listener.getsockname()[0]).is_loopback


def _tell(listener: socket.socket) -> str:
    address, port = listener.getsockname()[:2]
    url = f"http://[{address}]:{port}/" if ":" in address else f"http://{address}:{port}/"
    if _alone(listener):
        return f"{url} (this machine alone; a page to ask at, and the base URL {url}v1 for clients)"
    return (
        f"{url} (whoever reaches this port can ask and read the passages: there is no password and no encryption, and"
        " a proxy before it is the place for both)"
    )


def _on_the_same_device(device) -> None:
    if device.type == "cuda":
        import torch

        torch.cuda.set_device(device)
