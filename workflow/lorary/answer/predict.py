"""The prediction job: questions answered with one method, each row of a batch with the adapters of its question.

After inference.py of Parametric RAG (Su et al., SIGIR 2025).
"""

import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from ..base.fetch import end_tokens, fingerprint
from ..core import work
from ..core.device import limited_memory, take_device
from ..core.errors import LoraryError
from ..core.files import written_whole
from ..core.work import Item, Work, in_batches, key
from ..data.prompts import Prompter
from ..plan import layout
from ..plan.methods import METHODS, ROUTED, SUM
from .source import Source

if TYPE_CHECKING:
    from .generate import Answerer

log = logging.getLogger(__name__)

QUESTIONS_PER_BATCH = 32
# Goes up with every change that makes answers differ by more than rounding: all are made again then.
NUMERICS = 1


def predict(
    output: str,
    finished: str,
    rows: list[dict[str, Any]],
    method: str,
    prompter: Prompter,
    source: Source,
    model: str,
    precision: str,
    max_new_tokens: int,
    threads: int,
    routed: dict[int, list[int]] | None = None,
) -> None:
    """Answer the questions of some rows of a table (greedy, at most `max_new_tokens`), and write them to `output`: a
    JSON list of did, test_id, question, answer (list of aliases) and text. What is finished is kept in `finished`.

    `routed`: by did, the pids of the passages whose adapters are active, where not all of the question's are. Raises
    LoraryError.
    """
    way = METHODS[method].together
    about = fingerprint(model)
    settings = [NUMERICS, about["weights"], about["tokenizer"], sorted(end_tokens(model)), precision, max_new_tokens]
    questions, items, failures = _questions(rows), [], []
    for question in questions:
        place = f"question {question['did']}"
        try:
            ids = prompter.prompt_ids(question["question"], question["passages"] if METHODS[method].passages else [])
        except Exception as error:  # whatever this tokenizer or its chat template raises over this text
            failures.append(f"{place}: its prompt cannot be made: {type(error).__name__}: {error}")
            continue
        positions = question["positions"] if METHODS[method].adapters else []
        if routed is not None:
            positions = [(question["did"], pid) for pid in routed[question["did"]]]
        others = () if way in (SUM, ROUTED) else (way,)  # what is routed is a sum at other positions
        digests = [source.digest(position) for position in positions]
        if METHODS[method].task and source.task_adapter:
            digests = [source.task_adapter["sha256"]]
        decides = [ids, digests, *others]
        items.append(Item(key(settings, decides), place, {"ids": ids, "positions": positions}))

    @contextmanager
    def begin() -> Iterator[Work]:
        some = next((position for item in items for position in item.content["positions"]), None)
        with answerer(model, precision, threads, source, some) as ready:
            from .generate import together

            def answer(batch: list[Item]) -> list[str]:
                for item in batch:
                    ids = item.content["ids"]
                    check_ids(ids, ready, len(ids) + max_new_tokens)
                alone = [ready.task] if METHODS[method].task and ready.task else []
                active = [alone + [source.load(p) for p in item.content["positions"]] for item in batch]
                mixtures = [together(adapters, way) for adapters in active]
                tokens = ready.generate_mixed([item.content["ids"] for item in batch], mixtures, max_new_tokens)
                return [prompter.tokenizer.decode(some, skip_special_tokens=True) for some in tokens]

            yield in_batches(QUESTIONS_PER_BATCH, answer, "questions", _too_large)

    texts = work.results(finished, items, begin, ("question", "questions"), failures)
    answers = [
        {**{name: question[name] for name in ("did", "test_id", "question", "answer")}, "text": text}
        for question, text in zip(questions, texts, strict=True)
    ]
    for former in layout.superseded(output):
        former.unlink(missing_ok=True)
    with written_whole(output) as temporary:
        temporary.write_text(json.dumps(answers, indent=1) + "\n", encoding="utf-8")


@contextmanager
def answerer(model: str, precision: str, threads: int, source: Source, some: Any) -> Iterator["Answerer"]:
    """An Answerer on a device, for adapters like the one at this position (None: without), over the task adapter of
    these."""
    with take_device(threads) as (device, name):
        from .generate import Answerer

        names = [] if some is None else list(source.load(some).tensors)
        ready = Answerer(model, precision, device, names, source.task_adapter)
        log.info("%s on %s", model, name)
        with limited_memory(device.type):
            yield ready


def check_ids(ids: list[int], ready: "Answerer", length: int) -> None:
    """Raises LoraryError where the model cannot read these ids, in a sequence of so many tokens."""
    from ..base.decoder import beyond

    if reason := beyond(ready.model, max(ids), length):
        raise LoraryError(reason)


def _too_large(item: Item) -> str:
    return f"its prompt of {len(item.content['ids'])} tokens does not fit into memory"


def _questions(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """A dictionary a question out of the rows of its passages."""
    questions: dict[int, dict[str, Any]] = {}
    for row in rows:
        question = questions.setdefault(
            row["did"],
            {
                "did": row["did"],
                "test_id": json.loads(row["extra"])["question"].get("test_id", row["did"]),
                "question": row["question"],
                "answer": row["answers"],
                "passages": [passage for passage in row["passages"] if passage is not None],
                "positions": [],
            },
        )
        question["positions"].append((row["did"], row["pid"]))
    return list(questions.values())
