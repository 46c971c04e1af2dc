# One merged adapter of a question, or of a list of passages: `snakemake export --config export=total/data_0`. Not part
# of a run.

for export in PREDICT.exports:

    rule:
        name:
            export.rule
        input:
            export.adapters,
        output:
            directory(export.folder),
        log:
            f"logs/{export.rule}.log",
        retries: 0
        localrule: True
        conda:
            "../../envs/lorary.yaml"
        message:
            f"Merging {len(export.adapters)} adapters into {export.folder}"
        script:
            "../scripts/export_adapter.py"


rule export:
    input:
        [export.folder for export in PREDICT.exports],
    log:
        "logs/export.log",
    localrule: True
    conda:
        "../../envs/lorary.yaml"
    message:
        "Exporting"
    script:
        "../scripts/export.py"
