# What adapters are to spare of the base model, and the adapters.


rule keep:
    input:
        model=lambda w: JOBS["keep"][w.kept].inputs["model"],
        # The digests of all others are in the params, and in the file's name.
        questions=lambda w: ancient(JOBS["keep"][w.kept].inputs["questions"]),
        prompt_templates=lambda w: ancient(JOBS["keep"][w.kept].inputs["prompt_templates"]),
        fewshot=lambda w: ancient(JOBS["keep"][w.kept].inputs["fewshot"]),
        task_adapter=lambda w: ancient(JOBS["keep"][w.kept].inputs["task_adapter"]),
    output:
        layout.KEPT,
    log:
        layout.log("keep/{kept}"),
    benchmark:
        layout.benchmark("keep/{kept}")
    wildcard_constraints:
        kept="[^/]+",
    conda:
        "../../envs/lorary.yaml"
    threads: threads
    resources:
        gpu=1,
        mem_mb=lambda w, input, attempt: JOBS["keep"][w.kept].resources.memory_mb(input.model, attempt),
        runtime=lambda w, input, attempt: JOBS["keep"][w.kept].resources.minutes(input.model, attempt),
    params:
        setting=lambda w: JOBS["keep"][w.kept].params,
    message:
        "Asking the base model what adapters are to spare"
    script:
        "../scripts/keep.py"


# One job trains one batch of passages and declares each of its adapter directories, or its pack, so each batch has its
# rule.

# Snakemake remembers what stands under `script:` with its indentation, and runs a job again where that is another. So this
# is as deep as it has ever been; in answer.smk too.
if JOBS["train_adapters"]:

    for job in JOBS["train_adapters"].values():

        rule:
            name:
                job.rule
            input:
                model=job.inputs["model"],
                # Its settings are in the record's name, and a call for other data may touch it.
                base_weight=ancient(job.inputs["base_weight"]),
                prompts=job.inputs["prompts"],
                # Its digest is in the params.
                task_adapter=ancient(job.inputs["task_adapter"]),
                # Whose settings are in its name.
                kept=ancient(job.inputs["kept"]),
            output:
                # First, since it is what is asked for: Snakemake compares with one after the other.
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
                # For a cluster; each attempt asks for more.
                mem_mb=lambda wildcards, input, attempt, job=job: job.resources.memory_mb(input.model, attempt),
                runtime=lambda wildcards, input, attempt, job=job: job.resources.minutes(input.model, attempt),
            params:
                setting=job.params,
            message:
                f"Training {job.label} of {job.of} passages"
            script:
                "../scripts/train_adapters.py"


for job in JOBS["index_adapters"].values():

    rule:
        name:
            job.rule
        input:
            records=job.inputs["records"],
            tables=job.inputs["tables"],
            model=job.inputs["model"],
            base_weight=ancient(job.inputs["base_weight"]),
        output:
            # What this call says; and what is put together of that and of what those for other types say, which is not
            # removed before, since such a call may be reading it.
            parts=job.outputs["parts"],
            table=update(job.outputs["table"]),
            run=report(
                update(job.outputs["run"]),
                caption="../report/settings.rst",
                category="Settings",
                labels={"what": job.label},
            ),
        log:
            job.log,
        retries: 0
        localrule: True
        conda:
            "../../envs/lorary.yaml"
        params:
            setting=job.params,
        message:
            f"Indexing {job.outputs['table']}"
        script:
            "../scripts/index_adapters.py"
