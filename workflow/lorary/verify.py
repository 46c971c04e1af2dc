"""Verify: every byte of what a run has left, against the sha256 that was written with it."""

import json
import logging
import time
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from . import adapter as adapters
from . import model as models_
from .adapter import CONFIG, TENSORS
from .errors import LoraryError, report
from .index import read_record
from .store import Store, remove, sha256

log = logging.getLogger(__name__)

# What may lie in an adapter's directory: the last is Snakemake's mark on a directory that it made.
OWN = {CONFIG, TENSORS, ".snakemake_timestamp"}


@dataclass
class Found:
    """What was looked at, and what is wrong with it."""

    checked: dict[str, int] = field(default_factory=dict)  # kind -> how many
    damaged: list[str] = field(default_factory=list)  # a line each; removed, to be made again
    strange: list[str] = field(default_factory=list)  # files that are not ours; left alone
    hashes: dict[tuple[int, int], str] = field(default_factory=dict)  # (device, inode) -> sha256: links are read once
    shown: float = field(default_factory=time.monotonic)

    def count(self, kind: str) -> None:
        self.checked[kind] = self.checked.get(kind, 0) + 1
        if time.monotonic() - self.shown > 5:
            self.shown = time.monotonic()
            log.info("looked at %s", ", ".join(f"{n:,} {kind}" for kind, n in self.checked.items()))

    def discard(self, path: Path, fault: str) -> None:
        self.damaged.append(f"{path}: {fault}")
        remove(path)

    def sha256(self, path: Path) -> str:
        try:
            inode = (path.stat().st_dev, path.stat().st_ino)
        except OSError:
            return ""
        if inode not in self.hashes:
            self.hashes[inode] = sha256(path)
        return self.hashes[inode]


def verify(
    records: dict[str, str], runs: dict[str, str], tables: list[str], models: list[str], stores: list[str]
) -> None:
    """Check what is there of these: records of training jobs (each with its base weight) and the adapters that they
    list; base weights (each with the run.json that has its sha256); tables and prompt ids; base models; stores.

    What is damaged is removed, so that the next call makes just that again; a base model is only named. What is not
    there yet is no fault. Raises LoraryError that names all that was damaged.
    """
    found = Found()
    for store in stores:
        _verify_store(Store(store), found)
    for record, base_weight in records.items():
        if Path(record).exists():
            _verify_adapters(record, base_weight, found)
    for base_weight, run in runs.items():
        if Path(base_weight).exists() and Path(run).exists():
            _verify_base_weight(Path(base_weight), Path(run), found)
    for table in tables:
        if Path(table).exists():
            found.count("tables")
            try:
                pq.read_table(table)
            except (pa.ArrowException, OSError) as error:
                found.discard(Path(table), f"cannot be read ({error})")
    broken_models = [
        fault for directory in models if Path(directory).exists() for fault in _model_faults(directory, found)
    ]

    log.info(
        "checked %s", ", ".join(f"{n:,} {kind}" for kind, n in found.checked.items()) or "nothing: nothing is there"
    )
    for line in found.strange:
        log.warning("%s", line)
    if broken_models:
        raise report(broken_models, "The base model is not the one that was fetched:")
    if found.damaged:
        title = f"{len(found.damaged)} damaged, and removed; the next call makes just these again:"
        raise report(found.damaged, title, most=1000)
    log.info("nothing is damaged")


def _verify_store(store: Store, found: Found) -> None:
    for digest in store.digests():
        found.count("store entries")
        entry = store.entry(digest)
        if (fault := store.damage(digest, found.sha256)) is not None:
            found.discard(entry, fault)
        else:
            _name_strangers(entry, OWN | {"training.json"}, found)


def _verify_adapters(record: str, base_weight: str, found: Found) -> None:
    found.count("records")
    try:
        lines = read_record(record)
    except LoraryError:
        found.discard(Path(record), "cannot be read")
        return
    for path, expected in zip(lines["path"], lines["sha256"], strict=True):
        directory = Path(path)
        if not directory.is_dir():
            continue  # deleted: the next call sees that by itself
        found.count("adapters")
        if found.sha256(directory / TENSORS) != expected:
            found.discard(directory, f"{TENSORS} is missing, or not what was trained (its sha256 differs)")
        elif found.sha256(directory / CONFIG) != found.sha256(Path(base_weight) / CONFIG):
            found.discard(directory, f"{CONFIG} is missing, or not that of the base weight")
        else:
            _name_strangers(directory, OWN, found)


def _verify_base_weight(base_weight: Path, run: Path, found: Found) -> None:
    found.count("base weights")
    try:
        expected = json.loads(run.read_bytes())["base_weight"]["sha256"]
    except (OSError, ValueError, LookupError, TypeError):
        found.discard(run, "cannot be read")
        return
    try:
        whole = adapters.digest(str(base_weight)) == expected
    except OSError:
        whole = False
    if not whole:
        found.discard(base_weight, f"not the base weight of {run}")


def _model_faults(directory: str, found: Found) -> list[str]:
    found.count("base models")
    try:
        written, here = models_.fingerprint(directory), models_.digest_model(Path(directory))
    except (LoraryError, OSError, ValueError) as error:
        return [f"{directory}: {error}"]
    return [
        f"{directory}: the {part} differ from its fingerprint. Where they are links, see what became of the files that"
        " they lead to; then delete this folder, and the next call fetches the model again."
        for part in ("weights", "tokenizer")
        if written[part] != here[part]
    ]


def _name_strangers(directory: Path, own: set[str], found: Found) -> None:
    found.strange += [
        f"{path}: no file of Lorary's; left alone" for path in directory.iterdir() if path.name not in own
    ]
