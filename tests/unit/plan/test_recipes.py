"""Recipes: what they set, what wins over them, and what a user is told."""

import pytest
from snakemake.cli import parse_config

from lorary.core.errors import LoraryError
from lorary.plan import layout
from lorary.plan.config import load_schema, resolve
from lorary.plan.recipes import RECIPES, told

DEFAULTS = {key: rule["default"] for key, rule in load_schema()["properties"].items()}
KNOW = RECIPES["know"]


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_is_the_run_of_its_keys_written_out(name):
    """In all that decides params, digests and paths: these are made of the run."""
    (run,) = resolve({"recipe": name})
    (written,) = resolve(RECIPES[name])
    assert run == written
    assert layout.run_folder(run) == layout.run_folder(written)
    assert "recipe" not in run.flat()
    assert all(run.flat()[key] == value for key, value in RECIPES[name].items())


def test_the_reference_sets_nothing():
    assert DEFAULTS["recipe"] == "reference"
    assert resolve({"recipe": "reference"}) == resolve({})


@pytest.mark.parametrize("key", KNOW)
def test_a_key_that_is_given_wins_though_it_be_the_default(key):
    default = DEFAULTS[key]
    for config in (
        {"recipe": "know", key: default},
        {key: default, "runs": [{"recipe": "know"}]},
        {"recipe": "know", "runs": [{key: default}]},
        {"recipe": "know", key: KNOW[key], "runs": [{key: default}]},
    ):
        (run,) = resolve(config)
        assert {name: run.flat()[name] for name in KNOW} == {**KNOW, key: default}


def test_each_run_has_the_recipe_that_it_names_else_that_of_the_config():
    config = {"recipe": "know", "seed": 1, "runs": [{}, {"recipe": "reference"}, {"recipe": "know", "seed": 2}]}
    runs = [run.training for run in resolve(config)]
    assert [(run.num_train_epochs, run.seed) for run in runs] == [(5, 1), (3, 1), (5, 2)]


def test_from_the_command_line():
    (run,) = resolve(parse_config(["recipe=know", "num_train_epochs=3"]))
    assert (run.prompts.objective, run.training.num_train_epochs) == ("answers", 3)


def test_what_belongs_to_a_way_of_working_together_is_read_where_the_recipe_has_it():
    (run,) = resolve({"recipe": "know", "routed_top": 2})
    assert run.answers.routed_top == 2


def test_a_fault_says_which_of_its_values_the_recipe_has_set():
    with pytest.raises(LoraryError, match=r"leave objective at reference.* \(recipe: know sets objective: answers\)"):
        resolve({"recipe": "know", "projector": True})
    with pytest.raises(LoraryError) as caught:
        resolve({"recipe": "know", "combine_adapters": "sum", "routed_top": 2})
    assert "(recipe" not in str(caught.value)  # the user has set it


def test_a_user_is_told_what_a_recipe_sets_and_what_wins_over_it():
    assert told({}) == told({"recipe": "reference", "num_train_epochs": 2}) == []
    know = "recipe: know sets " + ", ".join(f"{key}: {value}" for key, value in KNOW.items())
    assert "objective: answers, num_train_epochs: " in know
    assert told({"recipe": "know", "runs": [{"seed": 1}, {"seed": 2}, {"recipe": "reference"}]}) == [know]
    (line,) = told({"num_train_epochs": 3, "runs": [{"recipe": "know", "objective": "mixed"}]})
    assert line.endswith("combine_adapters: ['routed']; the config itself sets objective, num_train_epochs")
    assert told({**KNOW, "recipe": "know"})[0].startswith("recipe: know sets nothing; the config itself sets ")
