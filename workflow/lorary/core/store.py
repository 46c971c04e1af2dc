"""The store: adapters kept under the digest of everything that decides their content.

An entry is a directory with the adapter and `training.json`, which has size and sha256 of the adapter's files. It
appears whole or not at all, and outputs are put together from hard links to its files, so that what was trained once
is never trained again. The adapters of a batch may be in one file instead, a pack, named by the sha256 of its index.
Any number of runs may use one store at once: nothing is locked. It may be several users': what is new in it is as open
for the group and for others as its own folder, whatever their umasks.
"""

import contextlib
import errno
import hashlib
import json
import logging
import os
import re
import secrets
import shutil
import stat
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import IO, Any

import numpy as np

from .errors import LoraryError
from .files import ABANDONED, remove_left, sha256, sync, written_whole
from .pack import Packs
from .values import CONFIG, TENSORS

log = logging.getLogger(__name__)

TRAINING = "training.json"
COPIES, PACKS = "copies", "packs"  # the folders with the notes of who has copies, and with packs
OF_THE_GROUP_AND_OTHERS = stat.S_ISGID | stat.S_IRWXG | stat.S_IRWXO


class Store:
    def __init__(self, directory: str, records: str = "", wanted: set[str] | None = None):
        """`records`: the folder with the records of what is linked here, to be noted where that is copies; `wanted`: of
        what digests is to be known whether they are in packs (None: of all)."""
        self.directory, self.records = Path(directory), records
        self.copies = False  # outputs have been copied since there could be no links
        self.packs = Packs(self.directory / PACKS, wanted)

    def entry(self, digest: str) -> Path:
        return self.directory / digest[:2] / digest

    def where(self, digest: str) -> Path:
        """The entry of an adapter, or the pack that has it."""
        found = None if training_of(self.entry(digest)) else self.packs.find(digest)
        return found[0].path if found else self.entry(digest)

    def get(self, digest: str) -> dict[str, Any] | None:
        """What `training.json` says of an adapter, or None where there is none whose files have their sizes."""
        try:
            if (training := training_of(self.entry(digest))) is not None:
                return training
            found = self.packs.find(digest)
            return found[1].training if found else None
        except OSError:
            return None

    def damage(self, digest: str, sha256: Callable[[Path], str] = sha256) -> str | None:
        """What is wrong with an entry, its files read whole; None where nothing is. Raises OSError."""
        return _damage(self.entry(digest), sha256)

    def fault(self, digest: str) -> str | None:
        """The same of an adapter, wherever it is kept."""
        if training_of(self.entry(digest)) is None and (found := self.packs.find(digest)):
            return found[0].damage(found[1])
        return self.damage(digest)

    def contents(self, digest: str) -> dict[str, bytes]:
        """The files of an adapter, by name. Raises OSError where it is not there, and ValueError."""
        if training_of(self.entry(digest)) is None and (found := self.packs.find(digest)):
            pack, row = found
            return {CONFIG: pack.config, TENSORS: pack.tensors(row)}
        return {name: (self.entry(digest) / name).read_bytes() for name in (CONFIG, TENSORS)}

    def put(self, digest: str, config: bytes, tensors: bytes, training: dict[str, Any]) -> None:
        """Keep an adapter: written under a temporary name, on disk before it gets its own."""
        files = {CONFIG: config, TENSORS: tensors}
        training = {
            **training,
            "sizes": {name: len(content) for name, content in files.items()},
            "sha256": {name: hashlib.sha256(content).hexdigest() for name, content in files.items()},
        }
        files[TRAINING] = (json.dumps(training) + "\n").encode()
        temporary = self.temporary(digest)
        try:
            self.make(temporary.parent)
            self.make(temporary)
            for name, content in files.items():
                with (temporary / name).open("wb") as file:
                    file.write(content)
                    self.finish(file)
            sync(temporary)
            self._give_its_name(temporary, digest)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)

    def drop(self, digest: str) -> None:
        """Take away an entry, so that it is never there in part. It stays where that is not allowed."""
        temporary = self.temporary(digest)
        with contextlib.suppress(OSError):  # it is gone, or another user's
            self.entry(digest).rename(temporary)
            shutil.rmtree(temporary, ignore_errors=True)
        with contextlib.suppress(OSError):  # others are beside it, or it is gone
            self.entry(digest).parent.rmdir()

    def temporary(self, name: str) -> Path:
        """Where an entry or a pack of this name is written."""
        return self.directory / "tmp" / f"{name}.{os.getpid()}.{secrets.token_hex(4)}"

    def finish(self, file: IO[bytes]) -> None:
        """Have a file of the store on disk. Outputs share it: what is written to one would change them all, and the
        store."""
        readable = self.shared() & 0o444
        os.fchmod(file.fileno(), os.fstat(file.fileno()).st_mode & 0o444 | readable)
        file.flush()
        os.fsync(file.fileno())

    def shared(self) -> int:
        """What the store's own folder permits its group and others."""
        return self.directory.stat().st_mode & OF_THE_GROUP_AND_OTHERS

    def make(self, folder: Path) -> None:
        """A folder of the store."""
        self.directory.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(FileExistsError):
            folder.mkdir()
            mode = stat.S_IMODE(folder.stat().st_mode)
            if mode != mode | self.shared():
                folder.chmod(mode | self.shared())

    def _give_its_name(self, temporary: Path, digest: str) -> None:
        entry, damaged = self.entry(digest), temporary.with_name(f"{temporary.name}.damaged")
        self.make(entry.parent)
        sync(self.directory)
        while True:
            try:
                temporary.rename(entry)
                sync(entry.parent)
                return
            except OSError as error:
                if error.errno not in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):
                    raise
            if self.damage(digest) is None:  # another job's, and the same
                return
            with contextlib.suppress(FileNotFoundError):  # another job may be replacing it too
                entry.rename(damaged)
                if _damage(damaged) is None:  # it had just done so
                    with contextlib.suppress(OSError):
                        damaged.rename(entry)
            shutil.rmtree(damaged, ignore_errors=True)

    def rename(self, former: str, digest: str) -> None:
        """Let an entry have another digest, if it is there and none has that: the same adapter, by a later release."""
        if self.get(digest) is None and self.get(former) is not None:
            if self.lay_out(former, digest):
                return
            self.make(self.entry(digest).parent)
            with contextlib.suppress(OSError):  # another job just did so; or it is another user's
                self.entry(former).rename(self.entry(digest))

    def lay_out(self, digest: str, under: str = "") -> bool:
        """Give an adapter that only a pack has an entry of its own, `under` its digest or another; whether that was
        so."""
        if training_of(self.entry(digest)) is not None or (found := self.packs.find(digest)) is None:
            return False
        pack, row = found
        if pack.damage(row):
            return False
        self.put(under or digest, pack.config, pack.tensors(row), row.training)
        return True

    def link(self, digest: str, output: str, config: bytes) -> None:
        """Make the adapter directory `output` from an entry: hard links, or copies where there can be none.

        Its config is `config`, a file of its own where the entry, which another run may have made, has another. Raises
        LoraryError where a symbolic link would lead it elsewhere.
        """
        folder = Path(output)
        for part in (folder, folder.parent):
            if part.is_symlink():
                raise LoraryError(
                    f"{part} is a symbolic link; an adapter is written to no place but its own. Remove it."
                )
        folder.mkdir(parents=True, exist_ok=True)
        for last in (False, False, True):
            self.lay_out(digest)
            try:
                self._link_both(digest, folder, config)
                return
            except FileNotFoundError:  # another job has just packed it
                if last:
                    raise

    def _link_both(self, digest: str, folder: Path, config: bytes) -> None:
        for name in (CONFIG, TENSORS):
            source = self.entry(digest) / name
            if name == CONFIG and source.read_bytes() != config:
                with written_whole(str(folder / name)) as temporary:
                    temporary.write_bytes(config)
                    sync(temporary)
            else:
                self.link_file(source, folder / name)
        sync(folder)

    def link_file(self, source: Path, output: Path, own: bool = False) -> None:
        """A file of the store as an output: a hard link, or a copy where there can be none, or (`own`) where it is
        another user's."""
        remove_left(output)
        temporary = output.with_name(f".{output.name}.{os.getpid()}.part")
        temporary.unlink(missing_ok=True)
        try:
            try:
                if own and source.stat().st_uid != os.geteuid():
                    raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))
                os.link(source, temporary)
            except OSError as error:
                shutil.copyfile(source, temporary)
                sync(temporary)
                self._tell_of_copies(source, error)
            temporary.replace(output)
        finally:
            temporary.unlink(missing_ok=True)  # also where both names were links to one file already

    def _tell_of_copies(self, source: Path, error: OSError) -> None:
        """Once: why outputs are copies. And the folder of this run is noted, since no number of links tells of them."""
        if self.copies:
            return
        self.copies = True
        why = error.strerror
        if error.errno == errno.EXDEV:
            why = "it is on another file system than they"
        elif error.errno == errno.EPERM and source.stat().st_uid != os.geteuid():
            why = "its files are another user's, and the system forbids links to them (fs.protected_hardlinks)"
        elif error.errno == errno.EPERM:
            why = "the file system makes no hard links"
        log.info(
            "adapters are copies of what %s has, not hard links, and take space of their own: %s", self.directory, why
        )
        here = os.fsencode(f"{os.getcwd()}\0{os.path.abspath(self.records)}")
        note = self.directory / COPIES / hashlib.sha256(here).hexdigest()
        with contextlib.suppress(OSError):  # a store that is only read
            self.make(note.parent)
            with written_whole(str(note)) as temporary:
                temporary.write_bytes(here)
                temporary.chmod(temporary.stat().st_mode | self.shared() & 0o444)

    def noted(self) -> list[tuple[Path, Path]]:
        """Of runs with copies of entries: where Snakemake was called, and where their records lie. Raises OSError."""
        notes = sorted((self.directory / COPIES).glob("*"))
        found = [os.fsdecode(note.read_bytes()) for note in notes if re.fullmatch(r"[0-9a-f]{64}", note.name)]
        return [(Path(folder), Path(records)) for folder, _, records in (note.partition("\0") for note in found)]

    def digests(self) -> Iterator[str]:
        """Of all entries, damaged ones too."""
        for entry in sorted(self.directory.glob("??/*")):
            if re.fullmatch(r"[0-9a-f]{64}", entry.name) and not entry.parent.is_symlink():
                yield entry.name

    def abandoned(self) -> list[Path]:
        """What killed jobs have left half written."""
        abandoned, old = [], time.time() - ABANDONED
        folder = self.directory / "tmp"
        for path in [] if folder.is_symlink() else sorted(folder.glob("*")):
            if not re.fullmatch(r"[0-9a-f]{64}\.\d+\.[0-9a-f]{8}(\.damaged)?", path.name):
                continue  # somebody else's
            with contextlib.suppress(OSError):  # gone meanwhile
                abandoned += [path] if path.lstat().st_mtime < old else []
        return abandoned


def digest(settings: dict[str, Any], sequences: Iterable[tuple[np.ndarray, tuple[int, int] | None]]) -> str:
    """sha256 of what decides an adapter: the settings of its training, and its prompt ids (int32 arrays), each with the
    span that is predicted where that is not everything."""
    content = hashlib.sha256(json.dumps(settings, sort_keys=True).encode())
    for ids, span in sequences:
        content.update(len(ids).to_bytes(8, "little"))
        content.update(ids.astype("<i4").tobytes())
        if span is not None:
            content.update(b"span" + b"".join(place.to_bytes(8, "little") for place in span))
    return content.hexdigest()


def remove(path: Path) -> None:
    """A directory, a file or a link (never what it leads to), if it is there. Raises OSError."""
    with contextlib.suppress(FileNotFoundError):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()


def training_of(entry: Path) -> dict[str, Any] | None:
    try:
        training = json.loads((entry / TRAINING).read_bytes())
        whole = all(
            (entry / name).stat().st_size == training["sizes"][name] and training["sha256"][name]
            for name in (CONFIG, TENSORS)
        )
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError, ValueError, LookupError, TypeError):
        return None
    return training if whole else None


def _damage(entry: Path, sha256: Callable[[Path], str] = sha256) -> str | None:
    training = training_of(entry)
    if training is None:
        return "a file is missing, cut off or of another size"
    for name in (CONFIG, TENSORS):
        if sha256(entry / name) != training["sha256"][name]:
            return f"{name} is not what was written (its sha256 differs)"
    return None
