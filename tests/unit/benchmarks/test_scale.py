"""The benchmark of scale goes through every stage of a run: of few passages, in this process."""

import os

import pandas as pd
import pytest

from benchmarks import scale, towns
from lorary.core.errors import LoraryError
from lorary.plan import part


def test_every_stage_of_a_run(tiny_llama, tmp_path, monkeypatch):
    monkeypatch.setattr(towns, "PER_JOB", 4)
    monkeypatch.setattr(part, "PASSAGES_PER_FILE", 4)
    here, planned = os.getcwd(), []

    def in_this_process(_, arguments):
        try:
            return scale.measure(**arguments)
        finally:
            os.chdir(here)

    monkeypatch.setattr(scale, "in_a_process", in_this_process)
    plan = dict.fromkeys(("plan", "plan_again"), lambda: planned.append(os.getcwd()))  # snakemake takes seconds
    monkeypatch.setattr(scale, "STAGES", scale.STAGES | plan)
    text = scale.bench_scale(str(tiny_llama), ["10"], str(tmp_path / "runs"), str(tmp_path / "figures.tsv"))
    figures = pd.read_csv(tmp_path / "figures.tsv", sep="\t")
    assert figures["stage"].tolist() == list(scale.TITLES)
    assert set(figures["passages"]) == {10}
    assert (figures[["cpu_seconds", "peak_mb"]] > 0).all(axis=None)
    assert text.count("\n| ") == 2 + len(scale.TITLES)
    assert planned == 2 * [str(tmp_path / "runs/10")]
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("size", ["many", "0", "-1"])
def test_a_size_is_a_number(tmp_path, size):
    with pytest.raises(LoraryError, match=f"SIZES: .*{size}"):
        scale.bench_scale("model", ["10", size], str(tmp_path / "runs"), str(tmp_path / "figures.tsv"))
