"""Rules train_translator: a parameter translator, of pairs of passages and what is asked of them."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from lorary.base.fetch import check_source
from lorary.core.job import job
from lorary.plan import layout
from lorary.translate.learn import train_translator

setting = snakemake.params.setting

with job(snakemake.log[0], snakemake.rule):
    check_source(snakemake.input.model, **setting["model_source"])
    train_translator(
        outputs=dict(snakemake.output.items()),
        model=snakemake.input.model,
        base_weight=layout.folder_of(snakemake.input.base_weight[0]),
        pairs=setting["pairs"],
        params=setting["settings"],
        store=setting["store"],
        threads=snakemake.threads,
    )
