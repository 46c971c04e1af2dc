# What a person looks at: plots, and the summary page. `snakemake --report report.html` puts the same into Snakemake's.


rule report:
    input:
        PLAN.indexes,
        PLAN.scores,
        PLAN.predictions,
        PLAN.records,
        PLAN.augmented,
    output:
        # Of runs that have questions, and inference_methods.
        scores=plot("scores", "Scores", "F1 by method") if PLAN.predictions else [],
        knowledge=plot("knowledge", "Knowledge", "before and after") if PLAN.scores else [],
        page=report(
            layout.REPORT,
            caption="../report/page.rst",
            category="What the adapters taught",
            labels={"what": "summary page"},
        ),
        losses=plot("losses", "Training", "loss curves"),
        speed=plot("speed", "Training", "seconds and tokens"),
    log:
        layout.log("report"),
    retries: 0
    localrule: True
    conda:
        "../../envs/lorary.yaml"
    params:
        runs=PLAN.shown_runs(),
        augmented=PLAN.shown_augmentation(),
    message:
        f"Drawing {layout.REPORT}"
    script:
        "../scripts/report.py"
