"""Rule prune: what no run of the config refers to goes from the store."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from lorary.job import job
from lorary.prune import Wanted, prune
from lorary.train import position_of

with job(snakemake.log[0], snakemake.rule):
    prune([Wanted(*batch, {position_of(path) for path in paths}) for *batch, paths in snakemake.params.batches])
