# What a person looks at: plots, and the summary page. `snakemake --report report.html` puts the same into Snakemake's.


for job in JOBS["report"].values():

    rule:
        name:
            job.rule
        input:
            job.inputs["indexes"],
            job.inputs["scores"],
            job.inputs["predictions"],
            job.inputs["records"],
            job.inputs["augmented"],
        output:
            # Of runs that have questions, and inference_methods.
            scores=plot("scores", "Scores", "F1 by method") if job.inputs["predictions"] else [],
            knowledge=plot("knowledge", "Knowledge", "before and after") if job.inputs["scores"] else [],
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
            runs=job.params["runs"],
            augmented=job.params["augmented"],
        message:
            f"Drawing {layout.REPORT}"
        script:
            "../scripts/report.py"
