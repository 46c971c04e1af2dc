"""What is asked: the passages of a run, their adapters and the base model; some questions at a time."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from ..answer.ask import Found, NothingFound, Opened, Setting, at_work
from ..answer.predict import QUESTIONS_PER_BATCH, check_ids
from ..core.errors import LoraryError
from ..core.work import Fault, Item, in_batches
from ..plan.methods import METHODS, MIXTURE
from .chat import MOST_PASSAGES, Answered, Asked, Refused

if TYPE_CHECKING:
    from ..adapters.lora import Adapter
    from ..answer.generate import Answerer

Reply = Answered | Refused


@dataclass(frozen=True)
class Prepared:
    """A question, as the base model gets it."""

    asked: Asked
    found: list[Found]
    active: list[Found]
    ids: list[int]
    mixture: "list[list[Adapter]]"


class Library:
    def __init__(self, opened: Opened, setting: Setting, ready: "Answerer", top: int):
        """`top`: how many passages are found for a question."""
        self.opened, self.setting, self.ready, self.top = opened, setting, ready, top

    def answer(self, batch: list[Asked], wanted: Callable[[], bool] = lambda: True) -> list[Reply]:
        """The answers of questions that are `alike`, in their order; where nobody has `wanted` them any more, anything.
        One that cannot be answered is refused alone. Raises what torch raises, but for want of memory."""
        work = in_batches(QUESTIONS_PER_BATCH, partial(self._generate, wanted), "questions", _too_large)
        replies: dict[str, Reply] = {}
        items = []
        for number, asked in enumerate(batch):
            try:
                items.append(Item(str(number), "", self._prepare(asked)))
            except Refused as refused:
                replies[str(number)] = refused
        for done in work(items):
            for item, result in done:
                replies[item.key] = Refused(500, result.reason) if isinstance(result, Fault) else result
        return [replies[str(number)] for number in range(len(batch))]

    def _prepare(self, asked: Asked) -> Prepared:
        found, active = self._passages(asked)
        try:
            ids = self.setting.prompt_ids(asked.question, asked.method, found)
        except Exception as error:  # whatever this tokenizer or its chat template raises over this text
            raise Refused(400, f"The prompt cannot be made: {type(error).__name__}: {error}", "messages") from None
        try:
            check_ids(ids, self.ready, len(ids) + asked.max_tokens)
        except LoraryError as error:
            raise Refused(400, str(error), "messages", "context_length_exceeded") from None
        try:
            adapters = self.setting.load(active) if METHODS[asked.method].adapters else []
        except LoraryError as error:
            raise Refused(500, str(error)) from None
        return Prepared(asked, found, active, ids, at_work(self.ready, asked.method, adapters))

    def _passages(self, asked: Asked) -> tuple[list[Found], list[Found]]:
        """Those that a question takes, and those of them whose adapters answer."""
        method = METHODS[asked.method]
        if not method.passages and not method.adapters:
            return [], []
        try:
            if asked.passages:
                found = self.opened.named(asked.passages, "lorary.passages")
                if len(found) > MOST_PASSAGES:
                    raise LoraryError(f"lorary.passages: these are {len(found)}, and {MOST_PASSAGES} are the most.")
            else:
                found = self.opened.search(asked.question, self.top)
            return found, self.opened.active(asked.question, found, method.together) if method.adapters else []
        except NothingFound:
            raise Refused(
                400,
                "No passage shares a word with this question. Ask in other words; or name passages in lorary.passages;"
                " or ask the bare model: vanilla.",
                "messages",
                "no_passage",
            ) from None
        except LoraryError as error:
            raise Refused(400, str(error), "lorary.passages") from None

    def _generate(self, wanted: Callable[[], bool], items: list[Item]) -> list[Answered]:
        some: list[Prepared] = [item.content for item in items]
        prompts, mixtures = [one.ids for one in some], [one.mixture for one in some]
        tokens = self.ready.generate_mixed(prompts, mixtures, some[0].asked.max_tokens, wanted)
        decode = self.setting.prompter.tokenizer.decode
        return [
            Answered(decode(said, skip_special_tokens=True), len(said), len(one.ids), one.found, one.active, len(some))
            for one, said in zip(some, tokens, strict=True)
        ]


def alike(asked: Asked) -> tuple[Any, ...]:
    """What questions that are answered together have in common: so no row waits for longer answers than its own, and
    none is chosen by averaged probabilities that would be by its logits."""
    return asked.max_tokens, METHODS[asked.method].together == MIXTURE


def methods(setting: Setting) -> Iterator[str]:
    """Those that can be asked here."""
    for name, method in METHODS.items():
        if setting.source.task_adapter or not method.task:
            yield name


def _too_large(item: Item) -> str:
    return f"The prompt of {len(item.content.ids)} tokens does not fit into memory."
