# The benchmark, on the first passages of the first batch: `snakemake --cores all bench`. Not part of a run.


rule bench:
    input:
        model=PLAN.batches[0].model,
        base_weight=PLAN.batches[0].base_weight,
        prompts=PLAN.batches[0].prompts,
    output:
        figures="results/bench/bench.json",
        table="results/bench/bench.md",
        plot="results/bench/bench.svg",
    log:
        "logs/bench.log",
    conda:
        "../../envs/lorary.yaml"
    threads: training_threads
    resources:
        gpu=1,
        mem_mb=32000,
        runtime=90,
    message:
        "Benchmark: about a quarter of an hour, most of it the reference's way"
    script:
        "../scripts/bench.py"
