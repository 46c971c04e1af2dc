"""Rule prune: what no run of the config refers to goes from the store."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from lorary.core.job import job
from lorary.train.encode import position_of
from lorary.upkeep.prune import Wanted, prune

with job(snakemake.log[0], snakemake.rule):
    prune([Wanted(*batch, {position_of(path) for path in paths}) for *batch, paths in snakemake.params.batches])
