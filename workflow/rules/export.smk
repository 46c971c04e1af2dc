# One merged adapter of a question, or of a list of passages: `snakemake export --config export=total/data_0`; or
# (routed) a table from question to adapter. Not part of a run.

for job in JOBS["export_adapter"].values():

    rule:
        name:
            job.rule
        input:
            adapters=job.inputs["adapters"],
            task_adapter=ancient(job.inputs["task_adapter"]),
        output:
            directory(job.outputs["adapter"]),
        log:
            job.log,
        retries: 0
        localrule: True
        conda:
            "../../envs/lorary.yaml"
        params:
            **job.params,
        message:
            f"Merging {job.label}"
        script:
            "../scripts/export_adapter.py"


for job in JOBS["export_routes"].values():

    rule:
        name:
            job.rule
        input:
            adapters=job.inputs["adapters"],
            files=job.inputs["files"],
        output:
            job.outputs["table"],
        log:
            job.log,
        retries: 0
        localrule: True
        conda:
            "../../envs/lorary.yaml"
        params:
            setting=job.params,
        message:
            f"Listing {job.label}"
        script:
            "../scripts/export_routes.py"


rule export:
    input:
        [job.outputs["adapter"] for job in PLAN.answering.exports],
        [job.outputs["table"] for job in PLAN.answering.exported_routes],
    log:
        layout.log("export"),
    localrule: True
    conda:
        "../../envs/lorary.yaml"
    message:
        "Exporting"
    script:
        "../scripts/export.py"
