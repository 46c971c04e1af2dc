"""How replies are written, token by token: which comes next of those that a reply may have, and where it ends."""

import json
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from ..core.errors import LoraryError
from ..raw.words import UNBROKEN
from .talk import Request

if TYPE_CHECKING:
    from llguidance import LLMatcher, LLTokenizer

LIKELIEST = 50  # tokens, among which one is drawn
# From the first to the last character, neither of them a blank.
RUN = r"start: RUN" "\n" r"RUN: PART & /\S([\s\S]*\S)?/" "\n" "PART: %regex "


@dataclass
class Row:
    """A reply that is being written."""

    number: int  # of its request
    request: Request
    ids: list[int]  # of its prompt
    matcher: "LLMatcher | None"  # of the grammar that it is held to
    tokens: list[int] = field(default_factory=list)
    generator: np.random.Generator | None = None  # where it is drawn
    ended: bool = False
    finished: bool = False  # it ended by itself
    text: str = ""

    @property
    def most(self) -> int:
        return len(self.ids) + self.request.most_tokens

    def begin(self) -> None:
        """Anew, where it was begun before."""
        seed = self.request.seed
        self.tokens, self.text, self.ended, self.finished = [], "", self.request.most_tokens < 1, False
        self.generator = None if seed is None else np.random.default_rng(seed)
        if self.matcher is not None:
            self.matcher.reset()


class Writer:
    def __init__(self, tokenizer: Any, ends: set[int], vocabulary: int):
        self.tokenizer, self.ends, self.vocabulary = tokenizer, ends, vocabulary
        self.tokens: LLTokenizer | None = None  # as grammars know them, once there is one

    def row(self, number: int, request: Request, ids: list[int]) -> Row:
        """The reply to a prompt, not begun. Raises LoraryError where nothing is as the request wants it."""
        return Row(number, request, ids, self._matcher(request))

    def choose(self, logits: Tensor, rows: list[Row]) -> list[int]:
        """The next token of each row, by logits (B, V), which is added to it; any for one that has ended."""
        held = [i for i, row in enumerate(rows) if row.matcher is not None and not row.ended]
        if held:
            allowed = self._allowed([rows[i] for i in held], logits.device)
            logits[held] = logits[held].masked_fill(~allowed, -torch.inf)
        tokens = logits.argmax(-1).tolist()
        if drawn := [i for i, row in enumerate(rows) if row.generator is not None and not row.ended]:
            values, likeliest = logits[drawn].float().topk(min(LIKELIEST, logits.shape[1]))
            for i, some, ids in zip(drawn, values.cpu().double().numpy(), likeliest.cpu().numpy(), strict=True):
                tokens[i] = _draw(some, ids, rows[i])
        for row, token in zip(rows, tokens, strict=True):
            if not row.ended:
                self._add(row, token)
        return tokens

    def _add(self, row: Row, token: int) -> None:
        if token in self.ends:
            row.ended, row.finished = True, row.matcher is None or row.matcher.is_accepting()
        else:
            row.tokens.append(token)
            if row.matcher is not None:
                row.matcher.consume_token(token)
                row.ended = row.matcher.is_stopped()  # nothing can follow
                row.finished = row.ended and row.matcher.is_accepting()
        stop = row.request.stop
        if stop or row.ended or len(row.tokens) == row.request.most_tokens:
            row.text = self.tokenizer.decode(row.tokens, skip_special_tokens=True)
        if stop and stop in row.text:
            row.text = row.text.partition(stop)[0]
            row.ended = row.finished = True
        row.ended = row.ended or len(row.tokens) == row.request.most_tokens

    def _matcher(self, request: Request) -> "LLMatcher | None":
        if request.pattern is None and request.words_of is None:
            return None
        from llguidance import LLExecutor, LLMatcher
        from llguidance.hf import from_tokenizer

        if request.pattern is not None:
            grammar = LLMatcher.grammar_from_regex(request.pattern)
        else:
            source = request.words_of or ""
            parts = "substring_chars" if re.search(f"[{UNBROKEN}]", source) else "substring_words"
            grammar = LLMatcher.grammar_from_lark(RUN + json.dumps({parts: source}))
        if self.tokens is None:
            size = max(self.vocabulary, len(self.tokenizer))
            self.tokens = from_tokenizer(self.tokenizer, n_vocab=size, eos_token=sorted(self.ends) or None)
            self.executor = LLExecutor(num_threads=torch.get_num_threads())
        matcher = LLMatcher(self.tokens, grammar, log_level=0)
        if matcher.is_error():
            raise LoraryError(f"no reply is as it is wanted: {matcher.get_error()}")
        return matcher

    def _allowed(self, rows: list[Row], device: torch.device) -> Tensor:
        """Which tokens may come next in rows that are held to a grammar (B, V)."""
        from llguidance.numpy import allocate_token_bitmask, fill_next_token_bitmask_par

        assert self.tokens is not None  # there is a row with a grammar
        bits = allocate_token_bitmask(len(rows), self.tokens.vocab_size)
        matchers = [(row.matcher, i) for i, row in enumerate(rows) if row.matcher is not None]
        fill_next_token_bitmask_par(self.executor, matchers, bits)
        each = torch.from_numpy(bits).to(device)[:, :, None] >> torch.arange(32, dtype=torch.int32, device=device)
        return each.bitwise_and_(1).bool().flatten(1)[:, : self.vocabulary]


def _draw(logits: np.ndarray, ids: np.ndarray, row: Row) -> int:
    """One of these tokens at the row's temperature."""
    assert row.generator is not None
    order = np.lexsort((ids, -logits))  # equal ones in one order, whatever the device says
    weights = np.exp((logits[order] - logits.max()) / row.request.temperature).cumsum()
    place = np.searchsorted(weights, row.generator.random() * weights[-1], side="right")
    return int(ids[order][place])
