# A parameter translator, what it reads of passages, and the adapters that it makes of them.


rule embed:
    input:
        model=lambda w: JOBS["embed"][w.embeddings].inputs["model"],
        table=lambda w: JOBS["embed"][w.embeddings].inputs["table"],
    output:
        layout.EMBEDDINGS,
    log:
        layout.log("embed/{embeddings}/{start}-{stop}"),
    benchmark:
        layout.benchmark("embed/{embeddings}/{start}-{stop}")
    wildcard_constraints:
        start=r"\d+",
        stop=r"\d+",
    conda:
        "../../envs/lorary.yaml"
    threads: threads
    resources:
        gpu=1,
        mem_mb=lambda w, input, attempt: JOBS["embed"][w.embeddings].resources.memory_mb(input.model, attempt),
        runtime=lambda w, input, attempt: JOBS["embed"][w.embeddings].resources.minutes(input.model, attempt),
    params:
        setting=lambda w: JOBS["embed"][w.embeddings].params,
    message:
        "Reading passages: {wildcards.embeddings} {wildcards.start}-{wildcards.stop}"
    script:
        "../scripts/embed.py"


for job in JOBS["train_translator"].values():

    rule:
        name:
            job.rule
        input:
            model=job.inputs["model"],
            # Its settings are in the translator's name, and a call for other data may touch it.
            base_weight=ancient(job.inputs["base_weight"]),
            embeddings=job.inputs["embeddings"],
            prompts=job.inputs["prompts"],
            records=job.inputs["records"],
            kept=ancient(job.inputs["kept"]),  # Whose settings are in its name.
        output:
            **job.outputs,
        log:
            job.log,
        benchmark:
            job.benchmark
        conda:
            "../../envs/lorary.yaml"
        threads: threads
        resources:
            gpu=1,
            mem_mb=lambda wildcards, input, attempt, job=job: job.resources.memory_mb(input.model, attempt),
            runtime=lambda wildcards, input, attempt, job=job: job.resources.minutes(input.model, attempt),
        params:
            setting=job.params,
        message:
            f"Training the translator {job.label}"
        script:
            "../scripts/train_translator.py"


# As in training, each batch has its rule.

for job in JOBS["translate_adapters"].values():

    rule:
        name:
            job.rule
        input:
            model=job.inputs["model"],
            base_weight=ancient(job.inputs["base_weight"]),
            embeddings=job.inputs["embeddings"],
            translator=job.inputs["translator"],
        output:
            record=job.outputs["record"],
            adapters=job.declared if "pack" in job.outputs else [directory(adapter) for adapter in job.declared],
        log:
            text=job.log,
            outcome=job.outcome,
        benchmark:
            job.benchmark
        conda:
            "../../envs/lorary.yaml"
        threads: threads
        resources:
            gpu=1,
            mem_mb=lambda wildcards, input, attempt, job=job: job.resources.memory_mb(input.model, attempt),
            runtime=lambda wildcards, input, attempt, job=job: job.resources.minutes(input.model, attempt),
        params:
            setting=job.params,
        message:
            f"Translating {job.label} of {job.of} passages"
        script:
            "../scripts/translate_adapters.py"
