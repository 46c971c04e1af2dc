"""The base weight: the one initial adapter that every training starts from; and adapters as files, in PEFT's format."""

import hashlib
import json
import logging
import tempfile
from pathlib import Path
from typing import Any

from ..base.fetch import fingerprint, trusts_code
from ..base.support import make_skeleton
from ..core.errors import LoraryError, report
from ..core.files import sync
from ..core.store import CONFIG, TENSORS

log = logging.getLogger(__name__)

PREFIX = "base_model.model."  # of every tensor's name in PEFT's format


def init_base_weight(
    model: str, rank: int, alpha: int, target_modules: list[str], seed: int, given: str | None, destination: str
) -> None:
    """Write the base weight: PEFT's own initialisation from a seed, or the adapter that the user gives, checked.

    Only the model's shapes are needed, not its weights. Raises LoraryError.
    """
    import torch
    from peft import LoraConfig, get_peft_model

    skeleton = make_skeleton(Path(model), model, trusts_code(model))
    linear = {name: m.weight.shape for name, m in skeleton.named_modules() if isinstance(m, torch.nn.Linear)}
    named = {n: m for n, m in skeleton.named_modules() if any(n == t or n.endswith(f".{t}") for t in target_modules)}
    targets = [name for name in named if name in linear]
    unused = [t for t in target_modules if not any(name == t or name.endswith(f".{t}") for name in targets)]
    if unused:
        there = ", ".join(sorted({name.rsplit(".", 1)[-1] for name in linear}))
        raise LoraryError(
            f"lora_target_modules: {model} has no linear layer {', '.join(unused)}; its linear layers are {there}."
        )
    if others := {type(module).__name__ for name, module in named.items() if name not in linear}:
        # as Gemma 4 has them in its vision tower; PEFT takes no such layer, so the others are named one by one
        log.warning("%s: layers of a class of its own (%s) get no adapter", model, ", ".join(sorted(others)))
        target_modules = targets
    shapes = {}
    for name in targets:
        out_features, in_features = linear[name]
        shapes[f"{PREFIX}{name}.lora_A.weight"] = (rank, in_features)
        shapes[f"{PREFIX}{name}.lora_B.weight"] = (out_features, rank)

    if given is not None:
        config, tensors = read_adapter(given)
        _check_given(given, config, tensors, rank, alpha, target_modules, shapes)
    else:
        # PEFT makes its layers on the device of the layer beside it: give that a processor's shape without its memory.
        for name in targets:
            weight = torch.empty(1).expand(linear[name])
            skeleton.get_submodule(name).weight = torch.nn.Parameter(weight, requires_grad=False)
        torch.manual_seed(seed)
        lora = LoraConfig(
            task_type="CAUSAL_LM",
            r=rank,
            lora_alpha=alpha,
            lora_dropout=0.0,
            bias="none",
            target_modules=target_modules,
        )
        try:
            adapted = get_peft_model(skeleton, lora)
        except ValueError as error:  # layers that PEFT knows to be unfit
            reason = " ".join(str(error).split())[:300]
            raise LoraryError(f"lora_target_modules: PEFT makes no adapter for {model}: {reason}") from None
        with tempfile.TemporaryDirectory() as temporary:
            adapted.save_pretrained(temporary, save_embedding_layers=False)
            config, tensors = read_adapter(temporary)
    config["base_model_name_or_path"] = fingerprint(model)["name"]
    write_adapter(Path(destination), config_bytes(config), tensors_bytes(tensors))
    log.info("%s: %d layers, %d parameters", destination, len(targets), sum(t.numel() for t in tensors.values()))


def read_adapter(directory: str) -> tuple[dict[str, Any], dict]:
    """Config and tensors (float32) of an adapter directory. Raises LoraryError."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        config = json.loads((Path(directory) / CONFIG).read_bytes())
        if not isinstance(config, dict):
            raise ValueError(f"{CONFIG} is no mapping")
        tensors = load_file(Path(directory) / TENSORS)
    except (OSError, ValueError, SafetensorError) as error:
        raise LoraryError(f"{directory}: no adapter in PEFT's format ({CONFIG} and {TENSORS}): {error}") from None
    return config, {name: tensor.float() for name, tensor in tensors.items()}


def config_bytes(config: dict[str, Any]) -> bytes:
    """The same bytes whenever PEFT says the same: it keeps target_modules as a set, in any order."""
    config = {key: sorted(value) if key == "target_modules" else value for key, value in config.items()}
    return (json.dumps(config, indent=2, sort_keys=True) + "\n").encode()


def tensors_bytes(tensors: dict) -> bytes:
    from safetensors.torch import save

    return save({name: tensors[name].contiguous() for name in sorted(tensors)}, metadata={"format": "pt"})


def write_adapter(directory: Path, config: bytes, tensors: bytes) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    for name, content in ((CONFIG, config), (TENSORS, tensors)):
        (directory / name).write_bytes(content)
        sync(directory / name)
    sync(directory)


def digest(directory: str) -> str:
    """sha256 of a base weight, config and tensors."""
    return hashlib.sha256(b"".join((Path(directory) / name).read_bytes() for name in (CONFIG, TENSORS))).hexdigest()


def _check_given(
    given: str, config: dict, tensors: dict, rank: int, alpha: int, targets: list[str], shapes: dict
) -> None:
    faults = []
    plain = {
        "peft_type": "LORA",
        "r": rank,
        "lora_alpha": alpha,
        "bias": "none",
        "use_dora": False,
        "use_rslora": False,
    }
    plain |= {"rank_pattern": {}, "alpha_pattern": {}, "modules_to_save": None, "fan_in_fan_out": False}
    for key, expected in plain.items():
        if config.get(key, expected) != expected:
            faults.append(f"{key}: expected {expected!r}, found {config[key]!r}")
    if (start := config.get("init_lora_weights", True)) not in (True, False, "gaussian"):
        faults.append(f"init_lora_weights: {start!r} changes the base model itself")
    found = config.get("target_modules")
    if not isinstance(found, list) or set(found) != set(targets):
        faults.append(f"target_modules: expected {sorted(targets)}, found {found!r}")
    for name, shape in shapes.items():
        if name not in tensors:
            faults.append(f"{name}: missing")
        elif tuple(tensors[name].shape) != shape:
            faults.append(f"{name}: expected shape {shape}, found {tuple(tensors[name].shape)}")
        elif not tensors[name].isfinite().all():
            faults.append(f"{name}: not finite")
    faults += [f"{name}: not a tensor of this adapter" for name in tensors if name not in shapes]
    if faults:
        title = f"base_weight: {given} does not fit lora_rank, lora_alpha, lora_target_modules and the model:"
        raise report(faults, title, most=10)
