"""Rules heldout: one table of what the adapters of a run know that they were not trained on, and its summary."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from lorary.answer.heldout import gather
from lorary.core.job import job

with job(snakemake.log[0], snakemake.rule):
    gather(**snakemake.params.setting, output=snakemake.output[0], summary=snakemake.output[1])
