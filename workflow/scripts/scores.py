"""Rule scores: one table over all runs, types and methods."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from lorary.answer.tables import scores_table
from lorary.core.job import job

with job(snakemake.log[0], snakemake.rule):
    scores_table(list(snakemake.input), snakemake.params.runs, snakemake.output[0])
