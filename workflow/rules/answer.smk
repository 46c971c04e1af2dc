# Answers with the adapters, their scores, and what each passage's adapter has learnt.


rule route:
    input:
        lambda w: JOBS["route"][w.routes].inputs["table"],
    output:
        layout.ROUTES,
    log:
        layout.log("route/{routes}"),
    retries: 0
    localrule: True
    conda:
        "../../envs/lorary.yaml"
    params:
        setting=lambda w: JOBS["route"][w.routes].params,
    script:
        "../scripts/route.py"


# As deep as it has ever been (train.smk says why).
if JOBS["predict"]:

    for job in JOBS["predict"].values():

        rule:
            name:
                job.rule
            input:
                model=job.inputs["model"],
                table=job.inputs["table"],
                templates=job.inputs["templates"],
                fewshot=job.inputs["fewshot"],
                records=job.inputs["records"],
                task_adapter=under(job),
                routes=job.inputs["routes"],
            output:
                job.outputs["answers"],
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
                f"Answering: {job.label}"
            script:
                "../scripts/predict.py"


for job in JOBS["score"].values():

    rule:
        name:
            job.rule
        input:
            job.inputs["parts"],
        output:
            predictions=job.outputs["predictions"],
            result=job.outputs["result"],
            config=job.outputs["config"],
        log:
            job.log,
        retries: 0
        localrule: True
        conda:
            "../../envs/lorary.yaml"
        params:
            setting=job.params,
        message:
            f"Scoring {job.outputs['predictions']}"
        script:
            "../scripts/score.py"


rule scores:
    input:
        PLAN.predictions,
    output:
        report(
            layout.SCORES,
            caption="../report/scores_table.rst",
            category="Scores",
            labels={"what": "table of all runs"},
        ),
    log:
        layout.log("scores"),
    retries: 0
    localrule: True
    conda:
        "../../envs/lorary.yaml"
    params:
        runs=PLAN.answered_runs(),
    script:
        "../scripts/scores.py"


if JOBS["test_passages"]:

    for job in JOBS["test_passages"].values():

        rule:
            name:
                job.rule
            input:
                model=job.inputs["model"],
                table=job.inputs["table"],
                templates=job.inputs["templates"],
                fewshot=job.inputs["fewshot"],
                records=job.inputs["records"],
                task_adapter=under(job),
            output:
                job.outputs["answers"],
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
                f"Asking without context: {job.label}"
            script:
                "../scripts/test_passages.py"


for job in JOBS["knowledge"].values():

    rule:
        name:
            job.rule
        input:
            job.inputs["parts"],
        output:
            report(
                update(job.outputs["table"]),
                caption="../report/knowledge_table.rst",
                category="Knowledge",
                labels={"what": f"table, {job.label}"},
            ),
            job.outputs["parts"],
        log:
            job.log,
        retries: 0
        localrule: True
        conda:
            "../../envs/lorary.yaml"
        params:
            setting=job.params,
        message:
            f"Gathering {job.outputs['table']}"
        script:
            "../scripts/knowledge.py"


if JOBS["test_heldout"]:

    for job in JOBS["test_heldout"].values():

        rule:
            name:
                job.rule
            input:
                model=job.inputs["model"],
                table=job.inputs["table"],
                templates=job.inputs["templates"],
                fewshot=job.inputs["fewshot"],
                records=job.inputs["records"],
                task_adapter=under(job),
                questions=job.inputs["questions"],
            output:
                job.outputs["answers"],
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
                f"Asking what was held out: {job.label}"
            script:
                "../scripts/test_heldout.py"


for job in JOBS["heldout"].values():

    rule:
        name:
            job.rule
        input:
            job.inputs["parts"],
        output:
            report(
                update(job.outputs["table"]),
                caption="../report/heldout_table.rst",
                category="Knowledge",
                labels={"what": f"held out, {job.label}"},
            ),
            report(
                update(job.outputs["summary"]),
                caption="../report/heldout_summary.rst",
                category="Knowledge",
                labels={"what": f"held out in short, {job.label}"},
            ),
            job.outputs["parts"],
        log:
            job.log,
        retries: 0
        localrule: True
        conda:
            "../../envs/lorary.yaml"
        params:
            setting=job.params,
        message:
            f"Gathering {job.outputs['table']}"
        script:
            "../scripts/heldout.py"
