"""Rule bench: the reference's way of training, PEFT's and ours, measured in one run."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.train import bench
from lorary.core.job import job
from lorary.plan import layout

with job(snakemake.log[0], snakemake.rule):
    tables = bench(
        model=snakemake.input.model,
        base_weight=layout.folder_of(snakemake.input.base_weight[0]),
        prompts=snakemake.input.prompts,
        threads=snakemake.threads,
        output=snakemake.output.figures,
        plot=snakemake.output.plot,
    )
    Path(snakemake.output.table).write_text(tables, encoding="utf-8")
    print(tables)
