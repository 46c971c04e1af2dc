"""The benchmark of translators: its passages, its runs, and its tables."""

import re

import numpy as np
import pytest
import torch

from benchmarks import invented, translator
from lorary.adapters.lora import Adapter
from lorary.core.errors import LoraryError
from lorary.plan.config import resolve
from lorary.plan.layout import run_folder

CONFIG = resolve({})[0].flat()


def test_invented_passages_say_what_is_asked_and_no_two_are_alike():
    made = invented.passages(200, seed=0)
    assert made == invented.passages(200, seed=0)
    assert len({passage["text"] for passage in made}) == 200
    trained = {question for passage in made for question, _ in passage["pairs"]}
    for passage in made:
        assert len(passage["pairs"]) == len(passage["others"]) == invented.PAIRS
        assert all(re.search(rf"\b{answer}\b", passage["text"]) for _, answer in passage["pairs"])
        assert [answer for _, answer in passage["pairs"]] == [answer for _, answer in passage["others"]]
        assert not {question for question, _ in passage["others"]} & trained


def test_each_run_has_a_folder_of_its_own_and_the_fewer_passages_the_more_often():
    runs = dict(translator._runs(CONFIG, ["memory", "reference"], [100, 400], seed=3))
    checked = resolve({**translator._settings(CONFIG), "runs": list(runs.values())})
    assert len({run_folder(run).path for run in checked}) == len(runs) == 9
    epochs = {key[1:]: run["translator_epochs"] for key, run in runs.items() if key[2]}
    assert epochs["memory", 100, ""] == 2 * epochs["memory", 400, ""]
    assert {run.training.lora_rank for run in checked} == {2, 64}
    assert {run.training.seed for run in checked} == {3}


def test_inner_products_of_updates_are_those_of_dense_ones():
    torch.manual_seed(0)
    names = [f"base_model.model.{layer}.lora_{side}.weight" for layer in ("x", "y") for side in "AB"]
    shapes = [(3, 7), (5, 3), (3, 4), (6, 3)]
    adapters = [
        Adapter({name: torch.randn(shape) for name, shape in zip(names, shapes, strict=True)}, 3, scale)
        for scale in (1.0, 2.0, 0.5)
    ]
    dense = [
        np.concatenate([(a.scale * a.tensors[B] @ a.tensors[A]).flatten() for A, B in (names[:2], names[2:])])
        for a in adapters
    ]
    np.testing.assert_allclose(
        translator.products(adapters, adapters[:2]), np.stack(dense) @ np.stack(dense[:2]).T, rtol=1e-4
    )


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ({"kinds": ["tokens"]}, "KINDS: there is no tokens; there is reference, memory"),
        ({"pairs": ["1"]}, "PAIRS: 1 is no whole number from 2"),
        ({"seeds": ["x"]}, "SEEDS: x is no whole number from 0"),
    ],
)
def test_what_is_not_there_is_told_before_anything_is_made(tmp_path, words, told):
    with pytest.raises(LoraryError, match=told):
        translator.bench_translator(
            **{"config": CONFIG, "kinds": ["memory"], "pairs": ["9"], "seeds": ["1"], "cores": 1}
            | {"folder": str(tmp_path / "bench")}
            | words
        )
    assert not list(tmp_path.iterdir())
