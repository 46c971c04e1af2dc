"""Verify: every byte of what a run has left, against the sha256 that was written with it."""

import contextlib
import hashlib
import json
import logging
import time
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from ..adapters import files as adapters
from ..adapters.digest import digest_base_weight, digest_task_adapter, former_digests
from ..augment.kept import Results
from ..base import fetch as models_
from ..core import pack, packing
from ..core.errors import LoraryError, report
from ..core.store import TRAINING, Store, remove, sha256
from ..core.values import CONFIG, MARK, TENSORS
from ..plan.translate import SHARED
from ..train.kept import read_kept
from ..train.outputs import OWN
from ..train.records import read_record

log = logging.getLogger(__name__)


@dataclass
class Found:
    """What was looked at, and what is wrong with it."""

    checked: dict[str, int] = field(default_factory=dict)  # kind -> how many
    damaged: list[str] = field(default_factory=list)  # a line each; removed, to be made again
    broken: list[str] = field(default_factory=list)  # a line each; left for the user to mend
    outdated: list[str] = field(default_factory=list)  # a line an adapter: its config is to be written anew
    gone: set[Path] = field(default_factory=set)  # what was damaged
    strange: list[Path] = field(default_factory=list)  # files that are not ours; left alone
    hashes: dict[tuple[int, int], str] = field(default_factory=dict)  # (device, inode) -> sha256: links are read once
    packs: dict[tuple[int, int], dict[str, str]] = field(default_factory=dict)  # the same: place -> sha256
    shown: float = field(default_factory=time.monotonic)

    def count(self, kind: str) -> None:
        self.checked[kind] = self.checked.get(kind, 0) + 1
        if time.monotonic() - self.shown > 5:
            self.shown = time.monotonic()
            log.info("looked at %s", ", ".join(f"{n:,} {kind}" for kind, n in self.checked.items()))

    def discard(self, path: Path, fault: str) -> None:
        remove(path)
        self.gone.add(path)
        log.error("%s: %s; removed", path, fault)
        self.damaged.append(f"{path}: {fault}")

    def sha256(self, path: Path) -> str:
        try:
            inode = (path.stat().st_dev, path.stat().st_ino)
        except (FileNotFoundError, NotADirectoryError):
            return ""
        if inode not in self.hashes:
            self.hashes[inode] = sha256(path)
        return self.hashes[inode]

    def in_pack(self, path: Path) -> dict[str, str]:
        """sha256 of the tensors of each adapter in a pack, by place, empty of one that is damaged, or of which the
        index is; no places where the pack cannot be read at all."""
        try:
            inode = (path.stat().st_dev, path.stat().st_ino)
            if inode not in self.packs:
                there = pack.Pack(path)
                self.packs[inode] = {
                    row.place: "" if there.damage(row) else row.training["sha256"][TENSORS] for row in there.rows
                }
        except (FileNotFoundError, ValueError):
            return {}
        return self.packs[inode]


def verify(
    records: list[dict[str, str]],
    runs: list[dict[str, str]],
    tables: list[str],
    models: list[str],
    stores: list[str],
    kept: list[str] | None = None,
    translators: list[dict[str, str]] | None = None,
) -> None:
    """Check what is there of these: records of training jobs (`record`, with `model`, `base_weight` and `store` of the
    job), and the adapters that they list; the base weight (`base_weight`) of each run, whose run.json (`run`) has its
    sha256; tables and prompt ids; base models; stores; what is kept of base models; translators (`translator`), each
    with a file that has its sha256 (`about`).

    What is damaged is removed, so that the next call makes just that again; a base model is only named, and so are
    adapters with the config of an earlier version. What is not there yet is no fault, and what cannot be read ends it.
    Raises LoraryError that names all that was damaged, OSError.
    """
    found = Found()
    for store in stores:
        _verify_store(Store(store), found)
        _verify_results(Results(store), found)
    for batch in records:
        if Path(batch["record"]).exists():
            _verify_adapters(batch["record"], batch["store"], _todays_config(batch), found)
    for run in runs:
        _verify_base_weight(Path(run["base_weight"]), Path(run["run"]), found)
    for table in tables:
        if Path(table).exists():
            found.count("tables")
            try:
                with pq.ParquetFile(table, page_checksum_verification=True) as file:
                    for group in range(file.num_row_groups):
                        file.read_row_group(group)
            except (pa.ArrowException, OSError) as error:
                if getattr(error, "errno", None):  # the disk's, and no word on what it holds
                    raise
                found.discard(Path(table), f"is no whole table ({error})")
    for file in kept or ():
        if Path(file).exists():
            found.count("kept answers")
            try:
                read_kept(file)
            except LoraryError as error:
                found.discard(Path(file), str(error))
    for files in translators or ():
        _verify_translator(Path(files["translator"]), Path(files["about"]), found)
    broken_models = [
        fault for directory in models if Path(directory).exists() for fault in _model_faults(directory, found)
    ]

    log.info(
        "checked %s", ", ".join(f"{n:,} {kind}" for kind, n in found.checked.items()) or "nothing: nothing is there"
    )
    for path in found.strange:
        log.warning("%s: no file of Lorary's; left alone", path)
    if found.outdated:
        title = f"{len(found.outdated)} adapters that not every PEFT reads, or finds the base model of:"
        title += " `snakemake rewrite_configs` writes their configs anew, and trains nothing:"
        log.warning("%s", report(found.outdated, title, most=1000))
    found.broken += broken_models
    if found.damaged or found.broken:
        title = f"{len(found.damaged)} damaged, and removed; the next call makes just these again:"
        if found.broken:
            title = f"{len(found.damaged)} damaged, and removed; {len(found.broken)} more for you to mend:"
        raise report([*found.damaged, *found.broken], title, most=1000)
    log.info("nothing is damaged")


def _verify_store(store: Store, found: Found) -> None:
    for digest in store.digests():
        found.count("store entries")
        entry = store.entry(digest)
        if (fault := store.damage(digest, found.sha256)) is not None:
            found.discard(entry, fault)
        else:
            found.strange += _strangers(entry, OWN | {TRAINING})
    for path in store.packs.files():
        found.count("store packs")
        try:
            named = pack.Pack(path).is_named_by_its_index()
        except FileNotFoundError:
            continue  # pruned or packed anew meanwhile
        except ValueError as error:
            found.discard(path, str(error))
            continue
        wrong = [place for place, sha256 in found.in_pack(path).items() if not sha256]
        if wrong or not named:
            _discard_pack(path, store, wrong or ["its index"], found)


def _discard_pack(path: Path, store: Store, wrong: list[str], found: Found) -> None:
    """What is whole in it goes into entries of the store first, so that just the others are made again."""
    with contextlib.suppress(ValueError):
        packing.rescue(store, path)
    found.discard(path, f"{', '.join(wrong)}: missing, or not what was trained")


def _verify_results(results: Results, found: Found) -> None:
    for key in results.keys():  # noqa: SIM118
        found.count("augmented passages")
        if results.get(key) is None:
            found.discard(results.path(key), "is not what was written")


def _todays_config(batch: dict[str, str]) -> bytes | None:
    """Of the adapters of a batch, where its base weight and its base model can be read."""
    try:
        return adapters.trained_config(batch["base_weight"], batch["model"])
    except LoraryError:
        return None


def _verify_adapters(record: str, store: str, todays: bytes | None, found: Found) -> None:
    found.count("records")
    try:
        lines = read_record(record)
    except LoraryError:
        found.discard(Path(record), "cannot be read")
        return
    written_anew = hashlib.sha256(todays).hexdigest() if todays else None
    packed: dict[Path, list[str]] = {}  # what is wrong in packs
    for path, tensors, config in zip(lines["path"], lines["sha256"], lines["config_sha256"], strict=True):
        if (of_pack := pack.pack_of(path)) is not None:
            if of_pack.is_file():
                found.count("adapters")
                packed.setdefault(of_pack, []).extend(_faults_in_pack(path, tensors, config, todays, found))
            continue
        directory = Path(path)
        if not directory.is_dir():
            continue  # deleted: the next call sees that by itself
        found.count("adapters")
        bad = [TENSORS] if found.sha256(directory / TENSORS) != tensors else []
        here = found.sha256(directory / CONFIG)
        if here not in (config, written_anew):
            bad.append(CONFIG)
        elif here != config:
            found.outdated.append(f"{path}: its config is written anew, and its record does not say so yet")
        elif todays and (fault := adapters.outdated((directory / CONFIG).read_bytes(), todays)):
            found.outdated.append(f"{path}: {fault}")
        strangers = _strangers(directory, OWN)
        if bad and strangers:
            found.broken.append(
                f"{path}: {' and '.join(bad)}: missing, or not what was trained. Move your own files away"
                f" ({', '.join(file.name for file in strangers)}), delete it, and the next call makes it again."
            )
        elif bad:
            found.discard(directory, f"{' and '.join(bad)}: missing, or not what was trained")
        found.strange += strangers
    for of_pack, wrong in packed.items():
        if wrong:
            _discard_pack(of_pack, Store(store), wrong, found)
        elif packing.kept_at(Store(store), pack.opened(of_pack).key) in found.gone:
            with contextlib.suppress(ValueError):  # there is more in it than was looked at
                packing.put_back(Store(store), of_pack)  # it is a copy, and no link to what was damaged
                log.info("%s: put back into %s", of_pack, store)


def _faults_in_pack(path: str, tensors: str, config: str, todays: bytes | None, found: Found) -> list[str]:
    """The place of this adapter, if it is not in its pack as it was trained."""
    of_pack, place = Path(path).parent.parent, f"{Path(path).parent.name}/{Path(path).name}"
    if found.in_pack(of_pack).get(place) != tensors:
        return [place]
    said = pack.opened(of_pack).config
    if hashlib.sha256(said).hexdigest() != config:
        if said != todays:
            return [place]
        found.outdated.append(f"{path}: its config is written anew, and its record does not say so yet")
    elif todays and (fault := adapters.outdated(said, todays)):
        found.outdated.append(f"{path}: {fault}")
    return []


def _verify_base_weight(base_weight: Path, run: Path, found: Found) -> None:
    try:
        if any(mark.stat().st_mtime > run.stat().st_mtime for mark in base_weight.glob(f"{MARK}*.json")):
            return  # made anew since, by a run that has not ended yet
        expected = json.loads(run.read_bytes())["base_weight"]["sha256"]
        whole = expected in (digest_base_weight(str(base_weight)), *former_digests(str(base_weight)))
    except FileNotFoundError:
        return
    except LoraryError:
        whole = False
    except (ValueError, LookupError, TypeError):
        found.discard(run, "cannot be read")
        return
    found.count("base weights")
    if not whole:
        found.discard(base_weight, f"not the base weight of {run}")


def _verify_translator(translator: Path, about: Path, found: Found) -> None:
    if not translator.exists() or not about.exists():
        return
    found.count("translators")
    try:
        said = json.loads(about.read_bytes())
        whole = found.sha256(translator) == said["sha256"]
        shared = said.get("shared")
    except (ValueError, LookupError, TypeError, AttributeError):
        found.discard(about, "cannot be read")
        return
    if not whole:
        found.discard(translator, "is not what was trained (its sha256 differs)")
    elif shared and ((folder := translator.with_name(SHARED)) / TENSORS).is_file():
        try:
            whole = digest_task_adapter(str(folder)) == shared
        except LoraryError:
            whole = False
        if not whole:
            found.discard(folder / TENSORS, "is not of the translator beside it")


def _model_faults(directory: str, found: Found) -> list[str]:
    found.count("base models")
    try:
        written = models_.fingerprint(directory)
        here = models_.digest_model(Path(directory), converted="gguf_sha256" in written)
    except (LoraryError, OSError, ValueError) as error:
        return [f"{directory}: {error}"]
    return [
        f"{directory}: the {part} differ from its fingerprint. Where they are links, see what became of the files that"
        " they lead to; then delete this folder, and the next call fetches the model again."
        for part in ("weights", "tokenizer")
        if written[part] != here[part]
    ]


def _strangers(directory: Path, own: set[str]) -> list[Path]:
    return [path for path in sorted(directory.iterdir()) if path.name not in own]
