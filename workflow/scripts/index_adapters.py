"""Rules index_adapters: one table over the adapters of a run, and what it takes to make them again."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from lorary.core.job import job
from lorary.plan import layout
from lorary.train.index import index_adapters
from lorary.train.provenance import describe_run

with job(snakemake.log[0], snakemake.rule):
    setting = snakemake.params.setting
    about = describe_run(
        runs=setting["runs"],
        model=snakemake.input.model,
        base_weight=layout.folder_of(snakemake.input.base_weight[0]),
        data=setting["data"],
        tables={kind["type"]: kind["table"] for kind in setting["types"]},
        task_adapter=setting.get("task_adapter"),
    )
    index_adapters(
        types=setting["types"],
        parts=setting["parts"],
        about=about,
        folder=setting["folder"],
        table=snakemake.output.table,
        run=snakemake.output.run,
    )
