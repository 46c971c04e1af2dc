"""Rules export_adapter: several adapters as one."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from lorary.adapters.merge import merge_adapters
from lorary.core.job import job

with job(snakemake.log[0], snakemake.rule):
    params = dict(snakemake.params.items())
    adapters = params.pop("packed", snakemake.input.adapters)
    merge_adapters(list(adapters), snakemake.output[0], **params)
