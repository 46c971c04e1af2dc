# Looking after what runs leave: `snakemake verify`, `pack`, `rewrite_configs` and `prune`. Not part of a run, and made
# anew on each call.


rule verify:
    log:
        layout.log("verify"),
    localrule: True
    conda:
        "../../envs/lorary.yaml"
    params:
        records=PLAN.batches(),
        runs=PLAN.base_weights_of_runs(),
        tables=[*PLAN.tables, *PLAN.prompts],
        models=PLAN.models,
        stores=PLAN.stores,
        kept=PLAN.kept,
        translators=PLAN.translators_with_sha256(),
    message:
        "Verifying adapters, store, tables, base weights and base models"
    script:
        "../scripts/verify.py"


# Packs of what is there already: no training, all is linked from the store.
rule pack:
    input:
        packs=PLAN.packs,
        indexes=PLAN.indexes if PLAN.packs else [],
    log:
        layout.log("pack"),
    localrule: True
    conda:
        "../../envs/lorary.yaml"
    message:
        "Packing"
    script:
        "../scripts/pack.py"


rule rewrite_configs:
    log:
        layout.log("rewrite_configs"),
    localrule: True
    conda:
        "../../envs/lorary.yaml"
    params:
        records=PLAN.batches(),
        indexes=PLAN.tables_of_adapters(),
    message:
        "Writing the configs of adapters anew"
    script:
        "../scripts/rewrite_configs.py"


rule prune:
    input:
        models=PLAN.models,
        base_weights=PLAN.base_weights,
        prompts=PLAN.prompts,
        # Of what a translator is to spare, digests have no need.
        kept=sorted({batch["kept"] for batch in PLAN.wanted() if batch.get("kept")}),
    log:
        layout.log("prune"),
    localrule: True
    conda:
        "../../envs/lorary.yaml"
    params:
        batches=PLAN.wanted(),
    message:
        "Pruning the store"
    script:
        "../scripts/prune.py"
