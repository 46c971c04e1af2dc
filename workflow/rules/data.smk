# Augmented data into one checked table for each type.


rule load_data:
    input:
        lambda w: JOBS["load_data"][w.table].inputs["files"],
    output:
        layout.TABLE,
    log:
        layout.log("load_data/{table}"),
    retries: 0
    localrule: True
    conda:
        "../../envs/lorary.yaml"
    params:
        setting=lambda w: JOBS["load_data"][w.table].params,
    script:
        "../scripts/load_data.py"
