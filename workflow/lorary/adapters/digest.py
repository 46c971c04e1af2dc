"""The digest of a base weight: of what decides what is trained from it; and what it was made of, kept beside it."""

import hashlib
import json
from pathlib import Path
from typing import Any

from ..core.errors import LoraryError, damaged
from ..core.files import sha256, written_whole
from ..core.values import CONFIG, MARK, TENSORS

# adapter_config.json as the first release had it of PEFT 0.21.2, with rank, alpha, targets and the model's name: all of
# it was in the digest then.
FIRST_CONFIG: dict[str, Any] = {
    "alora_invocation_tokens": None,
    "alpha_pattern": {},
    "arrow_config": None,
    "auto_mapping": None,
    "bias": "none",
    "corda_config": None,
    "ensure_weight_tying": False,
    "eva_config": None,
    "exclude_modules": None,
    "fan_in_fan_out": False,
    "inference_mode": True,
    "init_lora_weights": True,
    "kasa_config": None,
    "layer_replication": None,
    "layers_pattern": None,
    "layers_to_transform": None,
    "loftq_config": {},
    "lora_bias": False,
    "lora_dropout": 0.0,
    "lora_ga_config": None,
    "megatron_config": None,
    "megatron_core": "megatron.core",
    "modules_to_save": None,
    "monteclora_config": None,
    "peft_type": "LORA",
    "peft_version": "0.21.2",
    "qalora_group_size": 16,
    "rank_pattern": {},
    "revision": None,
    "target_parameters": None,
    "task_type": "CAUSAL_LM",
    "trainable_token_indices": None,
    "use_bdlora": None,
    "use_dora": False,
    "use_qalora": False,
    "use_rslora": False,
    "velora_config": None,
}


def digest_base_weight(directory: str) -> str:
    """sha256 of a base weight: its rank, alpha and targets, and its tensors, whatever else PEFT writes beside them.
    Without torch. Raises LoraryError."""
    from safetensors import SafetensorError, safe_open

    try:
        config = json.loads((Path(directory) / CONFIG).read_bytes())
        said = {
            "r": config["r"],
            "lora_alpha": config["lora_alpha"],
            "target_modules": sorted(config["target_modules"]),
        }
        content = hashlib.sha256(json.dumps(said, sort_keys=True).encode())
        with safe_open(Path(directory) / TENSORS, "numpy") as tensors:
            for name in sorted(tensors.keys()):
                tensor = tensors.get_tensor(name)
                content.update(json.dumps([name, tensor.shape]).encode() + tensor.astype("<f4").tobytes())
    except FileNotFoundError:
        raise
    except (OSError, ValueError, LookupError, TypeError, SafetensorError) as error:
        raise damaged(directory, error) from None
    return content.hexdigest()


def digest_task_adapter(directory: str) -> str:
    """sha256 of a task adapter: its rank and alpha, and the file of its tensors. Without torch and numpy. Raises
    LoraryError."""
    try:
        config = json.loads((Path(directory) / CONFIG).read_bytes())
        said = [config["r"], config["lora_alpha"], sha256(Path(directory) / TENSORS)]
    except (OSError, ValueError, LookupError, TypeError) as error:
        reason = f"{type(error).__name__}: {error}"
        raise LoraryError(f"task_adapter: {directory}: no adapter in PEFT's format: {reason}") from None
    return hashlib.sha256(json.dumps(said).encode()).hexdigest()


def digested(task: dict[str, str]) -> dict[str, str]:
    """A task adapter as jobs have it, its `path` and `sha256`: where it has only a path, since it was not there when
    they were planned (a translator's shared part), with the digest of what lies there now. Raises LoraryError."""
    return task if "sha256" in task else {**task, "sha256": digest_task_adapter(task["path"])}


def former_digests(directory: str) -> list[str]:
    """What the first release took for the digest of this base weight: the sha256 of its files, with all that PEFT had
    written, its version among it, and the model's name. What was trained under it is as good as ever."""
    marks = sorted(Path(directory).glob(f"{MARK}*.json"))
    if not marks:
        return [_of_files(*((Path(directory) / name).read_bytes() for name in (CONFIG, TENSORS)))]
    try:
        return [former for mark in marks for former in json.loads(mark.read_bytes())["former_digests"]]
    except (ValueError, LookupError, TypeError) as error:
        raise damaged(directory, error) from None


def withdraw_marks(directory: Path, but: str) -> None:
    """What another base weight was made of that lay in this folder: it is about to be written over."""
    for mark in directory.glob(f"{MARK}*.json"):
        if mark.name != but:
            mark.unlink(missing_ok=True)


def write_mark(path: Path, settings: dict[str, Any], config: dict[str, Any], tensors: bytes, given: bool) -> None:
    """Beside a base weight: the settings that it was made of, and the digest that the first release gave it. `config`:
    PEFT's, with the model's name; where PEFT made it, and not the user, the first release's PEFT said no more."""
    decides = ("r", "lora_alpha", "target_modules", "base_model_name_or_path")
    first = config if given else FIRST_CONFIG | {key: config[key] for key in decides}
    about = {**settings, "former_digests": [_of_files(json_bytes(first), tensors)]}
    with written_whole(str(path)) as temporary:
        temporary.write_text(json.dumps(about, indent=2) + "\n", encoding="utf-8")


def json_bytes(config: dict[str, Any]) -> bytes:
    """The same bytes whenever PEFT says the same: it keeps target_modules as a set, in any order."""
    config = {key: sorted(value) if key == "target_modules" else value for key, value in config.items()}
    return (json.dumps(config, indent=2, sort_keys=True) + "\n").encode()


def _of_files(config: bytes, tensors: bytes) -> str:
    return hashlib.sha256(config + tensors).hexdigest()
