"""Rule keep: what the base model knows beside any passage."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from lorary.base.fetch import check_source
from lorary.core.job import job
from lorary.data.prompts import load_prompter
from lorary.plan import layout
from lorary.train.keep import keep

setting, files = snakemake.params.setting, snakemake.input

with job(snakemake.log[0], snakemake.rule):
    check_source(files.model, **setting["model_source"])
    wording = {"prompt_templates": files.prompt_templates, "fewshot": files.fewshot or None, **setting["wording"]}
    task = setting["task_adapter"]
    keep(
        output=snakemake.output[0],
        model=files.model,
        questions=files.questions,
        prompter=load_prompter(files.model, wording),
        share=setting["directions"],
        target_modules=setting["lora_target_modules"],
        precision=setting["precision"],
        threads=snakemake.threads,
        task_adapter={"path": layout.folder_of(files.task_adapter[0]), "sha256": task} if task else None,
    )
