# The base model, and the base weight that every training starts from.


rule get_model:
    input:
        model_sources,
    output:
        directory("resources/models/{model}"),
    log:
        "logs/get_model/{model}.log",
    benchmark:
        "benchmarks/get_model/{model}.tsv"
    wildcard_constraints:
        model="[^/]+",
    retries: 0
    localrule: True
    conda:
        "../../envs/lorary.yaml"
    params:
        model_path=lambda w: model_settings(w)["model_path"],
        model_revision=lambda w: model_settings(w)["model_revision"],
        trust_remote_code=lambda w: model_settings(w)["trust_remote_code"],
    script:
        "../scripts/get_model.py"


for base_weight in PLAN.base_weights:

    rule:
        name:
            base_weight.rule
        input:
            model=base_weight.settings["model"],
            given=base_weight.settings["base_weight"] or [],
        output:
            directory(base_weight.path),
        log:
            f"logs/{base_weight.rule}.log",
        retries: 0
        localrule: True
        conda:
            "../../envs/lorary.yaml"
        params:
            model_source=PLAN.models[base_weight.settings["model"]],
            lora_rank=base_weight.settings["lora_rank"],
            lora_alpha=base_weight.settings["lora_alpha"],
            lora_target_modules=base_weight.settings["lora_target_modules"],
            seed=base_weight.settings["seed"],
            base_weight=base_weight.settings["base_weight"],
        script:
            "../scripts/init_base_weight.py"
