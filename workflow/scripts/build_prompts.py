"""Rule build_prompts: the prompt ids of some passages of a table."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from lorary.core.job import job
from lorary.data import prompts
from lorary.data import rows as dataset

with job(snakemake.log[0], f"build_prompts {snakemake.wildcards.start}-{snakemake.wildcards.stop}"):
    start, stop = int(snakemake.wildcards.start), int(snakemake.wildcards.stop) + 1
    prompter = prompts.load_prompter(
        snakemake.input.model,
        snakemake.input.templates,
        snakemake.input.get("fewshot"),
        snakemake.params.with_cot,
        snakemake.params.chat_date,
    )
    table = prompts.build(dataset.read(snakemake.input.table, start, stop), prompter, snakemake.params.max_length)
    prompts.save(table, snakemake.output[0])
