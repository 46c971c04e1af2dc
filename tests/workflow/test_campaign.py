"""The campaign of faults, in short."""

import random

import pytest

import faults


@pytest.mark.all
def test_the_campaign_in_short_of_what_is_augmented(tmp_path):
    project = faults.raw_project(tmp_path, documents=6)
    figures = faults.campaign(project, 4, random.Random(1), longest_life=10, target="augmented")
    assert figures.lost == 0
    assert figures.longest_stop < 30


@pytest.mark.all
@pytest.mark.parametrize("packed", [False, True])
def test_the_campaign_in_short(tmp_path, packed):
    """Each kind of fault once; `make faults` does a hundred."""
    project = faults.tiny_project(tmp_path, questions=4, pairs=40, pack=packed)
    figures = faults.campaign(project, len(faults.FAULTS), random.Random(1), longest_life=6)
    assert figures.faults == dict.fromkeys(faults.FAULTS, 1)
    assert figures.lost == 0
    assert figures.longest_stop < 30
