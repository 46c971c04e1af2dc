"""Unpack: adapters in packs get directories, as a run without packs makes them."""

from ..answer.ask import find_run, read_index
from ..answer.source import Trained
from ..plan.export import by_name, chosen
from ..train.outputs import unpack as unpack_adapter


def unpack(names: list[str], run: str | None, root: str) -> str:
    """Give adapters of a finished run below `root` directories; they stay in their packs too. `names`: passages
    (<type>/data_<did>/passage_<pid>), questions (<type>/data_<did>) or types; none: all. Returns what was done, as text
    to show. Raises LoraryError, OSError."""
    folder = find_run(root, run)
    index = read_index(folder)
    lines = dict(zip(index["name"], index.to_dict("records"), strict=True))
    wanted = chosen(by_name(lines), names, "unpack", str(folder), types=True) if names else list(lines)
    source, made = Trained(lines), 0
    for name in wanted:
        source.digest(name)
        made += unpack_adapter(lines[name]["path"])
    others = f"; {len(wanted) - made} are in no pack" if made < len(wanted) else ""
    return f"{made} adapters unpacked in {folder}{others}."
