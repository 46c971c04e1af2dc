# What a person looks at: plots, and the summary page. `snakemake --report report.html` puts the same into Snakemake's.


rule report:
    input:
        [file for index in PLAN.indexes for file in (index.path, index.run)],
        SCORES,
        [f"{prediction.folder}/predict.json" for prediction in PREDICT.predictions],
        [batch.record for batch in PLAN.batches],
    output:
        **plots_of_answers(),
        page=report(
            "results/report.html",
            caption="../report/page.rst",
            category="What the adapters taught",
            labels={"what": "summary page"},
        ),
        losses=report(
            "results/report/losses.svg",
            caption="../report/losses.rst",
            category="Training",
            labels={"what": "loss curves"},
        ),
        speed=report(
            "results/report/speed.svg",
            caption="../report/speed.rst",
            category="Training",
            labels={"what": "seconds and tokens"},
        ),
    log:
        "logs/report.log",
    retries: 0
    localrule: True
    conda:
        "../../envs/lorary.yaml"
    params:
        runs=report_runs(),
    message:
        "Drawing results/report.html"
    script:
        "../scripts/report.py"
