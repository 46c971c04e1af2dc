"""The job that asks the base model what it knows beside any passage, for adapters to spare it."""

import logging
import random

import numpy as np

from ..adapters.files import read_adapter
from ..base.fetch import end_tokens
from ..core.device import limited_memory, take_device
from ..core.errors import LoraryError
from ..data.keep import read_questions
from ..data.prompts import Prompter
from ..data.sequences import Example
from .kept import write_kept

log = logging.getLogger(__name__)

ANSWER_TOKENS = 20  # of an answer, at most


def keep(
    output: str,
    model: str,
    base_weight: str,
    questions: str,
    prompter: Prompter,
    share: float,
    precision: str,
    threads: int,
    task_adapter: dict[str, str] | None = None,
) -> None:
    """Write what the base model answers to the questions of a file, and the directions that hold this `share` of what
    goes into each layer that an adapter like `base_weight` changes, over these questions and answers (0: none).

    With a `task_adapter`, the base model is what all passages are trained over. Raises LoraryError.
    """
    from ..adapters.task import load_task_adapter, merge_task_adapter
    from ..base import decoder
    from ..base.greedy import greedy
    from .directions import directions_of

    prompts = [prompter.prompt_ids(question, []) for question in read_questions(questions)]
    random.Random(0).shuffle(prompts)  # noqa: S311 (questions of one kind stand together in the file)
    with take_device(threads) as (device, name):
        log.info("%s on %s", model, name)
        frozen = decoder.load(model, precision, device)
        if task_adapter:
            merge_task_adapter(frozen, load_task_adapter(task_adapter, frozen))
        with limited_memory(device.type):
            answers = greedy(frozen, prompts, end_tokens(model), ANSWER_TOKENS)
            sequences = [
                Example(np.array(prompt + answer, dtype=np.int32), len(prompt))
                for prompt, answer in zip(prompts, answers, strict=True)
                if answer
            ]
            if not sequences:
                raise LoraryError(f"{model} answers none of the questions of {questions}: there is nothing to keep.")
            log.info("%d of %d questions have an answer, such as:", len(sequences), len(prompts))
            for example in sequences[:5]:
                log.info("  %s", prompter.tokenizer.decode(example.ids[example.begin :]))
            names = [name for name in read_adapter(base_weight)[1] if ".lora_A." in name]
            directions = directions_of(frozen, names, sequences, share) if share else {}
    if directions:
        widths = [each.shape for each in directions.values()]
        some, of = (sum(width[i] for width in widths) / len(widths) for i in (1, 0))
        log.info("%.0f of %.0f directions a layer hold %g of its activations", some, of, share)
    write_kept(output, sequences, directions)
