"""Adapters of a store into a pack, and out of a damaged one."""

import contextlib
import functools
import hashlib
from pathlib import Path

from . import pack
from .errors import LoraryError
from .files import sync, written_whole
from .pack import Pack, Part
from .store import PACKS, Store, training_of
from .values import TENSORS


def link_pack(store: Store, digests: dict[str, str], config: bytes, output: str) -> None:
    """Keep adapters of a store, all with this config, in one file, and not in entries of their own any more; and make
    `output` a hard link to it, or a copy. `digests`: by place (data_<did>/passage_<pid>), in their order.

    The file is whole and on disk before an entry goes, so nothing is lost whenever this is killed; done again, it makes
    the same file. Raises LoraryError, OSError.
    """
    folder = Path(output).parent
    if folder.is_symlink():
        raise LoraryError(f"{folder} is a symbolic link; a pack is written to no place but its own. Remove it.")
    folder.mkdir(parents=True, exist_ok=True)
    for last in (False, False, True):  # another job may have just packed some of these with others
        try:
            made = keep_packed(store, digests, config)
            store.link_file(made, Path(output), own=True)  # Snakemake sets the time of its outputs
            sync(folder)
            return
        except FileNotFoundError as error:
            if last:
                raise _lost(store, error) from None


def keep_packed(store: Store, digests: dict[str, str], config: bytes) -> Path:
    """The pack of these adapters, in the store. Raises LoraryError, OSError."""
    try:
        made = keep_pack(store, config, [_part(store, place, digest) for place, digest in digests.items()])
    except ValueError as error:
        raise _lost(store, error) from None
    kept = set(digests.values())
    for digest in kept:
        store.drop(digest)
    for other in store.packs.files():  # most have none of these, and are not read again
        with contextlib.suppress(OSError, ValueError):  # it is gone, or another user's
            if other != made and store.packs.wanted_of(other) & kept and set(pack.digests_of(other)) <= kept:
                other.unlink()
    store.packs.seen = 0
    return made


def kept_at(store: Store, key: str) -> Path:
    """Where a store has the pack whose index has this sha256."""
    return store.directory / PACKS / f"{key}{pack.SUFFIX}"


def keep_pack(store: Store, config: bytes, parts: list[Part]) -> Path:
    """The pack of these parts, in the store. Raises OSError, and ValueError where they are no pack."""
    header = pack.make_header(config, parts)
    made = kept_at(store, hashlib.sha256(header).hexdigest())
    if not _is_whole(made):
        _write(store, made, header, parts)
    return made


def put_back(store: Store, path: Path) -> None:
    """Keep a pack in a store again that is a whole copy of what was there. Raises OSError, and ValueError where it is
    not whole."""
    found = Pack(path)
    parts = list(found.unpacked())
    keep_pack(store, found.config, parts)
    for part in parts:
        store.drop(part.digest)


def rescue(store: Store, path: Path) -> None:
    """Give the adapters that are whole in a damaged pack, and of which its index is too, entries of their own. Raises
    OSError, and ValueError where the pack cannot be read at all."""
    found = Pack(path)
    for row in found.rows:
        if not found.damage(row):
            store.put(row.digest, found.config, found.tensors(row), row.training)


def rewrite_config(path: Path, config: bytes) -> None:
    """Give all adapters of a pack another config. Raises OSError, and ValueError where it is no whole pack."""
    parts = list(Pack(path).unpacked())
    with written_whole(str(path)) as temporary, temporary.open("wb") as file:
        pack.write(file, pack.make_header(config, parts), parts)


def _part(store: Store, place: str, digest: str) -> Part:
    tensors = store.entry(digest) / TENSORS
    if (training := training_of(store.entry(digest))) is not None:
        with tensors.open("rb") as file:
            return Part(place, digest, training, pack.read_head(file), tensors.read_bytes)
    if (found := store.packs.find(digest)) is None:
        raise FileNotFoundError(f"{place} is gone")
    there, row = found
    return Part(place, digest, row.training, there.head(row), functools.partial(there.tensors, row))


def _is_whole(path: Path) -> bool:
    try:
        found = Pack(path)
    except (FileNotFoundError, ValueError):
        return False
    return found.is_named_by_its_index() and not any(map(found.damage, found.rows))


def _write(store: Store, path: Path, header: bytes, parts: list[Part]) -> None:
    temporary = store.temporary(path.stem)
    try:
        store.make(temporary.parent)
        store.make(path.parent)
        with temporary.open("wb") as file:
            pack.write(file, header, parts)
            store.finish(file)
        temporary.replace(path)
        sync(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def _lost(store: Store, error: Exception) -> LoraryError:
    return LoraryError(f"{store.directory} has lost adapters while this job ran ({error}); the same command goes on.")
