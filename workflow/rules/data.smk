# Augmented data into one checked table for each type.


rule load_data:
    input:
        lambda w: PLAN.tables[f"results/data/{w.table}.parquet"]["files"],
    output:
        "results/data/{table}.parquet",
    log:
        "logs/load_data/{table}.log",
    conda:
        "../../envs/lorary.yaml"
    params:
        sample=lambda w, output: PLAN.tables[output[0]]["sample"],
        augment_model=lambda w, output: PLAN.tables[output[0]]["augment_model"],
    script:
        "../scripts/load_data.py"
