"""The training job: a batch of passages into adapter directories, through the store. The arithmetic is `trainer`'s."""

import contextlib
import json
import logging
import time
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..adapters import files
from ..adapters.digest import digest_base_weight, former_digests
from ..base.fetch import end_tokens, fingerprint
from ..base.support import written_out_here
from ..core.device import free_memory, limited_memory, out_of_memory, take_device
from ..core.errors import LoraryError, report
from ..core.files import read_json
from ..core.private import fast_bfloat16
from ..core.store import Store, digest
from ..core.values import Position
from ..core.work import Done, Fault, Item, Work, finish
from ..data.objectives import SEQUENCES
from ..data.sequences import Example, Passage, read_passages
from ..plan import layout
from ..plan.encode import GPU_NUMERICS
from .kept import Kept, among, read_kept
from .outputs import make_outputs
from .records import UNLEARNT, has_learnt
from .stored import InStore

if TYPE_CHECKING:
    from .trainer import Training

log = logging.getLogger(__name__)


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
    task_adapter: dict[str, str] | None = None,
    kept: str | None = None,
) -> None:
    """Make the adapters `outputs` (`.../data_<did>/passage_<pid>`, directories or in one pack) of a batch of passages.

    What the store holds undamaged is linked; the rest is trained, each adapter into the store as soon as it is done. A
    passage that fails does not stop the others. `record` is written when all are there, a line an adapter; `outcome`
    (JSON) always, for the summary. `task_adapter` (its `path` and `sha256`, which `settings` have too): what all are
    trained over; `kept`: the file of what they are to spare. Raises LoraryError that names the passages that failed.
    """
    began, base = time.monotonic(), digest_base_weight(base_weight)
    paths = {layout.position_of(path): path for path in outputs}
    spared = read_kept(kept) if kept else None
    others = set(paths), spared.key if spared else None
    found, failures = passage_digests(model, base_weight, prompts, settings, *others)
    digests = {position: latest for position, (latest, *_) in found.items()}
    if not paths.keys() <= digests.keys() | failures.keys():
        raise LoraryError(f"{prompts} lacks passages that were to be trained: the data changed meanwhile; run again.")
    config = files.trained_config(base_weight, model)
    former = {latest: former for latest, *former in found.values()}
    exact, precision = {}, settings.get("adapter_precision", "float32")
    if precision != "float32":
        of_float32 = {key: value for key, value in settings.items() if key != "adapter_precision"}
        in_float32, _ = passage_digests(model, base_weight, prompts, of_float32, *others)
        exact = {digests[position]: keys for position, keys in in_float32.items()}
    wanted = {key for keys in [*found.values(), *exact.values()] for key in keys}
    shelf = Store(store, layout.records_of(record), wanted)
    stored = InStore(shelf, former, written_out_here(read_json(f"{model}/config.json")), exact, precision)
    failed: dict[str, str] = {}

    @contextlib.contextmanager
    def begin() -> Iterator[Work]:
        with take_device(threads) as (device, device_name):
            encoder = Encoder(
                model,
                base_weight,
                config,
                settings,
                adapters_per_step,
                device,
                device_name,
                store,
                task_adapter,
                spared,
            )
            if digest_base_weight(base_weight) != base:
                raise LoraryError(
                    f"{base_weight} was made anew while this job waited for its device, by a call with other settings."
                    " Give one of the two another adapter_dir; the same command makes this one's again."
                )
            with limited_memory(device.type):
                yield lambda items: encoder.train(read_passages(prompts, set(paths)), items, len(stored.missing))

    try:
        # The same passage twice in one batch is trained once, and fails twice.
        items = [Item(key, layout.place(*position), position) for position, key in digests.items()]
        try:
            finish(items, stored, failed, begin, ("passage", "passages"), _about)
        finally:
            failures |= {position: failed[key] for position, key in digests.items() if key in failed}
        if failures:
            named = [f"{paths[position]}: {reason}" for position, reason in sorted(failures.items())]
            title = (
                f"{len(failures)} of {len(outputs)} passages failed; the others are in the store, and the same command"
            )
            raise report(named, f"{title} tries just these again:")
        losses = make_outputs(stored.store, digests, paths, config, record)
        trained, seconds = sum(key in stored.missing for key in digests.values()), time.monotonic() - began
        log.info("%d trained, %d linked from the store, %.1f s", trained, len(paths) - trained, seconds)
        if vain := sum(not has_learnt(each, settings["num_train_epochs"]) for each in losses):
            log.warning("%d passages have learnt next to nothing: %s", vain, UNLEARNT)
    finally:
        trained = sum(key in stored.trained for key in digests.values())
        told = [{"path": paths[position], "reason": reason} for position, reason in sorted(failures.items())]
        with contextlib.suppress(OSError):  # what is raised already says more
            Path(outcome).write_text(json.dumps({"trained": trained, "failed": told}) + "\n", encoding="utf-8")


def passage_digests(
    model: str,
    base_weight: str,
    prompts: str,
    settings: dict[str, Any],
    positions: set[Position],
    kept: str | None = None,
) -> tuple[dict[Position, list[str]], dict[Position, str]]:
    """The digest of the adapter at each of these positions (did, pid), followed by those that earlier releases gave it;
    and of those that have no prompt ids, why not. `kept`: the key of what they are to spare."""
    model_weights, settings = fingerprint(model)["weights"], {**settings, **_ends(model, settings)}
    decides = [
        {"model": model_weights, "base_weight": base, **settings, **({"kept": kept} if kept else {})}
        for base in [digest_base_weight(base_weight), *former_digests(base_weight)]
    ]
    digests, failures = {}, {}
    for passage in read_passages(prompts, positions):
        if passage.error:
            failures[passage.position] = f"its prompt ids could not be made: {passage.error}"
        else:
            sequences = [(example.ids, example.span) for example in passage.examples]
            sequences += [(example.teacher, None) for example in passage.examples if example.teacher is not None]
            digests[passage.position] = [digest(settings, sequences) for settings in decides]
    return digests, failures


def _ends(model: str, settings: dict[str, Any]) -> dict[str, Any]:
    """What ends the answers that a teacher writes itself: it decides them, as the weights do that it is no part of."""
    return {"ends": sorted(end_tokens(model))} if "distill_answers" in settings else {}


class Encoder:
    """What all passages of a job share: the base model, the adapters on it, and the settings."""

    def __init__(
        self,
        model: str,
        base_weight: str,
        adapter_config: bytes,
        settings: dict[str, Any],
        adapters_per_step: int | str,
        device,
        device_name: str,
        store: str = "",
        task_adapter: dict[str, str] | None = None,
        kept: Kept | None = None,
    ):
        """`store`: where a teacher's words are kept, if the objective has one; `task_adapter`: what is added to the
        frozen weights, its `path` and `sha256`; `kept`: what the adapters are to spare."""
        from ..adapters.task import load_task_adapter, merge_task_adapter
        from ..base import decoder
        from . import trainer

        config, tensors = files.read_base_weight(base_weight)
        if settings["precision"] == "bfloat16" and device.type == "cpu" and not fast_bfloat16():
            log.warning("this processor has no bfloat16 units: precision float32 will be very much faster")
        self.device, self.device_name = device, device_name
        self.settings = settings
        self.config = adapter_config
        self.kept_in = settings.get("adapter_precision", "float32")
        self.model = decoder.load(model, settings["precision"], device)
        if task_adapter:
            merge_task_adapter(self.model, load_task_adapter(task_adapter, self.model))
        scale = config["lora_alpha"] / config["r"]
        self.among = settings.get("keep_sequences", 0)  # of those kept, so many among all of a passage's
        steps = settings | ({"num_train_epochs": 1} if self.among else {})  # they are woven into all epochs as one
        directions = kept.directions if kept else None
        self.trainer = trainer.Trainer(self.model, tensors, scale, steps, adapters_per_step, directions)
        self.kept = kept.sequences if kept else []
        self.teacher = None
        if SEQUENCES[settings.get("objective", "reference")].teacher:
            from .teacher import Teacher

            said = {**settings, **_ends(model, settings)}
            self.teacher = Teacher(self.model, fingerprint(model)["weights"], said, store)
            if self.among:  # it says the same of what it has answered itself
                answered = [replace(example, teacher=example.ids) for example in self.kept]
                self.kept = self.teacher.told(Passage((0, 0), answered)).examples
        log.info("%s on %s", model, device_name)

    def train(self, passages: Iterator[Passage], items: Iterable[Item], count: int) -> Iterator[Done]:
        """The adapters of these items (`count` at most), whose contents are positions of passages, in their order."""
        under_way: dict[Position, tuple[Item, Passage]] = {}
        refused: Done = []
        for training in self.trainer.train(self._trainable(passages, items, under_way, refused), count):
            if refused:
                yield refused.copy()
                refused.clear()
            item, passage = under_way.pop(training.passage.position)
            if training.error:
                yield [(item, Fault(training.error))]
                continue
            assert training.tensors is not None
            about = {
                "sequences": len(passage.examples),
                "tokens": sum(map(len, passage.examples)),
                "losses": self._own_losses(training),
                "seconds": round(training.seconds, 3),
                "device": self.device_name,
                "adapters_per_step": training.adapters_per_step,
                **({} if self.device.type == "cpu" else {"gpu_numerics": GPU_NUMERICS}),
                "layers_checked": True,
                **self._aim(passage, training.passage),
            }
            yield [(item, (self.config, files.tensors_bytes(training.tensors, self.kept_in), about))]
        yield refused
        if self.teacher:
            self.teacher.tell()

    def _own_losses(self, training: "Training") -> list[float]:
        """Of the steps that a passage's own sequences took part in. Kept ones have steps of their own where a batch is
        one sequence; in larger batches the loss is of both."""
        if not self.among or self.settings["per_device_train_batch_size"] > 1:
            return training.losses
        kept = set(map(id, self.kept))
        steps = zip(training.passage.examples, training.losses, strict=True)
        return [loss for example, loss in steps if id(example) not in kept]

    def _aim(self, passage: Passage, trained: Passage) -> dict[str, Any]:
        """What training.json says of what is not as in the reference: a task adapter; an objective, and how many tokens
        it predicts; what is kept, and the tokens of its sequences in all epochs of what was `trained`."""
        others = ("task_adapter", "objective", "distill", "keep", "adapter_precision")
        aim = {key: self.settings[key] for key in self.settings if key.startswith(others)}
        if self.among:
            own = self.settings["num_train_epochs"] * sum(map(len, passage.examples))
            aim |= {"kept_tokens": sum(map(len, trained.examples)) - own}
        if "objective" in aim:
            aim |= {"predicted": sum(map(Example.predicted, passage.examples))}
        return aim

    def _trainable(
        self,
        passages: Iterator[Passage],
        items: Iterable[Item],
        under_way: dict[Position, tuple[Item, Passage]],
        refused: Done,
    ) -> Iterator[Passage]:
        from ..base import decoder

        for item in items:
            passage = next(passage for passage in passages if passage.position == item.content)
            read = [ids for example in passage.examples for ids in (example.ids, example.teacher) if ids is not None]
            length = max(map(len, read)) + self.settings.get("own_tokens", 0)
            if reason := decoder.beyond(self.model, max(int(ids.max()) for ids in read), length):
                refused.append((item, Fault(reason)))
                continue
            taught = self._taught(passage)
            if isinstance(taught, Fault):
                refused.append((item, taught))
                continue
            log.debug("%s begins", item.place)
            under_way[passage.position] = item, taught
            yield among(taught, self.kept, self.among, self.settings["num_train_epochs"]) if self.among else taught

    def _taught(self, passage: Passage) -> Passage | Fault:
        """The passage with what the teacher says of it, where the objective has one; or why it says nothing."""
        from .trainer import of_a_passage

        if self.teacher is None:
            return passage
        self.trainer.stack.release()  # the bare model is the teacher
        try:
            return self.teacher.teach(passage)
        except Exception as error:
            if out_of_memory(error):
                free_memory()
                return Fault("a prompt of the teacher, with the passage, does not fit into memory, even alone")
            if not of_a_passage(error):
                raise
            return Fault(str(error) or type(error).__name__)


def _about(item: Item, result: Any) -> str:
    _, _, about = result
    first, last = about["losses"][0], about["losses"][-1]
    return f": loss {first:.3f} to {last:.3f}, {about['seconds']:.1f} s"
