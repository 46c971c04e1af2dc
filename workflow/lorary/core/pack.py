"""A pack: adapters in one safetensors file, a row each, with an index in its header.

A row is what follows the header in the adapter's own file, and the index has that header, which all adapters of a job
share. So a pack gives back each file byte for byte, one adapter is read without the others, and safetensors opens it as
one tensor (adapters, numbers of an adapter), of their own type. The path of an adapter in a pack is
`packed/<the pack>/data_<did>/passage_<pid>`.
"""

import contextlib
import functools
import hashlib
import json
import os
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from .files import sha256 as sha256_of_file
from .values import CONFIG, TENSORS

FOLDER, SUFFIX = "packed", ".safetensors"  # of the packs of a type, and of their names
ROWS = "adapters"  # the one tensor
BYTES = {"F32": 4, "BF16": 2}  # of a number, by safetensors' name of its type
BEGINNING = b'{"__metadata__":{"lorary":"pack 1","digests":"'  # of the header, which the digests follow


@dataclass(frozen=True)
class Row:
    """What the index says of an adapter."""

    number: int
    place: str  # data_<did>/passage_<pid>
    digest: str  # of everything that decides it
    head: int  # which of the pack's headers its own file has
    record: str  # training.json, with sizes and sha256 of its files
    seal: str  # by which digest and record are known to be what was written

    @functools.cached_property
    def training(self) -> dict[str, Any]:
        """The record, which is only read when it is asked for: with all losses it is most of an index. Raises
        ValueError where it is not what was written."""
        if self.seal != seal(self.digest, self.record):
            raise ValueError(f"what the index says of {self.place} is not what was written")
        training: dict[str, Any] = json.loads(self.record)
        return training


@dataclass(frozen=True)
class Part:
    """An adapter that is to be packed."""

    place: str
    digest: str
    training: dict[str, Any]
    head: bytes  # the header of its own file
    read: Callable[[], bytes]  # its own file


class Pack:
    """The index of a pack, and its rows, read one by one."""

    def __init__(self, path: Path):
        """Raises OSError, and ValueError where this is no pack."""
        self.path = path
        with path.open("rb") as file:
            header = read_head(file)
        try:
            about = json.loads(header)
            index, (_, end) = json.loads(about["__metadata__"]["index"]), about[ROWS]["data_offsets"]
            self.config = index["config"].encode()
            self.heads = [head.encode() for head in index["heads"]]
            self.rows = [Row(number, **row) for number, row in enumerate(index["rows"])]
            self.size = end // len(self.rows)  # of a row
        except (ValueError, LookupError, TypeError, AttributeError, ArithmeticError) as error:
            raise ValueError(f"{path} is no pack of adapters: {error}") from None
        self.key, self.start = hashlib.sha256(header).hexdigest(), 8 + len(header)
        if path.stat().st_size != self.start + end:
            raise ValueError(f"{path} is cut off or of another size")
        self.places = {row.place: row for row in self.rows}
        self.digests = {row.digest: row for row in self.rows}

    def tensors(self, row: Row) -> bytes:
        """The adapter's own file. Raises OSError, ValueError."""
        with self.path.open("rb") as file:
            file.seek(self.start + row.number * self.size)
            return own_file(self.head(row), file.read(self.size))

    def head(self, row: Row) -> bytes:
        """The header of the adapter's own file. Raises ValueError where the pack has none for it."""
        if not 0 <= row.head < len(self.heads):
            raise ValueError(f"{self.path} has no header for {row.place}")
        return self.heads[row.head]

    def damage(self, row: Row) -> str | None:
        """What is wrong with a row, read whole; None where nothing is. Raises OSError."""
        try:
            written = row.training["sha256"]
            files = {CONFIG: self.config, TENSORS: self.tensors(row)}
        except (ValueError, LookupError) as error:
            return str(error)
        for name, content in files.items():
            if hashlib.sha256(content).hexdigest() != written[name]:
                return f"{name} is not what was written (its sha256 differs)"
        return None

    def is_named_by_its_index(self) -> bool:
        """As a pack of the store is, where it is whole."""
        return self.path.stem == self.key

    def unpacked(self) -> Iterator[Part]:
        """Its adapters, to be packed anew."""
        for row in self.rows:
            yield Part(row.place, row.digest, row.training, self.head(row), functools.partial(self.tensors, row))


class Packs:
    """The packs of a store."""

    def __init__(self, folder: Path, wanted: set[str] | None):
        """`wanted`: of what digests it is to be known whether they are in packs; None: of all."""
        self.folder, self.wanted = folder, wanted
        self.there: dict[str, Path] = {}  # where digests were when the folder had this time
        self.seen = 0
        self._digests: dict[Path, set[str]] = {}  # of packs that were looked at: those that are wanted

    def files(self) -> list[Path]:
        """The latest first."""
        found = []
        for path in self.folder.glob(f"*{SUFFIX}"):
            if re.fullmatch(r"[0-9a-f]{64}", path.stem):
                with contextlib.suppress(FileNotFoundError):  # gone meanwhile
                    found.append((path.stat().st_mtime_ns, path))
        return [path for _, path in sorted(found, reverse=True)]

    def find(self, digest: str) -> tuple[Pack, Row] | None:
        """The latest pack that has an adapter, and its row there; None where none has it. Raises OSError."""
        for _ in range(2):
            self._look()
            try:
                pack = opened(self.there[digest])
                row = pack.digests[digest]
            except FileNotFoundError:  # it has just been packed anew
                self.seen = 0
                continue
            except (LookupError, ValueError):
                return None
            return (pack, row) if pack.is_named_by_its_index() else None
        return None

    def wanted_of(self, path: Path) -> set[str]:
        """What is wanted of a pack, which is read once: its name says what is in it. Raises OSError, and ValueError
        where this is no pack."""
        if path not in self._digests:
            there = set(digests_of(path))
            self._digests[path] = there if self.wanted is None else there & self.wanted
        return self._digests[path]

    def _look(self) -> None:
        """See what is where, if anything has changed since. A pack that cannot be read has nothing."""
        try:
            now = self.folder.stat().st_mtime_ns
        except FileNotFoundError:
            self.there = {}
            return
        if now == self.seen:
            return
        found: dict[str, Path] = {}
        for path in self.files():
            with contextlib.suppress(OSError, ValueError):
                for digest in self.wanted_of(path):
                    found.setdefault(digest, path)
        self.there, self.seen = found, now


def make_header(config: bytes, parts: list[Part]) -> bytes:
    """The header of a pack of these adapters, which all have this config. Raises ValueError where they are not of the
    same shapes and type."""
    heads = list(dict.fromkeys(part.head for part in parts))
    about = {"sizes": len(config), "sha256": hashlib.sha256(config).hexdigest()}
    rows = []
    for part in parts:
        training = part.training | {key: part.training[key] | {CONFIG: about[key]} for key in about}
        row = {"place": part.place, "digest": part.digest, "head": heads.index(part.head)}
        record = json.dumps(training)
        rows.append({**row, "record": record, "seal": seal(part.digest, record)})
    sizes = {part.training["sizes"][TENSORS] - 8 - len(part.head) for part in parts}
    if len(sizes) > 1:
        raise ValueError(f"adapters of {min(sizes)} and of {max(sizes)} bytes are no tensor together")
    types = {about["dtype"] for head in heads for name, about in json.loads(head).items() if name != "__metadata__"}
    if len(types) > 1 or not types <= BYTES.keys():
        raise ValueError(f"adapters of {' and '.join(sorted(types))} are no tensor together")
    index = {"config": config.decode(), "heads": [head.decode() for head in heads], "rows": rows}
    digests = " ".join(part.digest for part in parts)
    (size,), (dtype,) = sizes, types
    header = {
        "__metadata__": {"lorary": "pack 1", "digests": digests, "index": json.dumps(index)},
        ROWS: {"dtype": dtype, "shape": [len(parts), size // BYTES[dtype]], "data_offsets": [0, len(parts) * size]},
    }
    content = json.dumps(header, separators=(",", ":")).encode()
    return content + b" " * (-len(content) % 8)


def seal(digest: str, record: str) -> str:
    """sha256 of what an index says of an adapter, apart from its place."""
    return hashlib.sha256(f"{digest} {record}".encode()).hexdigest()


def write(file: IO[bytes], header: bytes, parts: Iterable[Part]) -> None:
    """Write the pack of this header: one adapter after the other, each checked as it is read. Raises OSError, and
    ValueError where an adapter is not what was trained."""
    file.write(len(header).to_bytes(8, "little") + header)
    for part in parts:
        content = part.read()
        if hashlib.sha256(content).hexdigest() != part.training["sha256"][TENSORS]:
            raise ValueError(f"{part.place}: {TENSORS} is not what was trained (its sha256 differs)")
        file.write(content[8 + len(part.head) :])


def digests_of(path: Path) -> list[str]:
    """Of the adapters of a pack, without its index. Raises OSError, and ValueError where this is no pack."""
    with path.open("rb") as file:
        if file.read(8 + len(BEGINNING))[8:] != BEGINNING:
            raise ValueError(f"{path} is no pack of adapters")
        found = b""
        while b'"' not in found:
            if not (more := file.read(1 << 16)):
                raise ValueError(f"{path} is cut off")
            found += more
    return found.partition(b'"')[0].decode().split()


def read_head(file: IO[bytes]) -> bytes:
    """The header of a safetensors file that is at its beginning. Raises OSError, and ValueError where it has none."""
    size = int.from_bytes(file.read(8), "little")
    if not 0 < size <= os.fstat(file.fileno()).st_size - 8:
        raise ValueError(f"{file.name} is no whole safetensors file")
    return file.read(size)


def own_file(head: bytes, content: bytes) -> bytes:
    """A safetensors file of its header and what follows."""
    return len(head).to_bytes(8, "little") + head + content


def opened(path: Path) -> Pack:
    """The index of a pack, read again only where the file is another. Raises OSError and ValueError, as Pack."""
    about = path.stat()
    return _opened(path, about.st_ino, about.st_size, about.st_mtime_ns)


@functools.lru_cache(maxsize=128)
def _opened(path: Path, *_: int) -> Pack:
    return Pack(path)


# An adapter by its path: a directory, or in a pack.


def within(pack: str, place: str) -> str:
    """The path of an adapter in a pack."""
    return f"{pack}/{place}"


def pack_of(adapter: str | Path) -> Path | None:
    """The pack that an adapter of this path is in; None: it has a directory of its own."""
    path = Path(adapter)
    pack = path.parent.parent
    return pack if (pack.parent.name, pack.suffix) == (FOLDER, SUFFIX) else None


def is_there(adapter: str | Path) -> bool:
    """Whether there is an adapter of this path, whole or not."""
    pack = pack_of(adapter)
    return Path(adapter).is_dir() if pack is None else pack.is_file()


def contents(adapter: str | Path) -> dict[str, bytes]:
    """The files of an adapter, by name. Raises OSError, and ValueError where it is not in its pack."""
    path, pack = Path(adapter), pack_of(adapter)
    if pack is None:
        return {name: (path / name).read_bytes() for name in (CONFIG, TENSORS)}
    found, place = opened(pack), f"{path.parent.name}/{path.name}"
    if place not in found.places:
        raise ValueError(f"{pack} has no {place}")
    return {CONFIG: found.config, TENSORS: found.tensors(found.places[place])}


def sha256(adapter: str | Path) -> dict[str, str]:
    """Of the files of an adapter, by name; empty where there is none. Raises OSError where it cannot be read."""
    if pack_of(adapter) is None:
        return {name: sha256_of_file(Path(adapter) / name) for name in (CONFIG, TENSORS)}
    try:
        return {name: hashlib.sha256(content).hexdigest() for name, content in contents(adapter).items()}
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return {CONFIG: "", TENSORS: ""}
