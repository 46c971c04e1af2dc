"""Rule prune: what no run of the config refers to goes from the store."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from lorary.core.job import job
from lorary.upkeep.prune import Wanted, prune

with job(snakemake.log[0], snakemake.rule):
    prune([Wanted(**batch) for batch in snakemake.params.batches])
