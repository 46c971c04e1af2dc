"""Rules test_passages: what the adapters of some passages have learnt."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from lorary.answer.knowledge import test_passages
from lorary.base.fetch import check_source
from lorary.core.job import job
from lorary.data.prompts import load_prompter

with job(snakemake.log[0], snakemake.params.label):
    check_source(snakemake.input.model, **snakemake.params.model_source)
    test_passages(
        output=snakemake.output[0],
        journal_file=snakemake.params.journal,
        table=snakemake.input.table,
        rows=snakemake.params.rows,
        others=snakemake.params.others,
        prompter=load_prompter(
            snakemake.input.model,
            snakemake.input.templates,
            snakemake.input.get("fewshot"),
            snakemake.params.with_cot,
            snakemake.params.chat_date,
        ),
        records=snakemake.input.records,
        model=snakemake.input.model,
        precision=snakemake.params.precision,
        threads=snakemake.threads,
    )
