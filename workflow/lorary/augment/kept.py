"""What was made of passages, kept under the digest of all that decides it: in the store, a file a passage."""

import contextlib
import hashlib
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..core.files import sync, written_whole
from ..core.store import Store

FOLDER = "augmented"  # of the store


class Results:
    where = "in the store"

    def __init__(self, store: str, tries: int = 0):
        """`tries`: how often may be asked; what has fewer pairs than were wanted, after fewer tries, is made anew."""
        self.store, self.directory, self.tries = Store(store), Path(store) / FOLDER, tries
        self.found: dict[str, dict[str, Any]] = {}

    def path(self, key: str) -> Path:
        return self.directory / key[:2] / f"{key}.json"

    def __contains__(self, key: str) -> bool:
        result = self.get(key)
        if result is None or (not result["complete"] and result["tries_allowed"] < self.tries):
            return False
        self.found[key] = result
        return True

    def get(self, key: str) -> dict[str, Any] | None:
        """A result; None where there is none that is whole. Raises OSError where it cannot be read."""
        try:
            kept = json.loads(self.path(key).read_bytes())
            return kept["result"] if kept["sha256"] == _sha256(kept["result"]) else None
        except (FileNotFoundError, NotADirectoryError, ValueError, LookupError, TypeError, RecursionError):
            return None

    def put(self, results: list[tuple[str, Any]]) -> None:
        """All of them on disk before the first gets its name: what was made together is kept together."""
        with contextlib.ExitStack() as stack:
            for key, result in results:
                for folder in (self.directory, self.path(key).parent):
                    self.store.make(folder)
                temporary = stack.enter_context(written_whole(str(self.path(key))))
                content = {"sha256": _sha256(result), "result": result}
                temporary.write_text(json.dumps(content, ensure_ascii=False) + "\n", encoding="utf-8")
                temporary.chmod(temporary.stat().st_mode | self.store.shared() & 0o444)
                sync(temporary)
        self.found.update(results)

    def keys(self) -> Iterator[str]:
        for path in sorted(self.directory.glob("??/*.json")):
            if re.fullmatch(r"[0-9a-f]{64}", path.stem):
                yield path.stem


def _sha256(result: Any) -> str:
    return hashlib.sha256(json.dumps(result, sort_keys=True).encode()).hexdigest()
