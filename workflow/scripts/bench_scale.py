"""Rule bench_scale: what each stage takes, by the number of passages."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.scale import bench_scale
from lorary.core.job import job

with job(snakemake.log[0], snakemake.rule):
    table = bench_scale(
        model=snakemake.input.model,
        sizes=snakemake.params.sizes,
        folder=snakemake.params.folder,
        output=snakemake.output.figures,
    )
    Path(snakemake.output.table).write_text(table, encoding="utf-8")
    print(table)
