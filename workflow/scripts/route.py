"""Rule route: the passages of each question in the order in which they go with it."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from lorary.answer.route import route
from lorary.core.job import job

with job(snakemake.log[0], snakemake.rule):
    route(snakemake.input[0], snakemake.params.setting["by"], snakemake.output[0])
