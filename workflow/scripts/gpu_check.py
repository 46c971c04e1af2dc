"""Rule gpu_check: what is promised, held against what this machine's GPUs do."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.check import check
from lorary.core.job import job

with job(snakemake.log.text, snakemake.rule):
    print(
        check(
            model=snakemake.input.model,
            bench=snakemake.input.bench,
            answers=snakemake.input.answers,
            threads=snakemake.threads,
            figures=snakemake.log.figures,
            table=snakemake.log.table,
        )
    )
