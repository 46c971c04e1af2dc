"""Rules export_adapter: several adapters as one."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from lorary.adapters.merge import merge_adapters
from lorary.core.job import job

with job(snakemake.log[0], snakemake.rule):
    merge_adapters(list(snakemake.input.adapters), snakemake.output[0], **dict(snakemake.params.items()))
