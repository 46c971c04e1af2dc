"""Rules score: predictions scored, in the reference's files."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from lorary.answer.tables import write_predictions
from lorary.core.job import job

setting = snakemake.params.setting

with job(snakemake.log[0], setting["label"]):
    write_predictions(list(snakemake.input), setting["settings"], **dict(snakemake.output.items()))
