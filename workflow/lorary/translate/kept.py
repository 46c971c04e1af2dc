"""What the store keeps of a translator: how far its training has come, and in the end its weights."""

import json
import logging
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from ..core.files import sha256, sync, written_whole
from ..core.store import Store

log = logging.getLogger(__name__)

FOLDER = "translators"  # of the store
TRANSLATOR, ABOUT, CHECKPOINT = "translator.safetensors", "translator.json", "checkpoint.safetensors"


class Kept:
    def __init__(self, store: str, key: str):
        """`key`: the digest of what decides the translator."""
        self.store = Store(store)
        self.folder = Path(store) / FOLDER / key
        self.translator, self.checkpoint = self.folder / TRANSLATOR, self.folder / CHECKPOINT

    def finished(self) -> dict[str, Any] | None:
        """What is said of the translator, if it is there, and as it was written."""
        try:
            about = json.loads((self.folder / ABOUT).read_bytes())
            if sha256(self.translator) == about["sha256"]:
                return about
        except FileNotFoundError:
            return None
        except (ValueError, LookupError, TypeError):
            pass
        log.warning("%s: the translator there is damaged; training it again", self.folder)
        return None

    def finish(self, tensors: dict, about: dict[str, Any]) -> None:
        """Keep the weights, and what is said of them. The last checkpoint goes."""
        needed = {key: about[key] for key in ("kind", "hidden", "shape", "scale", "spared") if key in about}
        self._write(self.translator, tensors, {"about": json.dumps(needed)})
        with written_whole(str(self.folder / ABOUT)) as temporary:
            said = {**about, "sha256": sha256(self.translator)}
            temporary.write_text(json.dumps(said) + "\n", encoding="utf-8")
            temporary.chmod(temporary.stat().st_mode | self.store.shared() & 0o444)
        self.checkpoint.unlink(missing_ok=True)

    def save(self, tensors: dict, about: dict[str, Any]) -> None:
        """Keep how far it has come."""
        self._write(self.checkpoint, tensors, {"about": json.dumps(about)})

    def saved(self) -> tuple[dict, dict[str, Any]] | None:
        """The same again, or None where there is nothing, or nothing whole."""
        try:
            with safe_open(self.checkpoint, "pt") as file:
                return {name: file.get_tensor(name) for name in file.keys()}, json.loads(file.metadata()["about"])  # noqa: SIM118
        except FileNotFoundError:
            return None
        except (OSError, ValueError, LookupError, SafetensorError):
            log.warning("%s is damaged: the translator is trained from the beginning", self.checkpoint)
            return None

    def _write(self, path: Path, tensors: dict, metadata: dict[str, str]) -> None:
        from safetensors.torch import save_file

        self.store.make(self.folder.parent)
        self.store.make(self.folder)
        with written_whole(str(path)) as temporary:
            save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, temporary, metadata)
            temporary.chmod(temporary.stat().st_mode | self.store.shared() & 0o444)
            sync(temporary)
