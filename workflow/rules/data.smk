# Augmented data into one checked table for each type.


rule load_data:
    input:
        lambda w: table_settings(w)["files"],
    output:
        "results/data/{table}.parquet",
    log:
        "logs/load_data/{table}.log",
    retries: 0
    localrule: True
    conda:
        "../../envs/lorary.yaml"
    params:
        sample=lambda w: table_settings(w)["sample"],
        augment_model=lambda w: table_settings(w)["augment_model"],
    script:
        "../scripts/load_data.py"
