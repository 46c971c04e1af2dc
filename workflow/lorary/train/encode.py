"""The training job: a batch of passages into adapter directories, through the store. The arithmetic is `trainer`'s."""

import contextlib
import csv
import json
import logging
import math
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from ..adapters import files as adapters
from ..base.fetch import fingerprint
from ..core import stop
from ..core.device import limited_memory, take_device
from ..core.errors import LoraryError, damaged, explain, report
from ..core.files import written_whole
from ..core.store import Store, digest
from ..data.sequences import Passage, Position, read_passages

log = logging.getLogger(__name__)

# The columns of a job's record.
RECORD = ["did", "pid", "path", "digest", "sequences", "tokens", "first_loss", "last_loss", "seconds", "device"]
RECORD += ["adapters_per_step", "sha256", "config_sha256", "losses"]


def train_adapters(
    outputs: list[str],
    record: str,
    outcome: str,
    model: str,
    base_weight: str,
    prompts: str,
    settings: dict[str, Any],
    adapters_per_step: int | str,
    store: str,
    threads: int,
) -> None:
    """Make the adapter directories `outputs` (`.../data_<did>/passage_<pid>`) of one batch of passages.

    What the store holds undamaged is linked; the rest is trained, each adapter into the store as soon as it is done. A
    passage that fails does not stop the others. `record` is written when all are there, a line an adapter; `outcome`
    (JSON) always, for the summary. Raises LoraryError that names the passages that failed.
    """
    began = time.monotonic()
    paths = {position_of(path): path for path in outputs}
    shelf = Store(store)
    digests, failures = passage_digests(model, base_weight, prompts, settings, set(paths))
    if not paths.keys() <= digests.keys() | failures.keys():
        raise LoraryError(f"{prompts} lacks passages that were to be trained: the data changed meanwhile; run again.")

    missing = {}
    for position, key in digests.items():
        if shelf.get(key) is None:
            missing[position] = key
        elif damage := shelf.damage(key):
            missing[position] = key
            log.warning("%s: %s; training it again", shelf.entry(key), damage)
    stored: set[str] = set()
    try:
        if missing:
            with take_device(threads) as (device, device_name):
                job = Job(model, base_weight, settings, adapters_per_step, device, device_name)
                # The same passage twice in one batch is trained once, and fails twice.
                once = {key: position for position, key in reversed(missing.items())}
                with limited_memory(device.type):
                    job.train(prompts, {position: key for key, position in once.items()}, shelf, failures, stored)
                failures |= {p: failures[once[key]] for p, key in missing.items() if once[key] in failures}
        if failures:
            named = [f"{paths[position]}: {reason}" for position, reason in sorted(failures.items())]
            title = (
                f"{len(failures)} of {len(outputs)} passages failed; the others are in the store, and the same command"
            )
            raise report(named, f"{title} tries just these again:")
        for position, path in paths.items():
            shelf.link(digests[position], path)
        _write_record(record, shelf, digests, paths)
        linked, seconds = len(paths) - len(missing), time.monotonic() - began
        log.info("%d trained, %d linked from the store, %.1f s", len(missing), linked, seconds)
    finally:
        trained = sum(key in stored for key in missing.values())
        failed = [{"path": paths[position], "reason": reason} for position, reason in sorted(failures.items())]
        with contextlib.suppress(OSError):  # what is raised already says more
            Path(outcome).write_text(json.dumps({"trained": trained, "failed": failed}) + "\n")


def passage_digests(
    model: str, base_weight: str, prompts: str, settings: dict[str, Any], positions: set[Position]
) -> tuple[dict[Position, str], dict[Position, str]]:
    """The digests of the adapters at these positions (did, pid); and of those that have no prompt ids, why not."""
    decides = {"model": fingerprint(model)["weights"], "base_weight": adapters.digest(base_weight), **settings}
    digests, failures = {}, {}
    for passage in read_passages(prompts, positions):
        if passage.error:
            failures[passage.position] = f"its prompt ids could not be made: {passage.error}"
        else:
            digests[passage.position] = digest(decides, passage.sequences)
    return digests, failures


class Job:
    """What all passages of a job share: the base model, the adapters on it, and the settings."""

    def __init__(
        self,
        model: str,
        base_weight: str,
        settings: dict[str, Any],
        adapters_per_step: int | str,
        device,
        device_name: str,
    ):
        from ..base import decoder, frozen
        from . import trainer

        try:
            config, tensors = adapters.read_adapter(base_weight)
        except LoraryError as error:
            raise damaged(base_weight, error) from None
        if settings["precision"] == "bfloat16" and device.type == "cpu" and not frozen.fast_bfloat16():
            log.warning("this processor has no bfloat16 units: precision float32 will be very much faster")
        self.device_name = device_name
        self.config = adapters.config_bytes(config)
        self.model = decoder.load(model, settings["precision"], device)
        scale = config["lora_alpha"] / config["r"]
        self.trainer = trainer.Trainer(self.model, tensors, scale, settings, adapters_per_step)
        log.info("%s on %s", model, device_name)

    def train(
        self,
        prompts: str,
        missing: dict[Position, str],
        shelf: Store,
        failures: dict[Position, str],
        stored: set[str],
    ) -> None:
        """Train the passages that the store lacks, each into the store; note those that fail in `failures`, and the
        digests of the others in `stored`.

        Raises LoraryError when it is asked to stop, after the passages in hand.
        """
        began = time.monotonic()
        with stop.after_what_is_in_hand(log.warning) as asked_to_stop:
            try:
                passages = self._trainable(prompts, missing, failures, asked_to_stop)
                for training in self.trainer.train(passages, count=len(missing)):
                    position = training.passage.position
                    if training.error:
                        failures[position] = training.error
                        log.error("data_%d/passage_%d failed: %s", *position, training.error)
                        continue
                    about = {
                        "sequences": len(training.passage.sequences),
                        "tokens": sum(map(len, training.passage.sequences)),
                        "losses": training.losses,
                        "seconds": round(training.seconds, 3),
                        "device": self.device_name,
                        "adapters_per_step": training.adapters_per_step,
                    }
                    shelf.put(missing[position], self.config, adapters.tensors_bytes(training.tensors), about)
                    stored.add(missing[position])
                    _progress(position, about, len(stored), of=len(missing), began=began)
                stopped = asked_to_stop()
            except KeyboardInterrupt:  # a second one, or what was in hand took too long
                stopped = True
            except OSError as error:
                if not explain(error):
                    raise
                log.debug("where it was refused:", exc_info=True)
                raise LoraryError(
                    f"{explain(error)} {len(stored)} of {len(missing)} passages are in the store."
                ) from None
        if stopped and len(stored) < len(missing.keys() - failures.keys()):
            raise LoraryError(
                f"Stopped after {len(stored)} of {len(missing)} passages: they are in the store, and the same command"
                " goes on."
            )

    def _trainable(
        self,
        prompts: str,
        missing: dict[Position, str],
        failures: dict[Position, str],
        asked_to_stop: Callable[[], bool],
    ) -> Iterator[Passage]:
        """The passages to train, until it is asked to stop."""
        vocabulary = self.model.get_input_embeddings().num_embeddings
        for passage in read_passages(prompts, set(missing)):
            if asked_to_stop():
                return
            highest = max(int(ids.max()) for ids in passage.sequences)
            if highest < vocabulary:
                log.debug("data_%d/passage_%d begins", *passage.position)
                yield passage
            else:  # a GPU would fail beyond repair
                failures[passage.position] = (
                    f"token id {highest} is beyond the model's vocabulary of {vocabulary}; is the tokenizer another's?"
                )
                log.error("data_%d/passage_%d failed: %s", *passage.position, failures[passage.position])


def position_of(path: str) -> tuple[int, int]:
    """(did, pid) of `.../data_<did>/passage_<pid>`."""
    data, passage = Path(path).parts[-2:]
    return int(data.removeprefix("data_")), int(passage.removeprefix("passage_"))


def _write_record(record: str, shelf: Store, digests: dict[Position, str], paths: dict[Position, str]) -> None:
    with written_whole(record) as temporary, temporary.open("w", newline="") as file:
        writer = csv.DictWriter(file, RECORD, delimiter="\t", extrasaction="ignore", lineterminator="\n")
        writer.writeheader()
        for (did, pid), path in paths.items():
            training = shelf.get(digests[did, pid])
            if training is None:
                raise LoraryError(f"{shelf.directory} has lost entries while this job ran; the same command goes on.")
            losses = training["losses"]
            place = {"did": did, "pid": pid, "path": path, "digest": digests[did, pid]}
            derived = {
                "first_loss": losses[0],
                "last_loss": losses[-1],
                "losses": " ".join(f"{loss:.4g}" for loss in losses),
                "sha256": training["sha256"][adapters.TENSORS],
                "config_sha256": training["sha256"][adapters.CONFIG],
            }
            writer.writerow({**training, **place, **derived})


_last_shown = -math.inf


def _progress(position: tuple[int, int], training: dict[str, Any], done: int, of: int, began: float) -> None:
    """A line a passage in the log; on the terminal no more than one in two seconds."""
    global _last_shown
    now = time.monotonic()
    left = (now - began) / done * (of - done)
    first, last = training["losses"][0], training["losses"][-1]
    show = done == of or now - _last_shown > 2
    _last_shown = now if show else _last_shown
    log.log(
        logging.INFO if show else logging.DEBUG,
        "passage %d of %d, data_%d/passage_%d: loss %.3f to %.3f, %.1f s, %.0f s left",
        done, of, *position, first, last, training["seconds"], left,
    )  # fmt: skip
