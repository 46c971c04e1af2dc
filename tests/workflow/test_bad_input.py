"""Bad input, the cases of the campaign: wrong config and data by the functions alone, since a call of snakemake takes
seconds; some of the others, and all in `make faults`, by snakemake itself."""

from pathlib import Path

import pytest

import bad_input
from bad_input import BASE, CONFIG_AND_DATA, IN_JOBS, MODELS, PROMPTS, WEIGHTS
from lorary.core.errors import LoraryError
from lorary.data import rows as dataset
from lorary.plan import encode as plan
from lorary.plan.config import resolve


def named(cases):
    return [pytest.param(case, id=case.name) for case in cases]


def test_the_campaign_is_not_small_and_names_no_case_twice():
    names = [case.name for case in CONFIG_AND_DATA + IN_JOBS]
    assert len(names) == len(set(names)) >= 60


def read_all(config):
    for table in plan.make(resolve(config)).tables.values():
        dataset.load([Path(file) for file in table.inputs["files"]], **table.params)


@pytest.mark.parametrize("case", named(CONFIG_AND_DATA))
def test_wrong_config_and_data_are_refused(project, monkeypatch, case):
    if case.spoil:
        case.spoil(project)
    monkeypatch.chdir(project.folder)
    with pytest.raises(LoraryError) as caught:
        read_all({**project.settings, **case.settings})
    assert case.words in str(caught.value)
    assert len(str(caught.value).splitlines()) <= 25
    assert max(map(len, str(caught.value).splitlines())) < 500


@pytest.mark.parametrize("case", named(CONFIG_AND_DATA[::30] + MODELS[::5]))
def test_refused_by_snakemake(project, case):
    bad_input.refuse(project, case)


@pytest.mark.parametrize("case", named((PROMPTS + BASE)[::5] + WEIGHTS))
def test_refused_by_snakemake_with_the_model_there(with_model, case):
    bad_input.refuse(with_model, case)
