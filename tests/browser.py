"""A real browser without a window, Debian's chromium, to open pages in."""

import shutil
import subprocess
from pathlib import Path

from PIL import Image

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


def open_page(page: Path, folder: Path) -> tuple[str, dict[tuple[int, int, int], int]]:
    """The page's document after its scripts have run, and how many points of its screenshot have which colour (RGB).
    There is no network."""
    picture = folder / "screenshot.png"
    common = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--disable-dev-shm-usage"]
    common += [f"--user-data-dir={folder}/profile", "--proxy-server=127.0.0.1:9", "--virtual-time-budget=5000"]
    shot = ["--window-size=1100,2400", f"--screenshot={picture}"]
    subprocess.run([*common, *shot, page.as_uri()], check=True, capture_output=True, timeout=120)
    document = subprocess.run(
        [*common, "--dump-dom", page.as_uri()], check=True, capture_output=True, text=True, timeout=120
    )
    colours = Image.open(picture).convert("RGB").getcolors(maxcolors=2**24)
    return document.stdout, {colour: count for count, colour in colours}
