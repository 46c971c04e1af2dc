"""The job that trains a translator, of passages and what is to be known of them.

A step: the states of n passages -> the network -> their adapters (n, D), which go into the stack's matrices on the
frozen base model; then the losses of the passages' sequences, and the gradient back out of those matrices into the
network. No update is ever a dense matrix.
"""

import json
import logging
import math
import shutil
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..adapters import files
from ..adapters.digest import digest_base_weight, digest_task_adapter
from ..base.fetch import fingerprint
from ..core import stop
from ..core.device import device_fault, limited_memory, take_device
from ..core.errors import LoraryError, explain
from ..core.files import written_whole
from ..core.store import digest
from ..core.work import SHOWN_AFTER
from ..plan.translate import LEARNT, SHUFFLED
from ..train.kept import Kept as Spared
from ..train.kept import read_kept
from .kept import Kept
from .pairs import Pair, read_pairs, shuffled

if TYPE_CHECKING:
    from .learner import Learner

log = logging.getLogger(__name__)

SAVED_EVERY = 60  # seconds, at least, from one time that all is saved to the next; and 20 times what saving takes


def train_translator(
    outputs: dict[str, str],
    model: str,
    base_weight: str,
    pairs: list[dict[str, Any]],
    params: dict[str, Any],
    store: str,
    threads: int,
) -> None:
    """Train a translator, and write its `translator` (weights), what it was made of (`about`), its `losses`, a line a
    step, and, where it has a part that all passages share, that as an adapter (`shared_config`, `shared_tensors`).

    `pairs`: of each file of passages its states (`embeddings`), its training examples (`prompts`) and the `records` of
    the jobs that trained these (where the kind learns from adapters). `params`: `kind` (of NETWORKS), `hidden`,
    `learning_rate`, `batch`, `epochs`, how many `pairs` at most (-1: all), `control`, `seed`, the `settings` of
    training, and where adapters are to spare something, the file that says what (`kept`). What is done so far is kept
    in the store; the same call goes on from there, and to the same bytes. Raises LoraryError.
    """
    learnt = read_pairs(pairs, params["pairs"])
    if params["control"] == SHUFFLED:
        learnt = shuffled(learnt)
    spared = read_kept(params["kept"]) if "kept" in params else None
    kept = Kept(store, _key(model, base_weight, learnt, params, spared))
    if kept.finished() is None:
        config, tensors = files.read_base_weight(base_weight)
        with take_device(threads) as (device, name):
            began = time.monotonic()
            from ..base import decoder
            from .learner import Learner

            frozen = decoder.load(model, params["settings"]["precision"], device)
            read = [example.ids for pair in learnt for example in pair.examples]
            if reason := decoder.beyond(frozen, max(int(ids.max()) for ids in read), max(map(len, read))):
                raise LoraryError(reason)
            scale = config["lora_alpha"] / config["r"]
            learner = Learner(frozen, tensors, scale, learnt, params, spared)
            log.info("%s on %s: %d passages, %d parameters", model, name, len(learnt), learner.parameters())
            with limited_memory(device.type):
                _learn(learner, learnt, params, kept, {"device": name}, began)
    _write(outputs, kept, model, base_weight, learnt)


def _key(model: str, base_weight: str, pairs: list[Pair], params: dict[str, Any], spared: Spared | None) -> str:
    """The digest of everything that decides a translator."""
    decides = {key: value for key, value in params.items() if key not in ("pairs", "control", "kept")}
    decides |= {"kept": spared.key} if spared else {}
    weights = {"model": fingerprint(model)["weights"], "base_weight": digest_base_weight(base_weight)}
    of_each = [[pair.states.sha256(), pair.sha256, len(pair.examples)] for pair in pairs]
    sequences = ((example.ids, example.span) for pair in pairs for example in pair.examples)
    return digest({"translator": LEARNT, **decides, **weights, "pairs": of_each}, sequences)


def _learn(
    learner: "Learner", pairs: list[Pair], params: dict[str, Any], kept: Kept, about: dict[str, Any], began: float
) -> None:
    """Every step that is not done yet. Raises LoraryError where it is asked to stop, after what is in hand; what is
    done is kept then."""
    batch = params["batch"]
    an_epoch = math.ceil(len(pairs) / batch)
    total, before = learner.total, learner.restore(kept)
    if learner.done:
        log.info("going on after step %d of %d", learner.done, total)
    shown = saved = time.monotonic()
    first, apart, order = learner.done, float(SAVED_EVERY), list[int]()

    def save() -> None:
        learner.save(kept, before + time.monotonic() - began)

    with stop.after_what_is_in_hand(log.warning) as asked_to_stop:
        try:
            while learner.done < total and not asked_to_stop():
                epoch, step = divmod(learner.done, an_epoch)
                if step == 0 or not order:
                    order = learner.order(len(pairs), params["seed"], epoch)
                losses = learner.step([pairs[i] for i in order[step * batch : (step + 1) * batch]])
                now = time.monotonic()
                if learner.done == total or now - shown > SHOWN_AFTER:
                    left, shown = (now - began) / (learner.done - first) * (total - learner.done), now
                    said = ", ".join(f"{term} {value:.3f}" for term, value in losses.items())
                    log.info("step %d of %d, %s, %.0f s left", learner.done, total, said, left)
                if now - saved > apart and learner.done < total:
                    save()
                    saved = time.monotonic()
                    apart = max(SAVED_EVERY, 20 * (saved - now))
            if learner.done < total:
                save()
        except KeyboardInterrupt:  # a second one, or what was in hand took too long: since it was saved last is lost
            pass
        except OSError as error:
            if not explain(error):
                raise
            raise LoraryError(f"{explain(error)} The same command goes on from what was saved last.") from None
        except Exception as error:
            if not (fault := device_fault(error)):
                raise
            raise LoraryError(f"{fault} The same command goes on from what was saved last.") from None
    if learner.done < total:
        raise LoraryError(f"Stopped after step {learner.done} of {total}; the same command goes on.")
    seconds = before + time.monotonic() - began
    about |= {"passages": len(pairs), "sequences": sum(len(pair.examples) for pair in pairs)}
    about |= {"tokens": sum(len(example) for pair in pairs for example in pair.examples), "steps": total}
    learner.finish(kept, pairs, {**params, **about, "seconds": round(seconds, 1)})
    log.info("%d steps in %.0f s", total, seconds)


def _write(outputs: dict[str, str], kept: Kept, model: str, base_weight: str, pairs: list[Pair]) -> None:
    """The outputs, of what is kept."""
    about = kept.finished()
    assert about is not None
    with written_whole(outputs["translator"]) as temporary:
        shutil.copyfile(kept.translator, temporary)
    losses = about.pop("losses")
    steps, lines = zip(*losses.values(), strict=True), ["\t".join(["step", *losses])]
    lines += ["\t".join([str(step), *(f"{value:.6g}" for value in values)]) for step, values in enumerate(steps, 1)]
    with written_whole(outputs["losses"]) as temporary:
        temporary.write_text("\n".join(lines) + "\n", encoding="utf-8")
    if "shared_tensors" in outputs:
        from .networks import Translator

        shared = Translator.load(outputs["translator"], files.read_base_weight(base_weight)[1]).shared()
        folder, config = Path(outputs["shared_config"]).parent, files.trained_config(base_weight, model)
        files.write_adapter(folder, config, files.tensors_bytes(shared))
        about["shared"] = digest_task_adapter(str(folder))
    if all(pair.states.text for pair in pairs):
        about["passages_sha256"] = [pair.states.text for pair in pairs]  # by which a run knows its own among them
    with written_whole(outputs["about"]) as temporary:
        temporary.write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")
