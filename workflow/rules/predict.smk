# Answers with the adapters, their scores, and what each passage's adapter has learnt.

for prediction in PREDICT.predictions:
    for part in prediction.jobs:

        rule:
            name:
                part.rule
            input:
                **part.inputs,
            output:
                part.output,
            log:
                f"logs/predict/{part.name}.log",
            benchmark:
                f"benchmarks/predict/{part.name}.tsv"
            conda:
                "../../envs/lorary.yaml"
            threads: training_threads
            resources:
                gpu=1,
                mem_mb=lambda wildcards, input, attempt: request.memory_mb(input.model, attempt),
                runtime=lambda wildcards, input, attempt, part=part: answering_minutes(input.model, part, attempt),
            params:
                **part.params,
                model_source=part.model_source,
                journal=part.journal,
                label=part.label,
            message:
                f"Answering: {part.label}"
            script:
                "../scripts/predict.py"

    rule:
        name:
            prediction.rule
        input:
            [part.output for part in prediction.jobs],
        output:
            predictions=f"{prediction.folder}/predict.json",
            result=f"{prediction.folder}/result.txt",
            config=f"{prediction.folder}/config.json",
        log:
            f"logs/predict/{prediction.rule}.log",
        retries: 0
        localrule: True
        conda:
            "../../envs/lorary.yaml"
        params:
            label=f"{prediction.method}, {prediction.kind.run['dataset']} {Path(prediction.folder).name}",
            settings=prediction_settings(prediction),
        message:
            f"Scoring {prediction.folder}"
        script:
            "../scripts/score.py"


rule scores:
    input:
        [f"{prediction.folder}/predict.json" for prediction in PREDICT.predictions],
    output:
        report(
            "results/scores.tsv",
            caption="../report/scores_table.rst",
            category="Scores",
            labels={"what": "table of all runs"},
        ),
    log:
        "logs/scores.log",
    retries: 0
    localrule: True
    conda:
        "../../envs/lorary.yaml"
    script:
        "../scripts/scores.py"


for knowledge in PREDICT.knowledge:
    for part in knowledge.jobs:

        rule:
            name:
                part.rule
            input:
                **part.inputs,
            output:
                part.output,
            log:
                f"logs/predict/{part.name}.log",
            benchmark:
                f"benchmarks/predict/{part.name}.tsv"
            conda:
                "../../envs/lorary.yaml"
            threads: training_threads
            resources:
                gpu=1,
                mem_mb=lambda wildcards, input, attempt: request.memory_mb(input.model, attempt),
                runtime=lambda wildcards, input, attempt, part=part: answering_minutes(input.model, part, attempt),
            params:
                **part.params,
                model_source=part.model_source,
                journal=part.journal,
                label=part.label,
            message:
                f"Asking without context: {part.label}"
            script:
                "../scripts/test_passages.py"

    rule:
        name:
            knowledge.rule
        input:
            [part.output for part in knowledge.jobs],
        output:
            report(
                knowledge.path,
                caption="../report/knowledge_table.rst",
                category="Knowledge",
                labels={"what": f"table, {Path(knowledge.path).parts[-4]} {Path(knowledge.path).parts[-3]}"},
            ),
        log:
            f"logs/predict/{knowledge.rule}.log",
        retries: 0
        localrule: True
        conda:
            "../../envs/lorary.yaml"
        params:
            types=[part.type_name for part in knowledge.jobs],
        message:
            f"Gathering {knowledge.path}"
        script:
            "../scripts/knowledge.py"
