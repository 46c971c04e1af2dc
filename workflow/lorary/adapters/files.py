"""The base weight: the one initial adapter that every training starts from; and adapters as files, in PEFT's format."""

import json
import logging
import tempfile
from pathlib import Path
from typing import Any

from ..base.fetch import fingerprint, trusts_code
from ..base.support import make_skeleton
from ..core import pack
from ..core.errors import LoraryError, damaged, report
from ..core.files import written_whole
from ..core.values import CONFIG, MARK, TENSORS
from .digest import json_bytes, withdraw_marks, write_mark

log = logging.getLogger(__name__)

PREFIX = "base_model.model."  # of every tensor's name in PEFT's format

# What the config of an adapter may say, with the defaults: the format of PEFT 0.13.2, the oldest that loads our
# adapters (DyPRAG's stages run with it). It refuses any other key; later ones add keys, whose defaults change nothing.
OLDEST_FORMAT: dict[str, Any] = {
    "alpha_pattern": {},
    "auto_mapping": None,
    "base_model_name_or_path": None,
    "bias": "none",
    "fan_in_fan_out": False,
    "inference_mode": False,
    "init_lora_weights": True,
    "layer_replication": None,
    "layers_pattern": None,
    "layers_to_transform": None,
    "loftq_config": {},
    "lora_alpha": 8,
    "lora_dropout": 0.0,
    "megatron_config": None,
    "megatron_core": "megatron.core",
    "modules_to_save": None,
    "peft_type": None,
    "r": 8,
    "rank_pattern": {},
    "revision": None,
    "target_modules": None,
    "task_type": None,
    "use_dora": False,
    "use_rslora": False,
}
# Said even where it is the default: programs besides PEFT look it up.
ALWAYS_SAID = {"base_model_name_or_path", "bias", "fan_in_fan_out", "lora_alpha", "lora_dropout", "r"}


def init_base_weight(
    model: str,
    rank: int,
    alpha: int,
    target_modules: list[str],
    seed: int,
    given: str | None,
    destination: str,
    mark: str = f"{MARK}.json",
) -> None:
    """Write the base weight: PEFT's own initialisation from a seed, or the adapter that the user gives, checked; and
    beside it (`mark`, a file's name) what it was made of.

    Only the model's shapes are needed, not its weights. Raises LoraryError.
    """
    import torch
    from peft import LoraConfig, get_peft_model

    skeleton = make_skeleton(Path(model), model, trusts_code(model))
    linear = {name: m.weight.shape for name, m in skeleton.named_modules() if isinstance(m, torch.nn.Linear)}
    named = {name: module for name, module in skeleton.named_modules() if is_target(name, target_modules)}
    targets = [name for name in named if name in linear]
    unused = [target for target in target_modules if not any(is_target(name, [target]) for name in targets)]
    if unused:
        there = ", ".join(sorted({name.rsplit(".", 1)[-1] for name in linear}))
        raise LoraryError(
            f"lora_target_modules: {model} has no linear layer {', '.join(unused)}; its linear layers are {there}."
        )
    names = target_modules
    if others := {type(module).__name__ for name, module in named.items() if name not in linear}:
        # as Gemma 4 has them in its vision tower; PEFT takes no such layer, so the others are named one by one
        log.warning("%s: layers of a class of its own (%s) get no adapter", model, ", ".join(sorted(others)))
        names = targets
    shapes = {}
    for name in targets:
        out_features, in_features = linear[name]
        shapes[f"{PREFIX}{name}.lora_A.weight"] = (rank, in_features)
        shapes[f"{PREFIX}{name}.lora_B.weight"] = (out_features, rank)

    if given is not None:
        config, tensors = read_adapter(given)
        _check_given(given, config, tensors, rank, alpha, names, shapes)
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
            target_modules=names,
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
    folder, content = Path(destination), tensors_bytes(tensors)
    withdraw_marks(folder, but=mark)
    write_adapter(folder, config_bytes({**config, **_base_model(model)}), content)
    settings = {"lora_rank": rank, "lora_alpha": alpha, "lora_target_modules": target_modules}
    settings |= {"seed": seed} if given is None else {"base_weight": given}
    write_mark(folder / mark, settings, config, content, given is not None)
    log.info("%s: %d layers, %d parameters", destination, len(targets), sum(t.numel() for t in tensors.values()))


def read_adapter(directory: str) -> tuple[dict[str, Any], dict]:
    """Config and tensors (float32) of an adapter directory, or of an adapter in a pack by its path there. Raises
    LoraryError."""
    from safetensors import SafetensorError
    from safetensors.torch import load, load_file

    try:
        if pack.pack_of(directory) is None:
            config, tensors = _read_config(directory), load_file(Path(directory) / TENSORS)
        else:
            files = pack.contents(directory)
            config, tensors = json.loads(files[CONFIG]), load(files[TENSORS])
    except (OSError, ValueError, SafetensorError) as error:
        raise LoraryError(f"{directory}: no adapter in PEFT's format ({CONFIG} and {TENSORS}): {error}") from None
    return config, {name: tensor.float() for name, tensor in tensors.items()}


def read_base_weight(directory: str) -> tuple[dict[str, Any], dict]:
    """The same of one that a job of ours wrote. Raises LoraryError."""
    try:
        return read_adapter(directory)
    except LoraryError as error:
        raise damaged(directory, error) from None


def is_target(layer: str, target_modules: list[str]) -> bool:
    """Whether adapters for these modules change a layer of this name, if it is linear."""
    return any(layer == target or layer.endswith(f".{target}") for target in target_modules)


def layer_of(name: str) -> str:
    """The layer that a tensor of this name changes."""
    return name.removeprefix(PREFIX).rpartition(".lora_")[0]


def trained_config(base_weight: str, model: str) -> bytes:
    """The config of the adapters that are trained from a base weight, on the base model in a directory. Raises
    LoraryError."""
    try:
        return config_bytes({**_read_config(base_weight), **_base_model(model)})
    except (OSError, ValueError) as error:
        raise damaged(base_weight, error) from None


def config_bytes(config: dict[str, Any]) -> bytes:
    """An adapter's config in the form that the oldest PEFT reads: what differs from its defaults."""
    said = {key: value for key, value in config.items() if key in OLDEST_FORMAT}
    return json_bytes({key: v for key, v in said.items() if key in ALWAYS_SAID or v != OLDEST_FORMAT[key]})


def outdated(config: bytes, todays: bytes) -> str | None:
    """What is to be mended in the config of an adapter that means the same as `todays`; None: nothing, or it does not
    mean the same."""
    try:
        said, now = json.loads(config), json.loads(todays)
        base_model = {key: now.get(key) for key in ("base_model_name_or_path", "revision")}
        if config == todays or config_bytes({**said, **base_model}) != todays:
            return None
    except (ValueError, TypeError):
        return None
    if newer := said.keys() - OLDEST_FORMAT.keys():
        return f"PEFT 0.13.2 cannot read its config, which has {len(newer)} keys of a newer one"
    model, there = said.get("base_model_name_or_path"), now["base_model_name_or_path"]
    return f"its config names {model} as the base model, which is {there}"


def tensors_bytes(tensors: dict, precision: str = "float32") -> bytes:
    """The file of these tensors (float32), rounded to `precision` (float32 or bfloat16; to nearest, ties to even)."""
    import torch
    from safetensors.torch import save

    kept = {name: tensors[name].to(getattr(torch, precision)).contiguous() for name in sorted(tensors)}
    return save(kept, metadata={"format": "pt"})


def write_adapter(directory: Path, config: bytes, tensors: bytes) -> None:
    """Each file whole, and untouched where it is the same already: others may be reading it."""
    directory.mkdir(parents=True, exist_ok=True)
    for name, content in ((CONFIG, config), (TENSORS, tensors)):
        path = directory / name
        if not path.is_file() or path.read_bytes() != content:
            with written_whole(str(path)) as temporary:
                temporary.write_bytes(content)


def _read_config(directory: str) -> dict[str, Any]:
    config = json.loads((Path(directory) / CONFIG).read_bytes())
    if not isinstance(config, dict):
        raise ValueError(f"{CONFIG} is no mapping")
    return config


def _base_model(model: str) -> dict[str, Any]:
    """Where PEFT finds a base model: at Hugging Face, in the user's own directory, or in `model`, a path that, as all
    that a run leaves, is seen from where Snakemake is called, and the same on every machine."""
    about = fingerprint(model)
    source = Path(about.get("source") or model).expanduser()
    if about["name"] == about.get("source") != Path(model).name:  # not its label here
        return {"base_model_name_or_path": about["name"], "revision": about.get("revision")}
    where = source if source.is_absolute() and source.is_dir() else model
    return {"base_model_name_or_path": str(where), "revision": None}


def beyond_lora(config: dict[str, Any], defaults: dict[str, Any], wanted: dict[str, Any]) -> list[str]:
    """What an adapter's config says that is not plain LoRA, or not as `wanted`, in words. `defaults`: of the config of
    a newer PEFT."""
    plain: dict[str, Any] = {"peft_type": "LORA", **wanted, "bias": "none", "use_dora": False, "use_rslora": False}
    plain |= {"rank_pattern": {}, "alpha_pattern": {}, "modules_to_save": None, "fan_in_fan_out": False}
    faults = [
        f"{key}: expected {expected!r}, found {config[key]!r}"
        for key, expected in plain.items()
        if config.get(key, expected) != expected
    ]
    for key in sorted(config.keys() - OLDEST_FORMAT.keys() - {"peft_version"}):
        if config[key] and config[key] != defaults.get(key):
            faults.append(f"{key}: {config[key]!r} is beyond LoRA as PEFT 0.13.2 has it")
    if (start := config.get("init_lora_weights", True)) not in (True, False, "gaussian"):
        faults.append(f"init_lora_weights: {start!r} changes the base model itself")
    return faults


def _check_given(
    given: str, config: dict, tensors: dict, rank: int, alpha: int, targets: list[str], shapes: dict
) -> None:
    from peft import LoraConfig

    faults = beyond_lora(config, LoraConfig().to_dict(), {"r": rank, "lora_alpha": alpha})
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
