"""Where adapters come from: a passage's position, and the adapter that is to be at work."""

from typing import TYPE_CHECKING, Any, Protocol

from ..adapters.digest import digested
from ..core.errors import LoraryError
from ..core.pack import sha256
from ..core.values import CONFIG, TENSORS
from ..train.records import read_record

if TYPE_CHECKING:
    from ..adapters.lora import Adapter


class Source(Protocol):
    """Adapters by the positions of their passages (or whatever else names them)."""

    task_adapter: dict[str, str] | None  # what lies under each of them: its path and sha256

    def digest(self, position: Any) -> str:
        """Of the adapter's content, and of what lies under it. Raises LoraryError where there is none that can be
        used."""
        ...

    def load(self, position: Any) -> "Adapter": ...


class Trained:
    """The adapters that jobs have made: lines with `path`, `sha256` and `config_sha256`, by position."""

    def __init__(self, lines: dict[Any, dict[str, Any]], task_adapter: dict[str, str] | None = None):
        self.lines, self.task_adapter = lines, task_adapter

    @classmethod
    def of_records(cls, records: list[str], task_adapter: dict[str, str] | None = None) -> "Trained":
        """By (did, pid), as the records of their jobs say. `task_adapter`: its `path`, and `sha256` where that was
        known before. Raises LoraryError."""
        columns = ["did", "pid", "path", "sha256", "config_sha256"]
        lines = [line for record in records for line in read_record(record, columns).to_dict("records")]
        under = digested(task_adapter) if task_adapter else None
        return cls({(int(line["did"]), int(line["pid"])): line for line in lines}, under)

    def digest(self, position: Any) -> str:
        """Raises LoraryError where it is not what was trained."""
        line = self.lines[position]
        found = sha256(line["path"])
        for name, expected in ((TENSORS, line["sha256"]), (CONFIG, line["config_sha256"])):
            if found[name] != expected:
                fault = "is not what was trained (its sha256 differs)" if found[name] else "is missing"
                raise LoraryError(
                    f"{line['path']}/{name} {fault}. `snakemake verify` removes what is damaged, and the next call"
                    " links or trains it again."
                )
        return f"{line['sha256']} over {self.task_adapter['sha256']}" if self.task_adapter else line["sha256"]

    def load(self, position: Any) -> "Adapter":
        """Raises LoraryError."""
        from ..adapters.lora import load_adapter

        return load_adapter(self.lines[position]["path"])
