"""The job that translates a batch of passages: their states become adapters, through the store, as by training."""

import contextlib
import json
import logging
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

from ..adapters import files
from ..adapters.digest import digest_base_weight
from ..base.fetch import fingerprint
from ..core.device import free_memory, limited_memory, out_of_memory, take_device
from ..core.errors import LoraryError, report
from ..core.files import sha256
from ..core.store import Store, digest
from ..core.work import Done, Fault, Item, Work, finish
from ..plan import layout
from ..plan.encode import GPU_NUMERICS
from ..plan.translate import TRANSLATED
from ..train.outputs import make_outputs
from ..train.stored import InStore
from .embed import embedded

log = logging.getLogger(__name__)

SHARED = "shared"  # the control in which passages have nothing of their own


def translate_adapters(
    outputs: list[str],
    record: str,
    outcome: str,
    model: str,
    base_weight: str,
    embeddings: str,
    translator: str,
    control: str | None,
    precision: str,
    store: str,
    threads: int,
) -> None:
    """Make the adapters `outputs` (`.../data_<did>/passage_<pid>`, directories or in one pack) of a batch of passages,
    out of what the file `embeddings` has of them, rounded to `precision`; with the `control` shared all get the same.
    What the store holds is linked. `record` is written when all are there; `outcome` (JSON) always. Raises
    LoraryError."""
    began, paths = time.monotonic(), {layout.position_of(path): path for path in outputs}
    config, passages = files.trained_config(base_weight, model), list(embedded(embeddings))
    decides = {"translated": TRANSLATED, "translator": sha256(Path(translator)), "model": fingerprint(model)["weights"]}
    decides |= {"base_weight": digest_base_weight(base_weight), "control": control, "precision": precision}
    digests = {
        passage.position: digest({**decides, "states": passage.sha256()}, ())
        for passage in passages
        if passage.position in paths
    }
    if lacking := paths.keys() - digests.keys():
        raise LoraryError(f"{embeddings} lacks {len(lacking)} passages: the data changed meanwhile; run again.")
    shelf = Store(store, layout.records_of(record), set(digests.values()))
    stored, failed = InStore(shelf, {key: [] for key in digests.values()}, written_out=True), dict[str, str]()
    items = [
        Item(digests[passage.position], layout.place(*passage.position), passage)
        for passage in passages
        if passage.position in digests
    ]

    @contextlib.contextmanager
    def begin() -> Iterator[Work]:
        with take_device(threads) as (device, device_name), limited_memory(device.type):
            yield lambda some: _translated(
                some, translator, base_weight, config, control, precision, device, device_name
            )

    try:
        finish(items, stored, failed, begin, ("passage", "passages"))
        if failed:
            raise report([f"{item.place}: {failed[item.key]}" for item in items if item.key in failed], "Some failed:")
        make_outputs(stored.store, digests, paths, config, record)
        made = sum(key in stored.missing for key in digests.values())
        log.info("%d translated, %d linked, %.1f s", made, len(paths) - made, time.monotonic() - began)
    finally:
        faults = [(item.content.position, failed[item.key]) for item in items if item.key in failed]
        told = [{"path": paths[position], "reason": reason} for position, reason in faults]
        with contextlib.suppress(OSError):  # what is raised already says more
            said = {"trained": 0, "translated": len(stored.trained), "failed": told}
            Path(outcome).write_text(json.dumps(said) + "\n", encoding="utf-8")


def _translated(
    items: Iterable[Item],
    path: str,
    base_weight: str,
    config: bytes,
    control: str | None,
    precision: str,
    device,
    device_name: str,
) -> Iterator[Done]:
    """The adapters of these items, whose contents are passages with their states; one by one, so that none depends on
    what others are beside it."""
    from .networks import Translator, stacked

    translator = Translator.load(path, files.read_base_weight(base_weight)[1])
    translator.network.to(device)
    about = {"sequences": 0, "tokens": 0, "losses": [], "device": device_name, "adapters_per_step": 1}
    about |= {"translator": sha256(Path(path)), "layers_checked": True}
    about |= {} if precision == "float32" else {"adapter_precision": precision}
    about |= {} if device.type == "cpu" else {"gpu_numerics": GPU_NUMERICS}
    for item in items:
        began, passage = time.monotonic(), item.content.read()
        try:
            batch = {name: tensor.to(device) for name, tensor in stacked([passage]).items()}
            tensors = translator.common() if control == SHARED else translator.of(batch)
            tensors = {name: tensor.cpu() for name, tensor in tensors.items()}
        except Exception as error:
            if not out_of_memory(error):
                raise
            tensors = {}
        if not tensors:
            free_memory()
            yield [(item, Fault("its tokens do not fit into memory together; a lower max_length would help"))]
            continue
        if not all(tensor.isfinite().all() for tensor in tensors.values()):
            yield [(item, Fault("its adapter is not finite: the translator was trained at too high a learning rate"))]
            continue
        said = {**about, "tokens": len(passage["states"]), "seconds": round(time.monotonic() - began, 3)}
        yield [(item, (config, files.tensors_bytes(tensors, precision), said))]
