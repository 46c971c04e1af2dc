# The benchmarks, on the first passages of the first type: `snakemake --cores all bench` (training) and `bench_answers`.
# Not part of a run.


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


# So many passages have 32 questions.
BENCH_RECORDS = [batch.record for batch in PLAN.types[0].batches[: -(-32 // PLAN.types[0].per_job)]]


rule bench_answers:
    input:
        model=PLAN.types[0].prompts["model"],
        table=PLAN.types[0].prompts["table"],
        templates=PLAN.types[0].prompts["prompt_templates"],
        fewshot=PLAN.types[0].prompts["fewshot"] or [],
        records=BENCH_RECORDS,
    output:
        figures="results/bench/answers.json",
        table="results/bench/answers.md",
    log:
        "logs/bench_answers.log",
    conda:
        "../../envs/lorary.yaml"
    threads: training_threads
    resources:
        gpu=1,
        mem_mb=32000,
        runtime=60,
    params:
        with_cot=PLAN.types[0].run["with_cot"],
        chat_date=PLAN.types[0].run["chat_date"],
        max_new_tokens=PLAN.types[0].asked["max_new_tokens"],
    message:
        "Benchmark of answers: some minutes, most of them PEFT's way"
    script:
        "../scripts/bench_answers.py"
