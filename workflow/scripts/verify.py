"""Rule verify: every byte that a run has left."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from lorary.core.job import job
from lorary.upkeep.verify import verify

with job(snakemake.log[0], snakemake.rule):
    verify(**dict(snakemake.params.items()))
