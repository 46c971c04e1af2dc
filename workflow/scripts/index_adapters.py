"""Rule index_adapters: one table over the adapters of a run."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from lorary.index import index_adapters
from lorary.job import job

with job(snakemake.log[0], snakemake.rule):
    index_adapters(snakemake.input.records, snakemake.params.table_of, snakemake.output[0])
