"""The job that asks the base model what it knows beside any passage, for adapters to spare it."""

import logging
import random
from itertools import chain

import numpy as np

from ..adapters.files import PREFIX, is_target
from ..base.fetch import end_tokens, fingerprint
from ..core.device import limited_memory, out_of_memory, take_device
from ..core.errors import LoraryError
from ..core.store import digest
from ..data.keep import read_questions
from ..data.prompts import Prompter
from ..data.sequences import Example
from ..plan.keep import KEEP
from .kept import Kept, write_kept

log = logging.getLogger(__name__)

ANSWER_TOKENS = 20  # of an answer, at most


def keep(
    output: str,
    model: str,
    questions: str,
    prompter: Prompter,
    share: float,
    target_modules: list[str],
    precision: str,
    threads: int,
    task_adapter: dict[str, str] | None = None,
) -> None:
    """Write what the base model answers to the questions of a file, and the directions that hold this `share` of what
    goes into each layer of these names, over these questions and answers (0: none).

    With a `task_adapter` (its `path` and `sha256`), the base model is what all passages are trained over. Raises
    LoraryError.
    """
    from ..adapters.task import load_task_adapter, merge_task_adapter
    from ..base import decoder
    from ..base.greedy import greedy
    from .directions import directions_of
    from .teacher import at_once

    prompts = [prompter.prompt_ids(question, []) for question in read_questions(questions)]
    random.Random(0).shuffle(prompts)  # noqa: S311 (questions of one kind stand together in the file)
    with take_device(threads) as (device, name):
        log.info("%s on %s", model, name)
        frozen = decoder.load(model, precision, device)
        highest, longest = max(map(max, prompts)), max(map(len, prompts)) + ANSWER_TOKENS
        if reason := decoder.beyond(frozen, highest, longest):
            raise LoraryError(f"keep_questions: {questions}: {reason}")
        if task_adapter:
            merge_task_adapter(frozen, load_task_adapter(task_adapter, frozen))
        names = [f"{PREFIX}{layer}.lora_A.weight" for layer in linear_layers(frozen, target_modules)]
        try:
            with limited_memory(device.type):
                ends = end_tokens(model)
                answers = chain(*at_once(lambda some: greedy(frozen, some, ends, ANSWER_TOKENS), prompts))
                sequences = [
                    Example(np.array(prompt + answer, dtype=np.int32), len(prompt))
                    for prompt, answer in zip(prompts, answers, strict=True)
                    if answer
                ]
                directions = directions_of(frozen, names, sequences, share) if share and sequences else {}
        except Exception as error:
            if not out_of_memory(error):
                raise
            raise LoraryError(
                f"What {model} is to keep does not fit into memory beside it. precision: bfloat16 takes half for the"
                " model; keep_directions: 0, with keep_sequences, takes none for directions."
            ) from None
    if not sequences:
        raise LoraryError(f"{model} answers none of the questions of {questions}: there is nothing to keep.")
    log.info("%d of %d questions have an answer, such as:", len(sequences), len(prompts))
    for example in sequences[:5]:
        log.info("  %s", prompter.tokenizer.decode(example.ids[example.begin :]))
    if directions:
        some, of = (np.mean([each.shape[i] for each in directions.values()]) for i in (1, 0))
        log.info("%.0f of %.0f directions a layer hold %g of its activations", some, of, share)
    decides = {"version": KEEP, "model": fingerprint(model)["weights"], "precision": precision, "tokens": ANSWER_TOKENS}
    decides |= {"share": share, "layers": names if share else [], "ends": sorted(ends)}
    decides |= {"task_adapter": task_adapter["sha256"]} if task_adapter else {}
    key = digest(decides, ((np.array(ids, dtype=np.int32), None) for ids in prompts))
    write_kept(output, Kept(key, sequences, directions))


def linear_layers(model, target_modules: list[str]) -> list[str]:
    """The linear layers that adapters change."""
    from torch import nn

    from ..base.frozen import FrozenLinear

    return [
        name
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear | FrozenLinear) and is_target(name, target_modules)
    ]
