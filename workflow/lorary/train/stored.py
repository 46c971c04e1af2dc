"""What the store has of a training job: which adapters it need not train, and where those go that it trains."""

import logging
from typing import Any

from ..adapters.files import tensors_bytes
from ..core.store import Store, remove
from ..core.values import CONFIG, TENSORS
from ..plan.encode import GPU_NUMERICS

log = logging.getLogger(__name__)

OF_A_GPU = "a GPU made it with an earlier version of Lorary, and it may be another passage's"
UNCHECKED = "an earlier version of Lorary made it, and did not see whether each layer ran once a step"
DOUBTS = OF_A_GPU, UNCHECKED


class InStore:
    """Adapters as results that are kept."""

    where = "in the store"

    def __init__(
        self,
        store: Store,
        former: dict[str, list[str]],
        written_out: bool,
        exact: dict[str, list[str]] | None = None,
        precision: str = "float32",
    ):
        """`former`: of each key, the digests that earlier releases gave the same adapter; `written_out`: whether their
        base model is, and not computed by transformers; `exact`: where they are kept in another `precision` than
        float32, the digests that the same adapter has in that."""
        self.store, self.former, self.written_out = store, former, written_out
        self.exact, self.precision = exact or {}, precision
        self.missing: set[str] = set()
        self.outdated: set[str] = set()  # there, until there is a better one
        self.trained: set[str] = set()

    def __contains__(self, key: str) -> bool:
        for former in self.former[key]:
            self.store.rename(former, key)
        training, damage = self.store.get(key), None
        if training is not None:
            damage = self.store.fault(key) or _doubtful(training, self.written_out)
            if damage is None:
                return True
        where = self.store.where(key) if damage else None
        if damage not in DOUBTS and key in self.exact and self._round(key):
            if damage:
                log.warning("%s: %s; rounding it again", where, damage)
            return True
        if damage in DOUBTS:
            self.outdated.add(key)
        if damage:
            log.warning("%s: %s; training it again", where, damage)
        self.missing.add(key)
        return False

    def _round(self, key: str) -> bool:
        """Keep what the store has in float32 in the precision that is wanted, too, as if it had just been trained;
        whether it has that."""
        from safetensors.torch import load

        for exact in self.exact[key]:
            training = self.store.get(exact)
            if training is None or self.store.fault(exact) or _doubtful(training, self.written_out):
                continue
            try:
                files = self.store.contents(exact)
            except (FileNotFoundError, ValueError):  # it is gone meanwhile
                continue
            tensors = tensors_bytes(load(files[TENSORS]), self.precision)
            self.store.put(key, files[CONFIG], tensors, training | {"adapter_precision": self.precision})
            return True
        return False

    def put(self, results: list[tuple[str, Any]]) -> None:
        for key, (config, tensors, about) in results:
            if key in self.outdated:
                remove(self.store.entry(key))
            self.store.put(key, config, tensors, about)
            self.trained.add(key)


def _doubtful(training: dict[str, Any], written_out: bool) -> str | None:
    """Why an entry of the store that is whole is not taken for good."""
    of_a_gpu = not training.get("device", "processor").startswith("processor")
    if of_a_gpu and training.get("gpu_numerics") != GPU_NUMERICS:
        return OF_A_GPU
    return None if written_out or training.get("layers_checked") else UNCHECKED
