"""Rules score: predictions scored, in the reference's files."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from lorary.answer.tables import write_predictions
from lorary.core.job import job

with job(snakemake.log[0], snakemake.params.label):
    write_predictions(snakemake.input, snakemake.params.settings, **dict(snakemake.output.items()))
