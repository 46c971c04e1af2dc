"""Rule report: the plots and the summary page."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from lorary.core.job import job
from lorary.report.page import RunFiles, build

with job(snakemake.log[0], snakemake.rule):
    runs = [RunFiles(**run) for run in snakemake.params.runs]
    build(runs, "results/scores.tsv", None, "results/report", snakemake.output.page)
