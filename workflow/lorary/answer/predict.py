"""The prediction job: questions answered with one method, each row of a batch with the adapters of its question.

vanilla is the bare model; icl has the passages in the prompt; prag has the adapters of the question's passages, active
together; combine has both. After inference.py of Parametric RAG (Su et al., SIGIR 2025).
"""

import json
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ..adapters.files import CONFIG, TENSORS, read_adapter
from ..base.fetch import end_tokens, fingerprint
from ..core import work as journal
from ..core.device import limited_memory, take_device
from ..core.errors import LoraryError
from ..core.files import written_whole
from ..core.store import sha256
from ..data import rows as dataset
from ..data.prompts import Prompter
from ..plan.answer import WITH_ADAPTERS
from ..train.encode import Position
from ..train.index import read_record

log = logging.getLogger(__name__)

QUESTIONS_PER_BATCH = 32
# Goes up with every change that makes answers differ by more than rounding: all are made again then.
NUMERICS = 1


def predict(
    output: str,
    journal_file: str,
    table: str,
    rows: tuple[int, int],
    method: str,
    prompter: Prompter,
    records: list[str],
    model: str,
    precision: str,
    max_new_tokens: int,
    threads: int,
) -> None:
    """Answer the questions of some rows of a table (greedy, at most `max_new_tokens`), and write them to `output`: a
    JSON list of did, test_id, question, answer (list of aliases) and text.

    `records` are those of the training jobs whose adapters are used. Raises LoraryError.
    """
    trained = Trained(records)
    questions = _questions(dataset.read(table, *rows))
    failures = []
    for question in questions:
        contexts = question["passages"] if method in ("icl", "combine") else []
        try:
            question["ids"] = prompter.prompt_ids(question["question"], contexts)
        except Exception as error:  # whatever this tokenizer or its chat template raises over this text
            failures.append(f"question {question['did']}: its prompt cannot be made: {type(error).__name__}: {error}")
            continue
        positions = question["positions"] if method in WITH_ADAPTERS else []
        question["adapters"] = [trained.adapter(position) for position in positions]
    about = fingerprint(model)
    settings = [NUMERICS, about["weights"], about["tokenizer"], sorted(end_tokens(model)), precision, max_new_tokens]
    asked = [question for question in questions if "ids" in question]
    batches = [
        journal.Batch(journal.key(settings, [(q["ids"], [digest for _, digest in q["adapters"]]) for q in some]), some)
        for some in (asked[i : i + QUESTIONS_PER_BATCH] for i in range(0, len(asked), QUESTIONS_PER_BATCH))
    ]

    @contextmanager
    def begin() -> Iterator[Callable[[list[dict]], list[str]]]:
        with answerer(model, precision, threads, [path for q in asked for path, _ in q["adapters"]][:1]) as ready:
            yield lambda some: [
                prompter.tokenizer.decode(tokens, skip_special_tokens=True)
                for tokens in _answer(ready, some, max_new_tokens)
            ]

    texts = journal.finish(journal_file, batches, begin, "questions")
    if failures:
        raise LoraryError("\n  ".join(["Some questions failed; the others are kept:", *failures]))
    answers = []
    for question, text in zip(asked, (text for batch in texts for text in batch), strict=True):
        answers.append({**{key: question[key] for key in ("did", "test_id", "question", "answer")}, "text": text})
    with written_whole(output) as temporary:
        temporary.write_text(json.dumps(answers, indent=1) + "\n")


class Trained:
    """The adapters that training jobs have made, by the position of their passages."""

    def __init__(self, records: list[str]):
        self.lines = {
            (int(line["did"]), int(line["pid"])): line
            for record in records
            for line in read_record(record).to_dict("records")
        }

    def adapter(self, position: Position) -> tuple[str, str]:
        """Its directory, and the digest of its content. Raises LoraryError where it is not what was trained."""
        line = self.lines[position]
        path = Path(line["path"])
        for name, digest in ((TENSORS, line["sha256"]), (CONFIG, line["config_sha256"])):
            found = sha256(path / name)
            if found != digest:
                fault = "is missing" if not found else "is not what was trained (its sha256 differs)"
                raise LoraryError(
                    f"{path / name} {fault}. `snakemake verify` removes what is damaged, and the next call links or"
                    " trains it again."
                )
        return str(path), line["sha256"]


@contextmanager
def answerer(model: str, precision: str, threads: int, some_adapter: list[str]) -> Iterator[Any]:
    """An Answerer on a device, for adapters like this one (or none)."""
    with take_device(threads) as (device, name):
        from .generate import Answerer

        names = [name for path in some_adapter for name in read_adapter(path)[1]]
        ready = Answerer(model, precision, device, names)
        log.info("%s on %s", model, name)
        with limited_memory(device.type):
            yield ready


def _answer(ready: Any, questions: list[dict], max_new_tokens: int) -> list[list[int]]:
    """The tokens of each answer; by halves where a batch does not fit into memory. Raises LoraryError."""
    from ..base.decoder import out_of_memory
    from .generate import load_adapter

    vocabulary = ready.model.get_input_embeddings().num_embeddings
    for question in questions:
        if max(question["ids"]) >= vocabulary:  # a GPU would fail beyond repair
            raise LoraryError(
                f"question {question['did']}: token id {max(question['ids'])} is beyond the model's vocabulary of"
                f" {vocabulary}; is the tokenizer another's?"
            )
    try:
        sets = [[load_adapter(path) for path, _ in question["adapters"]] for question in questions]
        return ready.generate([question["ids"] for question in questions], sets, max_new_tokens)
    except Exception as error:
        if not out_of_memory(error):
            raise
    if ready.device.type == "cuda":
        import torch

        torch.cuda.empty_cache()
    if len(questions) == 1:
        tokens = len(questions[0]["ids"])
        raise LoraryError(f"question {questions[0]['did']}: its prompt of {tokens} tokens does not fit into memory")
    half = (len(questions) + 1) // 2
    log.warning("%d questions do not fit into memory together: going on by halves", len(questions))
    return [a for part in (questions[:half], questions[half:]) for a in _answer(ready, part, max_new_tokens)]


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
                "passages": row["passages"],
                "positions": [],
            },
        )
        question["positions"].append((row["did"], row["pid"]))
    return list(questions.values())
