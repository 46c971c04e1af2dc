# What a person looks at: plots, and the summary page. `snakemake --report report.html` puts the same into Snakemake's.


rule report:
    input:
        PLAN.indexes,
        PLAN.scores,
        PLAN.predictions,
        PLAN.records,
    output:
        # Of runs that have inference_methods.
        scores=plot("scores", "Scores", "F1 by method") if PLAN.scores else [],
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
    message:
        f"Drawing {layout.REPORT}"
    script:
        "../scripts/report.py"
