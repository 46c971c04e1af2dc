# Looking after what runs leave: `snakemake verify` and `snakemake prune`. Not part of a run, and made anew on each call.


rule verify:
    log:
        "logs/verify.log",
    localrule: True
    conda:
        "../../envs/lorary.yaml"
    params:
        records=[batch.record for batch in PLAN.batches],
        runs=[(index.base_weight, index.run) for index in PLAN.indexes],
        tables=[*PLAN.tables, *PROMPTS],
        models=list(PLAN.models),
        stores=STORES,
    message:
        "Verifying adapters, store, tables, base weights and base models"
    script:
        "../scripts/verify.py"


rule prune:
    input:
        models=list(PLAN.models),
        base_weights=[base_weight.path for base_weight in PLAN.base_weights],
        prompts=PROMPTS,
    log:
        "logs/prune.log",
    localrule: True
    conda:
        "../../envs/lorary.yaml"
    params:
        batches=[
            (batch.store, batch.model, batch.base_weight, batch.prompts, batch.settings, batch.adapters)
            for batch in PLAN.batches
        ],
    message:
        "Pruning the store"
    script:
        "../scripts/prune.py"
