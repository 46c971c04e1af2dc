"""The job that reads passages with the base model, and keeps what it holds of them, for translators."""

import hashlib
import logging
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from ..core.device import free_memory, limited_memory, out_of_memory, take_device
from ..core.errors import LoraryError, damaged
from ..core.files import written_whole
from ..core.values import Position
from ..core.work import Fault, divided
from ..data import rows as table
from ..data.markup import Markup, encode
from ..data.prompts import load_tokenizer
from ..plan import layout

log = logging.getLogger(__name__)

AT_ONCE = 16  # passages
EPS = 1e-6
LARGEST = 65504  # that float16 holds
OF_FILE = ("did", "pid", "length")
# In the metadata, of each passage: the sha256 of its text, and that of all there is of it
TEXTS, SEALS = "texts", "seals"

Arrays = dict[str, np.ndarray]  # of a passage, by name; their rows are tokens


def embed(
    output: str,
    passages: str,
    rows: list[int],
    model: str,
    states: str,
    modules: list[str],
    precision: str,
    max_length: int,
    threads: int,
    split_special_tokens: bool = False,
) -> None:
    """Read the passages of some rows (from, up to) of the table `passages`, each alone and without a chat template, at
    most `max_length` tokens of it, and write what translators are to know of them, one after the other.
    `split_special_tokens`: chat markup in them is plain text.

    states: last: `states`, the last token's after the final norm, as it is, as in DyPRAG (arXiv 2503.23895);
    states: tokens: of all tokens `states`, before the first layer, half way up and after the final norm, each divided
    by its root mean square; `words`, what the head looks for where it says the token; and of each layer that `modules`
    name what it `reads`, and how long what it `writes` is. In float16.

    Raises LoraryError.
    """
    found, tokenizer = table.read(passages, rows[0], rows[1]), load_tokenizer(model)
    positions = [(row["did"], row["pid"]) for row in found]
    if lacking := [layout.place(row["did"], row["pid"]) for row in found if not row["passage"]]:
        raise LoraryError(f"{passages}: {lacking[0]} has no passage to be translated (of {len(lacking)} such).")
    markup = Markup(tokenizer) if split_special_tokens else None
    ids = [_ids(row, tokenizer, markup)[:max_length] for row in found]
    read: list[Arrays] = []
    with take_device(threads) as (device, name):
        from ..base import decoder

        frozen = decoder.load(model, precision, device)
        if reason := decoder.beyond(frozen, max(map(max, ids)), max(map(len, ids))):
            raise LoraryError(reason)
        log.info("%s on %s", model, name)
        reader = _last(frozen) if states == "last" else _tokens(frozen, modules)

        def attempt(some: list[list[int]]) -> Fault | None:
            try:
                read.extend(_read(reader, some, device))
                return None
            except Exception as error:
                if not out_of_memory(error):
                    raise
            free_memory()
            return Fault(f"{len(some[0])} tokens do not fit into memory; a lower max_length would help")

        with limited_memory(device.type):
            for start in range(0, len(ids), AT_ONCE):
                for _, fault in divided(ids[start : start + AT_ONCE], attempt):
                    if fault:
                        raise LoraryError(f"{layout.place(*positions[len(read)])}: {fault.reason}")
    texts = [table.text_sha256(row["passage"]) for row in found]
    metadata = {TEXTS: " ".join(texts), SEALS: " ".join(map(_seal, positions, texts, map(_sha256, read)))}
    did, pid = zip(*positions, strict=True)
    of_file = dict(zip(OF_FILE, (did, pid, [len(arrays["states"]) for arrays in read]), strict=True))
    content = {name: np.array(values, dtype=np.int64) for name, values in of_file.items()}
    for name in list(read[0]):  # one after the other, so that all is held once, beside the bytes of the file
        content[name] = np.concatenate([arrays.pop(name) for arrays in read])
    with written_whole(output) as temporary:
        temporary.write_bytes(save(content, metadata))


def _ids(row: dict[str, Any], tokenizer: Any, markup: Markup | None) -> list[int]:
    """The ids of a passage, with what the tokenizer puts around every text. Raises LoraryError."""
    place, text = layout.place(row["did"], row["pid"]), row["passage"]
    ids = tokenizer(text)["input_ids"]
    if not ids:
        raise LoraryError(f"{place}: this tokenizer makes no token of its passage.")
    if markup is None:
        return ids
    try:
        split, _ = markup.read(text, markup.mark(text))
    except LoraryError as error:
        raise LoraryError(f"{place}: {error}") from None
    own, _ = encode(tokenizer, text)
    before = next(i for i in range(len(ids)) if ids[i : i + len(own)] == own)
    return [*ids[:before], *split, *ids[before + len(own) :]]


Reader = Callable[[Any], dict[str, Any]]  # ids (B, T) -> tensors (B, T, ...)


def _read(reader: Reader, some: list[list[int]], device) -> list[Arrays]:
    """What there is of each of these sequences of ids."""
    import torch

    padded = torch.zeros(len(some), max(map(len, some)), dtype=torch.int64)
    for i, sequence in enumerate(some):
        padded[i, : len(sequence)] = torch.tensor(sequence)
    found = {name: tensor.float().cpu().numpy() for name, tensor in reader(padded.to(device)).items()}
    cut = [{name: each[i, : len(sequence)] for name, each in found.items()} for i, sequence in enumerate(some)]
    if len(found) == 1:
        return [{"states": arrays["states"][-1:]} for arrays in cut]
    return [{name: _small(each, name == "states") for name, each in arrays.items()} for arrays in cut]


def _last(model) -> Reader:
    from ..base.states import layers, states

    return lambda ids: {"states": states(model, ids, [layers(model)])}


def _tokens(model, modules: list[str]) -> Reader:
    from ..base.states import Watched, layers, states, words
    from ..train.keep import linear_layers

    depths, names = [0, layers(model) // 2, layers(model)], linear_layers(model, modules)
    watched = Watched(model, names)

    def read(ids) -> dict[str, Any]:
        watched.reads.clear()
        made = {"states": states(model, ids, depths), "words": words(model, ids)}
        of_tokens = (name for name, each in watched.reads.items() if each.shape[:-1] == ids.shape)
        if others := sorted(set(names) - set(of_tokens)):
            raise LoraryError(
                f"{others[0]}: this layer does not read the tokens of a text, one after the other, as those of a vision"
                f" tower or experts do not (of {len(others)} such). translator: memory needs that: leave it out of"
                " lora_target_modules."
            )
        for name in names:
            made |= {f"reads.{name}": watched.reads[name], f"writes.{name}": watched.writes[name].float().norm(dim=-1)}
        return made

    return read


def _small(each: np.ndarray, normalize: bool) -> np.ndarray:
    """In float16, where `normalize` each vector divided by its root mean square: some have sizes beyond that."""
    if normalize:
        each = each / np.sqrt(np.square(each).mean(-1, keepdims=True) + EPS)
    return np.clip(each, -LARGEST, LARGEST).astype(np.float16)


class Embedded(NamedTuple):
    """What there is of a passage, to be read from its file."""

    path: str
    position: Position
    start: int  # its first row there
    stop: int
    text: str = ""  # the sha256 of its text
    seal: str = ""  # by which it is known to be what was written; both are empty in a file of before they were

    def read(self) -> Arrays:
        """As it was written. Raises LoraryError."""
        try:
            with safe_open(self.path, "np") as file:
                names = [name for name in file.keys() if name not in OF_FILE]  # noqa: SIM118
                return {name: file.get_slice(name)[self.start : self.stop] for name in names}
        except (OSError, ValueError, SafetensorError) as error:
            raise damaged(self.path, error) from None

    def shape(self) -> list[int]:
        """(depths, C) of the states"""
        return list(self.read()["states"].shape[1:])

    def sha256(self) -> str:
        """Of all there is. Raises LoraryError where that is not what was written."""
        content = _sha256(self.read())
        if self.seal and self.seal != _seal(self.position, self.text, content):
            place = layout.place(*self.position)
            raise damaged(self.path, ValueError(f"what it has of {place} is not what was written: its sha256 differs"))
        return content


def _sha256(arrays: Arrays) -> str:
    content = hashlib.sha256()
    for name, each in sorted(arrays.items()):
        content.update(name.encode() + each.tobytes())
    return content.hexdigest()


def _seal(position: Position, text: str, content: str) -> str:
    """sha256 of all that a file says of a passage. `text`, `content`: the sha256 of these."""
    return hashlib.sha256(f"{layout.place(*position)} {text} {content}".encode()).hexdigest()


def embedded(path: str) -> Iterator[Embedded]:
    """The passages of a file that `embed` wrote, in order. Raises LoraryError."""
    try:
        with safe_open(path, "np") as file:
            did, pid, length = (file.get_tensor(name).tolist() for name in OF_FILE)
            said = file.metadata() or {}
        texts, seals = (said[key].split() if key in said else [""] * len(did) for key in (TEXTS, SEALS))
        passages = list(zip(did, pid, length, texts, seals, strict=True))
    except (OSError, ValueError, SafetensorError) as error:
        raise damaged(path, error) from None
    start = 0
    for did, pid, tokens, text, seal in passages:
        yield Embedded(path, (did, pid), start, start := start + tokens, text, seal)
