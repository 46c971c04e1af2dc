"""What a training job leaves: adapters out of the store, each in its directory or all in one pack, and the record."""

import contextlib

from ..adapters.files import write_adapter
from ..core.errors import LoraryError
from ..core.pack import contents, opened, pack_of
from ..core.packing import link_pack
from ..core.store import Store
from ..core.values import CONFIG, TENSORS, Position
from ..plan import layout, packs
from .records import write_record

TIMESTAMP = ".snakemake_timestamp"  # Snakemake's mark on a directory that it made
OWN = {CONFIG, TENSORS, TIMESTAMP}  # what may lie in an adapter's directory


def make_outputs(
    store: Store, digests: dict[Position, str], paths: dict[Position, str], config: bytes, record: str
) -> list[list[float]]:
    """Make the adapters of a batch at these paths, all with this config, and the record. What the same passages had
    before goes when these are there: records and packs of other batches or settings, and directories where there is a
    pack now. Returns the losses of each. Raises LoraryError, OSError."""
    adapters = list(paths.values())
    for superseded in layout.superseded(record):
        superseded.unlink(missing_ok=True)
    pack = pack_of(adapters[0])
    if pack is None:
        for position, path in paths.items():
            store.link(digests[position], path, config)
    else:
        link_pack(store, {layout.place(*position): digests[position] for position in paths}, config, str(pack))
    losses = write_record(record, store, digests, paths, config)
    for former in packs.packs_with_these(adapters, record):
        if former != pack:
            former.unlink(missing_ok=True)
            with contextlib.suppress(OSError):  # there are others
                former.parent.rmdir()
    if pack is not None:
        for path in adapters:
            remove_directory(path)
    return losses


def remove_directory(adapter: str) -> None:
    """The directory that an adapter in a pack has besides, without a stranger's files. Raises OSError."""
    directory = packs.directory(adapter)
    if directory.is_symlink() or directory.parent.is_symlink() or not directory.is_dir():
        return
    for name in OWN:
        (directory / name).unlink(missing_ok=True)
    for folder in (directory, directory.parent):
        with contextlib.suppress(OSError):  # there is something else in it
            folder.rmdir()


def unpack(adapter: str) -> bool:
    """Give an adapter a directory of its own, byte for byte as a run without packs makes it, and leave it in its pack;
    whether it is in one. Raises LoraryError, OSError."""
    pack, directory = pack_of(adapter), packs.directory(adapter)
    if pack is None:
        return False
    for part in (directory, directory.parent):
        if part.is_symlink():
            raise LoraryError(f"{part} is a symbolic link; an adapter is written to no place but its own. Remove it.")
    try:
        found, files = opened(pack), contents(adapter)
        fault = found.damage(found.places[layout.place(*layout.position_of(adapter))])
    except ValueError as error:
        fault = str(error)
    except FileNotFoundError:
        fault = "is missing"
    if fault:
        raise LoraryError(
            f"{adapter}: {fault}. `snakemake verify` removes what is damaged, and the next call makes it again."
        )
    write_adapter(directory, files[CONFIG], files[TENSORS])
    return True
