"""Rule bench_retrieval: what the index of passages costs, and what it finds."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.retrieve import bench_retrieval
from lorary.core.job import job

with job(snakemake.log[0], snakemake.rule):
    table = bench_retrieval(
        corpus=snakemake.params.corpus,
        questions=snakemake.params.questions,
        output=snakemake.output.figures,
    )
    Path(snakemake.output.table).write_text(table, encoding="utf-8")
    print(table)
