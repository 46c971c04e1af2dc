"""Rule bench_translator: what translators know of passages that they never saw."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.translator import bench_translator
from lorary.core.job import job

with job(snakemake.log[0], snakemake.rule):
    table = bench_translator(
        config=snakemake.params.config,
        kinds=snakemake.params.kinds,
        pairs=snakemake.params.pairs,
        seeds=snakemake.params.seeds,
        folder=snakemake.params.folder,
        cores=snakemake.threads,
    )
    Path(snakemake.output.table).write_text(table, encoding="utf-8")
    print(table)
