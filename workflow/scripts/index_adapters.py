"""Rules index_adapters: one table over the adapters of a run, and what it takes to make them again."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from lorary.core.job import job
from lorary.train.index import index_adapters
from lorary.train.provenance import describe_run

with job(snakemake.log[0], snakemake.rule):
    index_adapters(snakemake.input.records, snakemake.params.table_of, snakemake.output.table)
    describe_run(
        runs=snakemake.params.runs,
        model=snakemake.input.model,
        base_weight=snakemake.input.base_weight,
        data=snakemake.params.data,
        tables=snakemake.params.tables,
        output=snakemake.output.run,
    )
