# One merged adapter of a question, or of a list of passages: `snakemake export --config export=total/data_0`. Not part
# of a run.

for job in PLAN.answering.exports:

    rule:
        name:
            job.rule
        input:
            job.inputs["adapters"],
        output:
            directory(job.outputs["adapter"]),
        log:
            job.log,
        retries: 0
        localrule: True
        conda:
            "../../envs/lorary.yaml"
        message:
            f"Merging {job.label}"
        script:
            "../scripts/export_adapter.py"


rule export:
    input:
        [job.outputs["adapter"] for job in PLAN.answering.exports],
    log:
        layout.log("export"),
    localrule: True
    conda:
        "../../envs/lorary.yaml"
    message:
        "Exporting"
    script:
        "../scripts/export.py"
