"""Chat markup in passages, questions and answers, read as plain text: the control tokens that a template writes are
told from the same characters in what it is filled with."""

import json
import re
from functools import cached_property
from typing import Any

from tokenizers import AddedToken, Tokenizer

from ..core.errors import LoraryError

# Put into what a template is filled with, at both ends, and after the first character of any markup; taken out again
# before the text is encoded. Templates strip them as they strip blanks, and no text needs them.
EDGE, BROKEN = "\x1e", "\x1f"
# Characters of no meaning that stand for control tokens while a text is encoded.
STAND_INS = 0xF0000


class Markup:
    """The control tokens of a tokenizer: all added tokens but those of blanks, as `<|im_end|>` or `<think>`."""

    def __init__(self, tokenizer: Any):
        self.tokenizer = tokenizer
        self.tokens: dict[int, AddedToken] = {
            number: token for number, token in tokenizer.added_tokens_decoder.items() if token.content.strip()
        }
        contents = sorted((token.content for token in self.tokens.values()), key=len, reverse=True)
        any_token = "|".join(map(re.escape, contents)) or "(?!)"
        self._token = re.compile(f"(?:{any_token})(?!{BROKEN})")
        self._begin = re.compile(f"(?=(?:{any_token}))(.)", re.DOTALL)
        # As many as the token has characters, so that places in a text stay as they are.
        self._stand_in = {
            token.content: chr(STAND_INS + i) * len(token.content) for i, token in enumerate(self.tokens.values())
        }

    def mark(self, value: str) -> str:
        """What a template is to be filled with, so that no control token is in it any more, nor at its ends. Raises
        LoraryError."""
        if EDGE in value or BROKEN in value:
            raise LoraryError(
                "split_special_tokens: a text has the control character \\x1e or \\x1f, which none may have"
            )
        return EDGE + self._begin.sub(rf"\1{BROKEN}", value) + EDGE

    def read(self, text: str, marked: str) -> tuple[list[int], list[tuple[int, int]]]:
        """The ids of a text, and the characters that each is of. `marked` is the same text filled with marked values:
        what is a control token in it is one, and nothing else. Raises LoraryError."""
        if _without_marks(marked) != text:
            raise LoraryError("split_special_tokens: the chat template changes this text, or depends on its markup")
        own = _without_marks(self._token.sub(self._replace, marked))
        count = len(self._token.findall(marked))
        if own == self._token.sub(self._replace, text):  # mostly: there is no markup but the template's
            encoded = encode(self.tokenizer, text)
            if sum(number in self.tokens for number in encoded[0]) == count:  # nor any that normalising makes
                return encoded
        if set("".join(self._stand_in.values())) & set(text):
            raise LoraryError("split_special_tokens: a text with markup has characters of Unicode's private plane 15")
        backend, ids = self._plain
        encoding = backend.encode(own, add_special_tokens=False)
        if sum(ids.get(number) in self.tokens for number in encoding.ids) != count:
            raise LoraryError("split_special_tokens: this tokenizer finds other control tokens than the template wrote")
        made = [self.tokens[number].content for number in self.tokens.keys() & set(encoding.ids) - ids.keys()]
        if made := [content for content in made if content in text]:  # not what stands for the unknown
            raise LoraryError(f"split_special_tokens: this tokenizer makes {made[0]} of plain text too")
        return [ids.get(number, number) for number in encoding.ids], encoding.offsets

    def _replace(self, token: re.Match) -> str:
        return self._stand_in[token[0]]

    @cached_property
    def _plain(self) -> tuple[Tokenizer, dict[int, int]]:
        """The tokenizer with stand-ins for its control tokens; and the ids of its added tokens by those that they have
        there."""
        state = json.loads(self.tokenizer.backend_tokenizer.to_str())
        backend = Tokenizer.from_str(json.dumps({**state, "added_tokens": [], "truncation": None, "padding": None}))
        ids: dict[int, int] = {}
        for number, token in self.tokenizer.added_tokens_decoder.items():
            content = self._stand_in.get(token.content, token.content)
            how = {key: getattr(token, key) for key in ("lstrip", "rstrip", "single_word", "normalized")}
            backend.add_tokens([AddedToken(content, special=token.special, **how)])
            if (there := backend.token_to_id(content)) is not None:
                ids[there] = number
        return backend, ids


def _without_marks(text: str) -> str:
    return text.replace(EDGE, "").replace(BROKEN, "")


def encode(tokenizer: Any, text: str) -> tuple[list[int], list[tuple[int, int]]]:
    """The ids of a text, control tokens in it among them, and the characters that each is of."""
    encoded = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    return encoded["input_ids"], encoded["offset_mapping"]
