"""Prompt ids: from a passage's question-answer pairs to the token ids of its training sequences.

After get_train_data and get_prompt of Parametric RAG (Su et al., SIGIR 2025).
"""

import json
import logging
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from ..core.errors import LoraryError, report
from ..core.files import written_whole
from ..core.private import set_backend, set_clock
from ..core.twice import refused_twice
from ..core.values import chat_date as parse_date
from ..core.values import is_text
from . import templates
from .markup import Markup, encode
from .objectives import SEQUENCES, passage_sequences, taking_turns, texts
from .rows import title_of
from .templates import fill

log = logging.getLogger(__name__)

Mark = Callable[[str], str]
Encoded = tuple[list[int], list[tuple[int, int]]]  # the ids of a text, and the characters that each is of

# the fields that each template has to use, and may use
FIELDS = {
    "passage": ({"passage"}, {"number", "passage"}),
    "example": ({"question", "answer"}, {"question", "answer"}),
    "direct.user": ({"passages", "question"}, {"passages", "question"}),
    "direct.assistant": ({"answer"}, {"answer"}),
    "cot.user": ({"passages", "question", "fewshot"}, {"passages", "question", "fewshot"}),
    "cot.assistant": ({"answer"}, {"answer"}),
    "about": ({"title"}, {"title"}),
}
# What a user's file may lack, since it came later. resources/prompt_templates.yaml has none of it either: were that
# another file, the prompt ids of every run would be made anew.
DEFAULTS = {"about": "What do you know about {title}?"}

PROMPT_SCHEMA = pa.schema(
    [
        ("did", pa.int32()),
        ("pid", pa.int32()),
        ("sequence", pa.int32()),  # position within the passage
        ("length", pa.int32()),  # before the cut at max_length
        ("input_ids", pa.list_(pa.int32())),
        ("begin", pa.int32()),  # the ids from here on are predicted (null: all)
        ("end", pa.int32()),  # up to here, which is left out (null: to the last)
        ("error", pa.string()),  # why this passage has no ids
    ]
)
# Of an objective with a teacher: its ids too, which end as input_ids do.
TAUGHT_SCHEMA = PROMPT_SCHEMA.append(pa.field("teacher", pa.list_(pa.int32())))


class Made(NamedTuple):
    """A training sequence, before the cut."""

    ids: list[int]
    begin: int | None = None  # from where on they are predicted (None: all are)
    teacher: list[int] | None = None  # the same end, after a prompt with the passage


@dataclass
class Chat:
    """Everything that turns a user's turn into ids."""

    tokenizer: Any
    chat_date: str
    chat_template_kwargs: dict[str, Any]  # variables of the model's chat template
    markup: Markup | None  # where what templates are filled with is plain text

    def ids(self, template: str, values: dict[str, str]) -> list[int]:
        """The ids of the user's turn, up to where the assistant begins. Raises what a chat template raises, as
        LoraryError."""
        return self.read(lambda mark: [self.turn(fill(template, **{k: mark(text) for k, text in values.items()}))])[0][
            0
        ]

    def turn(self, user: str) -> str:
        """The user's turn in the model's chat format, up to where the assistant begins."""
        set_clock(self.tokenizer, parse_date(self.chat_date))  # no template sees the real one
        message = {"role": "user", "content": user}
        return self.tokenizer.apply_chat_template(
            [message], tokenize=False, add_generation_prompt=True, **self.chat_template_kwargs
        )

    def read(self, texts: Callable[[Mark], Sequence[str]]) -> list[Encoded]:
        """Each text, tokenised on its own. What templates are filled with goes through the function that `texts` is
        given."""
        if self.markup is None:
            return [encode(self.tokenizer, text) for text in texts(str)]
        return list(map(self.markup.read, texts(str), texts(self.markup.mark)))


@dataclass
class Prompter(Chat):
    """Everything that turns a question into ids."""

    templates: dict[str, str]  # keys of FIELDS
    examples: list[dict[str, str]]  # that the prompt shows; none without chain of thought
    with_cot: bool

    def text(self, question: str, contexts: list[str], answer: str | None, mark: Mark = str) -> tuple[str, str]:
        """The user's turn up to where the assistant begins, in the model's chat format; and the assistant's text, only
        its opening where there is no answer. What templates are filled with goes through `mark`."""
        style = "cot" if self.with_cot else "direct"
        numbered = enumerate(contexts, start=1)
        passages = "".join(fill(self.templates["passage"], number=str(n), passage=mark(text)) for n, text in numbered)
        shown = ({key: mark(text) for key, text in example.items()} for example in self.examples)
        fewshot = "".join(fill(self.templates["example"], **example) for example in shown)
        question = mark(clean_question(question))
        user = fill(self.templates[f"{style}.user"], passages=passages, question=question, fewshot=fewshot)
        answer = "" if answer is None else mark(clean_answer(answer))
        return self.turn(user), fill(self.templates[f"{style}.assistant"], answer=answer)

    def prompt_ids(self, question: str, contexts: list[str]) -> list[int]:
        """The ids that an answer is to follow: the assistant's opening tokenised on its own and appended."""
        (before, _), (opening, _) = self.encoded(question, contexts, None)
        return before + opening

    def answer_ids(self, question: str, answer: str) -> tuple[list[int], int]:
        """The ids of a question without passages as in training, up to the end of its answer; and where that begins."""
        ids, begin, end = self.sequence(question, [], answer)
        return ids[:end], begin

    def sequence(self, question: str, contexts: list[str], answer: str) -> tuple[list[int], int, int]:
        """The ids of a training sequence; and where in it the answer begins, and ends."""
        (before, _), (ids, spans) = self.encoded(question, contexts, answer)
        template = self.templates["cot.assistant" if self.with_cot else "direct.assistant"]
        begin = len(fill(template.partition("{answer}")[0]))
        end = begin + len(clean_answer(answer))
        places = [i for i, (first, last) in enumerate(spans) if last > begin and first < end]
        return before + ids, len(before) + places[0], len(before) + places[-1] + 1

    def encoded(self, question: str, contexts: list[str], answer: str | None) -> list[Encoded]:
        """Each of the two of `text`, tokenised on its own."""
        return self.read(partial(self.text, question, contexts, answer))

    def about(self, title: str, text: str) -> Made:
        """The ids of a text that is to be known, as the answer to a question for it; and where it begins."""
        (before, _), (ids, _) = self.read(
            lambda mark: [self.turn(fill(self.templates["about"], title=mark(title))), mark(text)]
        )
        return Made(before + ids, len(before))


def build(
    rows: list[dict[str, Any]],
    prompter: Prompter,
    max_length: int,
    objective: str = "reference",
    contexts: str | None = None,
) -> pa.Table:
    """The prompt ids of passages (rows of the data table), a row a sequence, cut at `max_length`; which sequences, the
    config's keys `objective` and `contexts` say.

    A passage whose ids cannot be made gets one row that says why, and fails in its training job, alone.
    """
    table = []
    cut = failed = 0
    for row in rows:
        place = {"did": row["did"], "pid": row["pid"]}
        try:
            if row.get("error"):  # of its augmentation
                raise LoraryError(row["error"])
            sequences = _sequences(row, prompter, objective, contexts)
            _refuse_nothing_left(sequences, max_length)
        except Exception as error:  # whatever this tokenizer or its chat template raises over this text
            failed += 1
            reason = f"{type(error).__name__}: {error}; see this passage's text and the model's chat template"
            reason = str(error) if isinstance(error, LoraryError) else reason
            log.error("data_%s/passage_%s: the prompt ids cannot be made: %s", row["did"], row["pid"], reason)
            table.append({**place, "sequence": 0, "length": 0, "input_ids": [], "error": reason})
            continue
        for i, (ids, begin, teacher) in enumerate(sequences):
            over = max(0, len(ids) - max_length)
            cut += over > 0
            line = {"sequence": i, "length": len(ids), "input_ids": ids[:max_length], "begin": begin, "error": None}
            table.append({**place, **line} | ({"teacher": teacher[: len(teacher) - over]} if teacher else {}))
    tokens = sum(len(row["input_ids"]) for row in table)
    log.info("%d passages, %d sequences, %d tokens", len(rows), len(table) - failed, tokens)
    if cut:
        log.warning("%d of %d sequences were cut at max_length=%d", cut, len(table) - failed, max_length)
    return pa.Table.from_pylist(table, schema=TAUGHT_SCHEMA if SEQUENCES[objective].teacher else PROMPT_SCHEMA)


def _sequences(row: dict[str, Any], prompter: Prompter, objective: str, contexts: str | None) -> list[Made]:
    """The training sequences of a passage, in order.

    Where only the answer is predicted, so is what the template has the assistant say after it: as much as the reference
    trains, which adds no token for the end of a turn. Raises LoraryError.
    """
    how = SEQUENCES[objective]
    if how.teacher and row["passage"] is None:
        raise LoraryError(f"objective: {objective} needs a passage for its teacher's prompt, and this one has none")
    asked = []
    for question, context, answer in passage_sequences(row, prompter.with_cot, contexts or how.contexts):
        shown = [] if context is None else [context]
        if how.answers_only:
            ids, begin, _ = prompter.sequence(question, shown, answer)
            teacher = prompter.sequence(question, [row["passage"]], answer)[0] if how.teacher else None
            asked.append(Made(ids, begin, teacher))
        else:
            asked.append(Made([i for ids, _ in prompter.encoded(question, shown, answer) for i in ids]))
    told = [prompter.about(*text) for text in texts(row, title_of(row))] if how.texts else []
    return taking_turns(asked, told)


def _refuse_nothing_left(sequences: list[Made], max_length: int) -> None:
    """Raises LoraryError where the cut leaves nothing to predict of a sequence: its loss would be that of no token."""
    for i, (ids, begin, _) in enumerate(sequences):
        if begin is not None and begin >= min(len(ids), max_length):
            raise LoraryError(
                f"nothing of sequence {i} is left to learn: that begins after {begin} of its {len(ids)} tokens, and"
                f" max_length={max_length} cuts it away; raise that"
            )


def clean_question(question: str) -> str:
    """Stripped, and ending with a question mark that no space precedes."""
    question = question.strip()
    if question.endswith(" ?"):
        return question[:-1].strip() + "?"
    return question if question.endswith("?") else question + "?"


def clean_answer(answer: str) -> str:
    """Stripped, and ending with a full stop."""
    answer = answer.strip()
    return answer if answer.endswith(".") else answer + "."


def load_prompter(model: str, setting: dict[str, Any]) -> Prompter:
    """Read the tokenizer of a base model, templates and few-shot examples, as the config's keys `prompt_templates`,
    `fewshot` and `with_cot` have them, and those of `load_chat`. Raises LoraryError."""
    wording = load_templates(setting["prompt_templates"])
    examples = load_fewshot(setting["fewshot"]) if setting["with_cot"] else []
    return Prompter(
        **vars(load_chat(model, setting)), templates=wording, examples=examples, with_cot=setting["with_cot"]
    )


def load_chat(model: str, setting: dict[str, Any]) -> Chat:
    """Read the tokenizer of a base model, for the config's keys `chat_date` and, where they are set,
    `chat_template_kwargs` and `split_special_tokens`. Raises LoraryError."""
    tokenizer, variables = load_tokenizer(model), setting.get("chat_template_kwargs", {})
    for name in variables:
        if not re.search(rf"\b{name}\b", tokenizer.get_chat_template()):
            raise LoraryError(
                f"chat_template_kwargs: the chat template of {model} reads no {name}, so it would change nothing."
                " chat_template.jinja there has the names that it reads."
            )
    markup = Markup(tokenizer) if setting.get("split_special_tokens", False) else None
    return Chat(tokenizer, setting["chat_date"], variables, markup)


def load_tokenizer(model: str):
    """The tokenizer of a base model directory, without torch and the rest of transformers. Its ids are those of
    tokenizer.json, whatever tokens its settings name beside those."""
    from transformers.tokenization_utils_tokenizers import TokenizersBackend

    tokenizer = TokenizersBackend.from_pretrained(model)
    set_backend(tokenizer, f"{model}/tokenizer.json")
    if not tokenizer.chat_template:
        raise LoraryError(
            f"{model}: this tokenizer has no chat template, so it belongs to no instruction-tuned model."
            " Use one that was tuned to follow instructions, or add chat_template.jinja to the model's directory."
        )
    return tokenizer


def load_templates(path: str) -> dict[str, str]:
    """The templates of a YAML file by their names, `direct.user` and so on, checked. Raises LoraryError."""
    return templates.load("prompt_templates", path, FIELDS, DEFAULTS)


def load_fewshot(path: str) -> list[dict[str, str]]:
    """The few-shot examples of a JSON file, a list of question and answer, checked."""
    try:
        examples = json.loads(Path(path).read_bytes(), object_pairs_hook=refused_twice)
    except (OSError, ValueError, RecursionError) as error:
        raise LoraryError(f"fewshot: {path} cannot be read as JSON: {error}") from None
    if not isinstance(examples, list) or not examples:
        raise LoraryError(f"fewshot: {path} is not a list of {{question, answer}} with at least one entry.")
    faults = [
        f"entry {i}, {key}: expected text"
        for i, example in enumerate(examples)
        for key in ("question", "answer")
        if not isinstance(example, dict) or not is_text(example.get(key))
    ]
    if faults:
        raise report(faults, f"fewshot: {path} is not a list of {{question, answer}}:")
    return [{key: example[key] for key in ("question", "answer")} for example in examples]


def save(table: pa.Table, path: str) -> None:
    # Small row groups: a training job reads its passages one after the other, whatever their number.
    with written_whole(path) as temporary:
        pq.write_table(table, temporary, compression="zstd", row_group_size=256, write_page_checksum=True)
