"""Rule report: the plots and the summary page."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from lorary.core.job import job
from lorary.report.page import ShownRun, build

with job(snakemake.log[0], snakemake.rule):
    build([ShownRun(**run) for run in snakemake.params.runs], snakemake.params.augmented)
