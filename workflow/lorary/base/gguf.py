"""A base model from a GGUF file: its weights as safetensors in float32, and its tokenizer as llama.cpp reads it."""

import json
import logging
import os
from pathlib import Path
from typing import Any

from ..core.errors import LoraryError
from .support import unfit

log = logging.getLogger(__name__)

# How llama.cpp splits text before byte-pair encoding: regular expressions, each of which splits what the ones before it
# left (src/llama-vocab.cpp).
_ENGLISH = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
_SUFFIX = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_SPACES = r"\s*[\r\n]+|\s+(?!\S)|\s+"
_LOWER = r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+"  # a word that ends in one
_UPPER = r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*"
GPT2 = (_ENGLISH,)
DIGITS = (r"\p{N}", _ENGLISH)
LLAMA3 = (_SUFFIX + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|" + _SPACES,)
QWEN2 = (_SUFFIX + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|" + _SPACES,)
QWEN35 = (_SUFFIX + r"|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|" + _SPACES,)
TEKKEN = (f"{_LOWER}|{_UPPER}" + r"|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|" + _SPACES,)
GPT4O = (f"{_LOWER}{_SUFFIX}?|{_UPPER}{_SUFFIX}?" + r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|" + _SPACES,)
FALCON = (r"[\p{P}\$\+<=>\^~\|`]+", _ENGLISH, r"[0-9][0-9][0-9]")
DEFAULT = (r"[\p{P}\$\+<=>\^~\|]+", _ENGLISH, r"\p{N}+", r"[0-9][0-9][0-9]")
SPLITS = {  # by the value of tokenizer.ggml.pre
    **dict.fromkeys(("default",), DEFAULT),
    **dict.fromkeys(("gpt-2", "phi-2", "olmo", "mpt", "jais", "gigachat", "exaone4", "mellum", "a.x-4.0"), GPT2),
    **dict.fromkeys(("smollm", "starcoder", "refact", "command-r", "codeshell", "exaone", "minerva-7b"), DIGITS),
    **dict.fromkeys(("llama3", "llama-v3", "llama-bpe", "falcon3", "falcon-h1", "pixtral", "midm-2.0", "lfm2"), LLAMA3),
    **dict.fromkeys(("dbrx", "smaug-bpe", "chatglm-bpe", "glm4"), LLAMA3),
    **dict.fromkeys(("qwen2", "deepseek-r1-qwen", "stablelm2", "megrez", "kormo"), QWEN2),
    **dict.fromkeys(("qwen35",), QWEN35),
    **dict.fromkeys(("gpt-4o", "llama4"), GPT4O),
    **dict.fromkeys(("tekken",), TEKKEN),
    **dict.fromkeys(("falcon",), FALCON),
}
# A word that is a token is not taken apart here, though no merges lead to it.
WHOLE_WORDS = {"llama3", "llama-v3", "llama-bpe", "falcon3", "falcon-h1", "pixtral", "midm-2.0", "lfm2", "tekken"}

# For transformers 4, which looks for these in config.json and would go on without a word: said besides what
# transformers 5 writes. And a class of tokenizers by the name that both know. Digests are as if transformers 5 had
# written alone.
SAID_TWICE = ("rope_theta", "torch_dtype")
TOKENIZER_CLASSES = (b'"TokenizersBackend"', b'"PreTrainedTokenizerFast"')  # in tokenizer_config.json


def convert(gguf: Path, out: Path) -> None:
    """Write config, weights and tokenizer of a GGUF file into the folder `out`. Raises LoraryError."""
    os.environ["TQDM_DISABLE"] = "1"  # three bars for half a minute
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    kind, pre = _check(gguf)  # before the half minute
    try:
        model = AutoModelForCausalLM.from_pretrained(gguf.parent, gguf_file=gguf.name, dtype=torch.float32)
        tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
    except (OSError, ValueError, LookupError, TypeError, RuntimeError, NotImplementedError) as error:
        reason = (" ".join(str(error).split()) or type(error).__name__)[:300]
        raise LoraryError(f"model_path: transformers cannot read {gguf.name}: {reason}") from None
    if kind == "gpt2":
        _split_as(pre, tokenizer.backend_tokenizer)
    # The weights are plain float32 now; transformers would still refuse to save them as a quantized model.
    model.hf_quantizer = None
    del model.config.quantization_config
    model.save_pretrained(out)
    tokenizer.save_pretrained(out)
    _say_twice(out)
    for path in out.glob("*.safetensors"):
        path.chmod(0o666 & ~_umask())  # safetensors writes for the owner alone


def _check(gguf: Path) -> tuple[str, str]:
    """tokenizer.ggml.model and tokenizer.ggml.pre of a GGUF file whose model can be trained here. Only a byte-pair
    encoding (gpt2) has the second."""
    from gguf import GGUFReader

    try:
        fields = {key: field.contents() for key, field in GGUFReader(gguf).fields.items() if len(field.data) == 1}
    except (OSError, ValueError, LookupError) as error:
        raise LoraryError(f"model_path: {gguf.name} is no GGUF file that can be read: {error}") from None
    if reason := unfit({"num_experts": fields.get(f"{fields.get('general.architecture')}.expert_count")}):
        raise LoraryError(f"model_path: {gguf.name} {reason}")
    kind, pre = (fields.get(key) for key in ("tokenizer.ggml.model", "tokenizer.ggml.pre"))
    if kind is None:
        raise LoraryError(f"model_path: {gguf.name} has no tokenizer (tokenizer.ggml.model).")
    if kind == "gpt2" and pre is None:
        log.warning("%s does not say how text is split (tokenizer.ggml.pre): as llama.cpp does then", gguf.name)
    pre = pre or "default"
    if kind == "gpt2" and pre not in SPLITS:
        raise LoraryError(
            f"model_path: {gguf.name} splits text in a way that is not known here (tokenizer.ggml.pre: {pre}). Take the"
            " model as safetensors with its own tokenizer.json."
        )
    return kind, pre


def _split_as(pre: str, tokenizer: Any) -> None:
    from tokenizers import Regex, pre_tokenizers

    splits = [pre_tokenizers.Split(Regex(split), "isolated") for split in SPLITS[pre]]
    encode_bytes = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([*splits, encode_bytes])
    tokenizer.model.ignore_merges = pre in WHOLE_WORDS


def _say_twice(out: Path) -> None:
    path = out / "config.json"
    config = json.loads(path.read_bytes())
    theta = (config.get("rope_parameters") or {}).get("rope_theta")
    for key, value in zip(SAID_TWICE, (theta, config.get("dtype")), strict=True):
        config |= {} if value is None else {key: value}
    path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    path = out / "tokenizer_config.json"
    path.write_bytes(path.read_bytes().replace(*TOKENIZER_CLASSES))


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
