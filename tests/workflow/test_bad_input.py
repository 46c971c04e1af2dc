"""Bad input, the cases of the campaign: wrong config and data by the functions alone, since a call of snakemake takes
seconds. By snakemake itself one of each kind here, and every one in `make test-all` and `make faults`."""

import pytest

import bad_input
from bad_input import CONFIG_AND_DATA, IN_JOBS, MODELS
from lorary.core.errors import LoraryError

ONE_OF_EACH_KIND = {
    "unknown key",  # of the config
    "passage that is a number",  # in the data
    "empty document",
    "two ids alike",  # in a table of passages
    "lone brace",  # in the templates
    "example without an answer",  # in the few-shot file
    "another rank",  # of the base weight
    "model without weights",
    "weights of another shape",  # than the model's config says
}


def named(cases, everything=False):
    return [pytest.param(case, id=case.name, marks=() if everything else marks(case)) for case in cases]


def marks(case):
    return () if case.name in ONE_OF_EACH_KIND else pytest.mark.all


def test_the_campaign_is_not_small_and_names_no_case_twice():
    names = [case.name for case in CONFIG_AND_DATA + IN_JOBS]
    assert len(names) == len(set(names)) >= 60
    assert set(names) >= ONE_OF_EACH_KIND


def test_what_must_not_be_left_is_there_after_a_good_run(finished):
    """So a case that looks for it would find it."""
    assert not [case.name for case in CONFIG_AND_DATA + IN_JOBS if not bad_input.what_is_left(finished, case)]


@pytest.mark.parametrize("case", named(CONFIG_AND_DATA, everything=True))
def test_wrong_config_and_data_are_refused(project, monkeypatch, case):
    if case.spoil:
        case.spoil(project)
    monkeypatch.chdir(project.folder)
    with pytest.raises(LoraryError) as caught:
        project.reads(**case.settings)
    assert case.words in str(caught.value)
    assert len(str(caught.value).splitlines()) <= 25
    assert max(map(len, str(caught.value).splitlines())) < 500


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("sample: 2\nruns:\n- {seed: 1}\nsample: 3\n", "config.yaml: sample is given twice, in lines 1 and 4"),
        ('{\n\t"runs": [\n\t{"seed": 1,\n\t"seed": 2}]}', "config.yaml: seed is given twice, in lines 3 and 4"),
    ],
    ids=["YAML", "JSON"],
)
def test_a_key_that_a_config_file_gives_twice_is_named(project, content, words):
    bad_input.write("config.yaml", content)(project)
    process = project.snakemake("-n", check=False)
    assert process.returncode != 0
    assert words in process.stdout
    assert "Traceback" not in process.stdout


@pytest.mark.parametrize("case", named(CONFIG_AND_DATA + MODELS))
def test_refused_by_snakemake(project, case):
    bad_input.refuse(project, case)


@pytest.mark.parametrize("case", named([case for case in IN_JOBS if case not in MODELS]))
def test_refused_by_snakemake_with_the_model_there(with_model, case):
    bad_input.refuse(with_model, case)
