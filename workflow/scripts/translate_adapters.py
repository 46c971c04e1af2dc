"""Rules translate_adapters: the adapters of one batch of passages, which a translator makes."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from lorary.base.fetch import check_source
from lorary.core.job import job
from lorary.plan import layout
from lorary.translate.adapters import translate_adapters

setting = snakemake.params.setting

with job(snakemake.log.text, setting["label"]):
    check_source(snakemake.input.model, **setting["model_source"])
    translate_adapters(
        outputs=setting.get("adapters") or snakemake.output.adapters,
        record=snakemake.output.record,
        outcome=snakemake.log.outcome,
        model=snakemake.input.model,
        base_weight=layout.folder_of(snakemake.input.base_weight[0]),
        embeddings=snakemake.input.embeddings,
        translator=snakemake.input.translator,
        control=setting["control"],
        precision=setting["adapter_precision"],
        store=setting["store"],
        threads=snakemake.threads,
    )
