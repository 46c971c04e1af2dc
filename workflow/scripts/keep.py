"""Rule keep: what the base model knows beside any passage."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from lorary.base.fetch import check_source
from lorary.core.job import job
from lorary.data.prompts import load_prompter
from lorary.plan import layout
from lorary.train.keep import keep

setting = snakemake.params.setting

with job(snakemake.log[0], snakemake.rule):
    check_source(snakemake.input.model, **setting["model_source"])
    keep(
        output=snakemake.output[0],
        model=snakemake.input.model,
        base_weight=layout.folder_of(snakemake.input.base_weight[0]),
        questions=snakemake.input.questions,
        prompter=load_prompter(snakemake.input.model, setting["wording"]),
        share=setting["directions"],
        precision=setting["precision"],
        threads=snakemake.threads,
        task_adapter=setting.get("task_adapter"),
    )
