"""Rule rewrite_configs: the configs of adapters as training would write them today."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from lorary.core.job import job
from lorary.upkeep.configs import rewrite

with job(snakemake.log[0], snakemake.rule):
    rewrite(snakemake.params.records, snakemake.params.indexes)
