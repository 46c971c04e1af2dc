"""Rule bench_answers: PEFT's way of answering and ours, measured in one run."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.answer import bench_answers
from lorary.core.job import job
from lorary.data.prompts import load_prompter

with job(snakemake.log[0], snakemake.rule):
    table = bench_answers(
        model=snakemake.input.model,
        table=snakemake.input.table,
        records=snakemake.input.records,
        prompter=load_prompter(snakemake.input.model, snakemake.params.prompts),
        max_new_tokens=snakemake.params.max_new_tokens,
        threads=snakemake.threads,
        output=snakemake.output.figures,
    )
    Path(snakemake.output.table).write_text(table, encoding="utf-8")
    print(table)
