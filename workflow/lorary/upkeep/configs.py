"""Configs of adapters that earlier versions wrote, or that name a base model where it no longer is: written anew."""

import hashlib
import logging
import os
from pathlib import Path

import pandas as pd

from ..adapters.files import CONFIG, outdated, trained_config
from ..core.errors import damaged
from ..core.files import written_whole
from ..core.pack import is_there, opened, pack_of
from ..core.packing import rewrite_config

log = logging.getLogger(__name__)


def rewrite(records: list[dict[str, str]], indexes: list[str]) -> None:
    """Give the adapters of these records (`record`, with the `model` and the `base_weight` of its job) the config that
    training would give them today; nothing is trained. What means something else, or is damaged, is left alone.

    A kill in the middle leaves each adapter with its old config or its new one, which `verify` takes for whole, and the
    next call goes on. Tables keep their times: for Snakemake nothing has changed. Raises LoraryError.
    """
    now: dict[str, str] = {}  # path -> config_sha256
    broken: set[Path] = set()  # packs that could not be given another config
    written = left = 0
    for batch in records:
        if not Path(batch["record"]).exists():
            continue
        table = _read(batch["record"])
        todays = trained_config(batch["base_weight"], batch["model"])
        for path, recorded in zip(table["path"], table["config_sha256"], strict=True):
            if not is_there(path):
                continue  # deleted: the next call makes it with the config of today
            config = _config(path)
            if config != todays:
                known = hashlib.sha256(config).hexdigest() == recorded and outdated(config, todays)
                if not known or pack_of(path) in broken or not _rewritten(path, todays, broken):
                    left += 1
                    continue
                written += 1
            now[path] = hashlib.sha256(todays).hexdigest()
        _write(batch["record"], table, now)
    for index in indexes:
        if Path(index).exists():
            _write(index, _read(index), now)
    log.info(
        "%d configs are written anew%s",
        written,
        f"; {left} are not what their record says, or say something else: see `snakemake verify`" if left else "",
    )


def _config(adapter: str) -> bytes:
    """Empty where there is none."""
    if (pack := pack_of(adapter)) is None:
        file = Path(adapter) / CONFIG
        return file.read_bytes() if file.is_file() else b""
    try:
        return opened(pack).config
    except ValueError:
        return b""


def _rewritten(adapter: str, config: bytes, broken: set[Path]) -> bool:
    """Give an adapter, or all in its pack, this config; whether that could be done. A pack where not is noted."""
    if (pack := pack_of(adapter)) is not None:
        try:
            rewrite_config(pack, config)
        except ValueError:
            broken.add(pack)
            return False
        return True
    with written_whole(f"{adapter}/{CONFIG}") as temporary:
        temporary.write_bytes(config)
    return True


def _read(table: str) -> pd.DataFrame:
    try:
        content = pd.read_csv(table, sep="\t", dtype=str, keep_default_na=False)
        if missing := {"path", "config_sha256"} - set(content.columns):
            raise LookupError(f"it has no {', '.join(sorted(missing))}")
        return content
    except (OSError, ValueError, LookupError) as error:
        raise damaged(table, error) from None


def _write(path: str, table: pd.DataFrame, now: dict[str, str]) -> None:
    before = list(table["config_sha256"])
    sha256 = [now.get(path, found) for path, found in zip(table["path"], before, strict=True)]
    if sha256 == before:
        return
    times = os.stat(path)
    with written_whole(path) as temporary:
        table.assign(config_sha256=sha256).to_csv(temporary, sep="\t", index=False, lineterminator="\n")
        os.utime(temporary, ns=(times.st_atime_ns, times.st_mtime_ns))
