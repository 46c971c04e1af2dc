"""Rule bench_serve: requests a second of a server, and what becomes of them at a SIGTERM."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.serve import bench_serve
from lorary.core.job import job

with job(snakemake.log[0], snakemake.rule):
    table = bench_serve(
        table=snakemake.input.table,
        adapter_dir=snakemake.params.adapter_dir,
        run=snakemake.params.run,
        max_new_tokens=snakemake.params.max_new_tokens,
        output=snakemake.output.figures,
    )
    Path(snakemake.output.table).write_text(table, encoding="utf-8")
    print(table)
