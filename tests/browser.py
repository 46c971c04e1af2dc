"""A real browser without a window, Debian's chromium, to open pages in."""

import contextlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from PIL import Image

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


COMMON = ("--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--disable-dev-shm-usage")


def open_page(page: Path, folder: Path) -> tuple[str, dict[tuple[int, int, int], int]]:
    """The page's document after its scripts have run, and how many points of its screenshot have which colour (RGB).
    There is no network."""
    picture = folder / "screenshot.png"
    common = [CHROMIUM, *COMMON, f"--user-data-dir={folder}/profile", "--proxy-server=127.0.0.1:9"]
    common.append("--virtual-time-budget=5000")
    shot = ["--window-size=1100,2400", f"--screenshot={picture}"]
    subprocess.run([*common, *shot, page.as_uri()], check=True, capture_output=True, timeout=120)
    document = subprocess.run(
        [*common, "--dump-dom", page.as_uri()], check=True, capture_output=True, text=True, timeout=120
    )
    colours = Image.open(picture).convert("RGB").getcolors(maxcolors=2**24)
    return document.stdout, {colour: count for count, colour in colours}


class Visit:
    """A page that is open, spoken to by Chrome's DevTools protocol over pipes."""

    def __init__(self, commands: int, replies: int):
        self.commands, self.replies = os.fdopen(commands, "wb", buffering=0), os.fdopen(replies, "rb")
        self.left = b""
        self.complaints: list[str] = []  # the browser's, as of what the page's policy forbids, and uncaught errors
        self.number, self.session = 0, {}

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        self.number += 1
        said = {"id": self.number, "method": method, "params": parameters, **self.session}
        self.commands.write(json.dumps(said).encode() + b"\0")
        while True:
            while b"\0" not in self.left:
                part = self.replies.read1()
                assert part, "the browser has ended"
                self.left += part
            message, _, self.left = self.left.partition(b"\0")
            told = json.loads(message)
            if told.get("method") in ("Log.entryAdded", "Runtime.exceptionThrown"):
                self.complaints.append(json.dumps(told["params"]))
            if told.get("id") == self.number:
                assert "result" in told, told
                return told["result"]

    def run(self, script: str) -> Any:
        """The value of an expression, or of what it promises."""
        told = self.call("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in told, told
        return told["result"].get("value")

    def until(self, condition: str) -> None:
        """Wait until an expression is true."""
        look = f"const look = () => ({condition}) ? done() : setTimeout(look, 20)"
        self.run(f"new Promise(done => {{ {look}; look(); }})")


@contextlib.contextmanager
def visit(url: str, folder: Path) -> Iterator[Visit]:
    """A page of a server on this machine, in a browser that has a network to it alone."""
    (there, commands), (replies, back) = os.pipe(), os.pipe()
    command = [CHROMIUM, *COMMON, f"--user-data-dir={folder}/profile", "--proxy-server=127.0.0.1:9"]
    # it reads commands from 3 and writes replies to 4
    begin = "import os, sys; [os.dup2(int(sys.argv[i]), i + 2) for i in (1, 2)]; os.execv(sys.argv[3], sys.argv[3:])"
    command = [sys.executable, "-c", begin, str(there), str(back), *command, "--remote-debugging-pipe", "about:blank"]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    with subprocess.Popen(command, pass_fds=(there, back), **quiet) as process:
        os.close(there)
        os.close(back)
        page = Visit(commands, replies)
        with page.commands, page.replies:
            try:
                target = page.call("Target.createTarget", url="about:blank")["targetId"]
                session = page.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
                page.session = {"sessionId": session}
                page.call("Log.enable")
                page.call("Runtime.enable")
                page.call("Page.navigate", url=url)
                page.until("document.readyState === 'complete'")
                yield page
            finally:
                process.terminate()
