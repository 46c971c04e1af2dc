"""Rules knowledge: one table of what the passages of a run have learnt."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from lorary.answer.knowledge import gather
from lorary.core.job import job

with job(snakemake.log[0], snakemake.rule):
    gather(**snakemake.params.setting, output=snakemake.output[0])
