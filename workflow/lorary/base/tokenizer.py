"""The tokenizer of a base model: its own tokenizer.json, with the chat template and the names of its special tokens."""

import json
import logging
import shutil
from pathlib import Path

from ..core.errors import LoraryError

log = logging.getLogger(__name__)


def take_tokenizer(source: Path, out: Path, trust_remote_code: bool) -> None:
    """Put the tokenizer of the model directory `source` into the folder `out`. Raises LoraryError.

    tokenizer.json is copied: what transformers makes of it through a tokenizer class splits some text otherwise. One is
    made by transformers where there is none; and the class, whose defaults are the model's too, says what special
    tokens there are.
    """
    from transformers import AutoConfig, AutoTokenizer

    try:
        AutoConfig.from_pretrained(source, trust_remote_code=trust_remote_code)
        tokenizer = AutoTokenizer.from_pretrained(source, trust_remote_code=trust_remote_code)
        tokenizer.save_pretrained(out)
    except Exception as error:  # whatever transformers raises over what lies there
        if "trust_remote_code" in str(error):
            raise LoraryError(
                f"model_path: {source} needs Python code of its own to be run. If you trust it, having read its *.py,"
                " set trust_remote_code: true."
            ) from None
        reason = (" ".join(str(error).split()) or type(error).__name__)[:300]
        raise LoraryError(f"model_path: transformers cannot load config and tokenizer of {source}: {reason}") from None
    own, file = source / "tokenizer.json", out / "tokenizer.json"
    if own.is_file():
        shutil.copyfile(own, file)
    if not file.is_file():
        raise LoraryError(f"model_path: the tokenizer of {source} has no fast form (tokenizer.json).")
    settings = json.loads((out / "tokenizer_config.json").read_bytes())
    for key in ("local_files_only", "is_local", "trust_remote_code", "auto_map"):  # how it was loaded, not what it is
        settings.pop(key, None)
    settings["tokenizer_class"] = "PreTrainedTokenizerFast"  # the one that takes tokenizer.json as it is
    (out / "tokenizer_config.json").write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")
    lacking = sorted(set(tokenizer.get_added_vocab()) - _tokens(file))
    if lacking:
        log.warning("%s: %s is no token of tokenizer.json, and is read as plain text", source, ", ".join(lacking))


def _tokens(file: Path) -> set[str]:
    from tokenizers import Tokenizer

    return set(Tokenizer.from_file(str(file)).get_vocab())
