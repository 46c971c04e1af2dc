# The base model, and the base weight that every training starts from.


rule get_model:
    input:
        lambda w: model_files(JOBS["get_model"][w.model].params["model_path"]),
    output:
        directory(layout.MODEL),
    log:
        layout.log("get_model/{model}"),
    benchmark:
        layout.benchmark("get_model/{model}")
    wildcard_constraints:
        model="[^/]+",
    retries: 0
    localrule: True
    conda:
        "../../envs/lorary.yaml"
    params:
        # Of wildcards alone: Snakemake notices no change of params that are functions of the output.
        source=lambda w: JOBS["get_model"][w.model].params,
        version=MODEL_VERSION,
    script:
        "../scripts/get_model.py"


for job in JOBS["init_base_weight"].values():

    rule:
        name:
            job.rule
        input:
            model=job.inputs["model"],
            given=job.inputs["given"],
        output:
            # Not removed before it is made anew: a call for other types may be reading it.
            config=update(job.outputs["config"]),
            tensors=update(job.outputs["tensors"]),
            mark=update(job.outputs["mark"]),
        log:
            job.log,
        retries: 0
        localrule: True
        conda:
            "../../envs/lorary.yaml"
        params:
            setting=job.params,
        script:
            "../scripts/init_base_weight.py"
