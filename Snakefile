# Passages of text into LoRA adapters: `snakemake --cores 8 --resources gpu=1`. Settings: config.yaml.
from snakemake.utils import min_version

min_version("9.0")


configfile: "config.yaml"


report: "workflow/report/workflow.rst"


include: "workflow/rules/common.smk"
include: "workflow/rules/model.smk"
include: "workflow/rules/data.smk"
include: "workflow/rules/prompts.smk"
include: "workflow/rules/train.smk"
include: "workflow/rules/predict.smk"
include: "workflow/rules/report.smk"
include: "workflow/rules/export.smk"
include: "workflow/rules/bench.smk"
include: "workflow/rules/upkeep.smk"


rule all:
    default_target: True
    input:
        ADAPTERS,
        [base_weight.path for base_weight in PLAN.base_weights],
        [file for index in PLAN.indexes for file in (index.path, index.run)],
        SCORES,
        REPORT,
    message:
        "Every adapter is there, and what was asked of them."


# Parts of the way: `snakemake --cores 8 prompts` and so on.
rule models:
    input:
        list(PLAN.models),


rule data:
    input:
        list(PLAN.tables),


rule prompts:
    input:
        PROMPTS,


rule adapters:
    input:
        ADAPTERS,


rule predictions:
    input:
        ADAPTERS,
        SCORES,
