"""A task adapter is checked before anything is made of it; and what it changes is the layer, not what shares its
weight."""

import json
from pathlib import Path

import pandas as pd
import pytest
import torch
from safetensors.torch import load_file, save_file

import tiny
from lorary.adapters.digest import digest_task_adapter, digested
from lorary.adapters.files import CONFIG, TENSORS, init_base_weight
from lorary.adapters.merge import merge_adapters
from lorary.adapters.task import load_task_adapter, merge_task_adapter
from lorary.answer.source import Trained
from lorary.base import decoder
from lorary.core.errors import LoraryError
from lorary.core.files import sha256
from lorary.train.records import COLUMNS

FIRST = "base_model.model.model.layers.0.mlp.down_proj.lora_A.weight"


@pytest.fixture
def model(made):
    return decoder.load(str(made / "llama"), "float32", torch.device("cpu"))


@pytest.fixture
def write(made, tmp_path):
    """`write(config, tensors)`: a task adapter with these entries changed (None: without it)."""

    def write(config=None, tensors=None, targets=tiny.TARGETS):
        folder = tmp_path / "task"
        init_base_weight(str(made / "llama"), 3, 9, targets, 0, None, str(folder))
        said = json.loads((folder / CONFIG).read_text()) | (config or {})
        (folder / CONFIG).write_text(json.dumps(said))
        changed = load_file(folder / TENSORS) | (tensors or {})
        save_file({name: tensor for name, tensor in changed.items() if tensor is not None}, folder / TENSORS)
        return {"path": str(folder), "sha256": digest_task_adapter(str(folder))}

    return write


@pytest.mark.parametrize(
    ("config", "tensors", "faults"),
    [
        ({"use_dora": True}, {}, ["no plain LoRA adapter:", "use_dora: expected False, found True"]),
        ({"peft_type": "IA3"}, {}, ["peft_type: expected 'LORA', found 'IA3'"]),
        ({"use_qalora": True}, {}, ["use_qalora: True is beyond LoRA"]),
        ({"init_lora_weights": "pissa"}, {}, ["init_lora_weights: 'pissa' changes the base model itself"]),
        ({"r": 4}, {}, [r"down_proj.lora_A.weight: its shape \(3, 64\) is not of rank 4"]),
        ({"lora_alpha": "much"}, {}, ["lora_alpha: 'much' is no number"]),
        ({}, {FIRST: None}, [f"{FIRST}: missing"]),
        ({}, {FIRST: torch.full((3, 64), torch.nan)}, [f"{FIRST}: not finite"]),
        ({}, {"base_model.model.score.weight": torch.ones(1)}, ["score.weight: not a tensor of LoRA"]),
        ({}, {FIRST: torch.ones(3, 65)}, ["not of this base model:", r"is of shape \(32, 65\), .*layer of \(32, 64\)"]),
        (
            {},
            {FIRST.replace(".0.", ".9.").replace("_A", f"_{x}"): torch.ones(3, 3) for x in "AB"},
            [r"model.layers.9.mlp.down_proj: no linear layer of the base model"],
        ),
    ],
)
def test_what_does_not_fit_is_refused_in_words(write, model, config, tensors, faults):
    task = write(config, tensors)
    with pytest.raises(LoraryError, match=f"task_adapter: {task['path']} is no") as caught:
        load_task_adapter(task, model)
    for fault in faults:
        assert caught.match(f"(?s){fault}")


def test_what_is_not_there_or_another_by_now_is_refused(write, model, tmp_path):
    task = write()
    for changed in ({**task, "path": str(tmp_path / "gone")}, {**task, "sha256": 64 * "0"}):
        with pytest.raises(LoraryError, match=r"is not there, or changed since adapters were to be trained over it"):
            load_task_adapter(changed, model)


def test_one_that_was_not_there_when_it_was_planned_is_digested_where_it_is_used(write, tmp_path):
    task = write()
    unknown = {"path": task["path"]}
    assert digested(unknown) == digested(task) == task
    assert unknown == {"path": task["path"]}  # a job's params stay as they are
    line = dict.fromkeys(COLUMNS, 1) | {"did": 0, "pid": 0, "path": task["path"]}
    line |= {"sha256": sha256(Path(task["path"], TENSORS)), "config_sha256": sha256(Path(task["path"], CONFIG))}
    pd.DataFrame([line]).to_csv(tmp_path / "0.tsv", sep="\t", index=False)
    known, found = (Trained.of_records([str(tmp_path / "0.tsv")], some) for some in (task, unknown))
    assert found.task_adapter == task
    assert found.digest((0, 0)) == known.digest((0, 0))
    for i, under in enumerate((task, unknown)):
        merge_adapters([task["path"]], str(tmp_path / f"merged{i}"), task_adapter=under)
    merged = [(tmp_path / f"merged{i}" / TENSORS).read_bytes() for i in (0, 1)]
    assert merged[0] == merged[1]
    with pytest.raises(LoraryError, match="no adapter in PEFT's format"):
        digested({"path": str(tmp_path / "gone")})


def test_the_head_may_change_where_its_weight_is_the_embeddings_too(write, model):
    before = model.model.embed_tokens.weight.clone()
    assert model.lm_head.weight.data_ptr() == model.model.embed_tokens.weight.data_ptr()
    names = ("base_model.model.lm_head.lora_A.weight", "base_model.model.lm_head.lora_B.weight")
    A, B = torch.randn(3, 32), torch.randn(512, 3)
    task = load_task_adapter(write(tensors=dict(zip(names, (A, B), strict=True))), model)
    merge_task_adapter(model, task)
    assert torch.equal(model.model.embed_tokens.weight, before)
    torch.testing.assert_close(model.lm_head.weight.data, before + 3 * B @ A)


def test_in_bfloat16_it_is_added_exactly_and_rounded_once(write, made):
    model = decoder.load(str(made / "llama"), "bfloat16", torch.device("cpu"))
    layer, B = model.model.layers[0].mlp.down_proj, torch.randn(32, 3)
    before = layer.weight.float()
    adapter = load_task_adapter(write(tensors={FIRST.replace("_A", "_B"): B}), model)
    merge_task_adapter(model, adapter)
    wanted = (before.double() + 3 * B.double() @ adapter.tensors[FIRST].double()).bfloat16()
    assert (layer.weight != wanted).float().mean() < 0.01  # but where float32 is at a boundary
