"""Rules predict: questions answered with one method."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from lorary.answer.predict import predict
from lorary.base.fetch import check_source
from lorary.core.job import job
from lorary.data.prompts import load_prompter

with job(snakemake.log[0], snakemake.params.label):
    check_source(snakemake.input.model, **snakemake.params.model_source)
    predict(
        output=snakemake.output[0],
        journal_file=snakemake.params.journal,
        table=snakemake.input.table,
        rows=snakemake.params.rows,
        method=snakemake.params.method,
        prompter=load_prompter(
            snakemake.input.model,
            snakemake.input.templates,
            snakemake.input.get("fewshot"),
            snakemake.params.with_cot,
            snakemake.params.chat_date,
        ),
        records=snakemake.input.get("records", []),
        model=snakemake.input.model,
        precision=snakemake.params.precision,
        max_new_tokens=snakemake.params.max_new_tokens,
        threads=snakemake.threads,
    )
