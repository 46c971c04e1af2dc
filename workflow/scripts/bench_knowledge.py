"""Rule bench_knowledge: which recipe knows most of its passages."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.knowledge import bench_knowledge
from lorary.core.job import job

with job(snakemake.log[0], snakemake.rule):
    table = bench_knowledge(
        config=snakemake.params.config,
        files=list(snakemake.input),
        recipes=snakemake.params.recipes,
        seeds=snakemake.params.seeds,
        pairs=snakemake.params.pairs,
        folder=snakemake.params.folder,
        cores=snakemake.threads,
    )
    Path(snakemake.output.table).write_text(table, encoding="utf-8")
    print(table)
