"""Rules export_adapter: several adapters as one."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from lorary.job import job
from lorary.merge import merge_adapters

with job(snakemake.log[0], snakemake.rule):
    merge_adapters(list(snakemake.input), snakemake.output[0])
