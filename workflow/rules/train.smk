# One job trains one batch of passages and declares each of its adapter directories, so each batch has its rule.

for batch in PLAN.batches:

    rule:
        name:
            batch.rule
        input:
            model=batch.model,
            base_weight=batch.base_weight,
            prompts=batch.prompts,
        output:
            adapters=[directory(adapter) for adapter in batch.adapters],
            record=batch.record,
        log:
            text=f"logs/train_adapters/{batch.name}.log",
            outcome=training_outcome(batch),
        benchmark:
            f"benchmarks/train_adapters/{batch.name}.tsv"
        conda:
            "../../envs/lorary.yaml"
        threads: training_threads
        resources:
            gpu=1,
            # For a cluster; each attempt asks for more.
            mem_mb=lambda wildcards, input, attempt: request.memory_mb(input.model, attempt),
            runtime=lambda wildcards, input, attempt, batch=batch: request.minutes(
                input.model,
                len(batch.adapters),
                batch.settings["num_train_epochs"],
                batch.settings["precision"],
                attempt,
            ),
        params:
            model_source=batch.model_source,
            settings=batch.settings,
            adapters_per_step=batch.adapters_per_step,
            store=batch.store,
            label=batch.label,
        message:
            f"Training {batch.label} of {batch.of} passages"
        script:
            "../scripts/train_adapters.py"


for index in PLAN.indexes:

    rule:
        name:
            index.rule
        input:
            records=[batch.record for batch in index.batches],
            tables=sorted({batch.table for batch in index.batches}),
            model=index.model,
            base_weight=index.base_weight,
        output:
            table=index.path,
            run=report(
                index.run,
                caption="../report/settings.rst",
                category="Settings",
                labels={"what": f"{Path(index.run).parts[-4]} {Path(index.run).parts[-3]}"},
            ),
        log:
            f"logs/{index.rule}.log",
        retries: 0
        localrule: True
        conda:
            "../../envs/lorary.yaml"
        params:
            table_of=[batch.table for batch in index.batches],
            runs=index.runs,
            data=index.data,
            tables={Path(batch.adapters[0]).parts[-3]: batch.table for batch in index.batches},
        message:
            f"Indexing {index.path}"
        script:
            "../scripts/index_adapters.py"
