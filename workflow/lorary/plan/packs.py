"""Where the packs of a run lie, which have the adapters of a training job each."""

from pathlib import Path

from ..core.pack import FOLDER, SUFFIX, pack_of
from . import layout


def pack_beside(adapters: str | Path, record: str) -> str:
    """The pack of the job with this record, whose adapters lie in this folder of a type."""
    return f"{adapters}/{FOLDER}/{Path(record).stem}{SUFFIX}"


def directory(adapter: str) -> Path:
    """Where this adapter lies, or would if it were in no pack."""
    pack = pack_of(adapter)
    return Path(adapter) if pack is None else pack.parent.parent / layout.place(*layout.position_of(adapter))


def packs_with_these(adapters: list[str], record: str) -> list[Path]:
    """The packs that have any of these adapters, of the job with this record, whoever made them: this job's own too."""
    own = Path(pack_beside(directory(adapters[0]).parent.parent, record))
    if own.parent.is_symlink():
        return []
    return [*([own] if own.is_file() else []), *layout.superseded(str(own))]
