"""Rule init_base_weight: the one initial adapter that every training starts from."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from lorary.adapters.files import init_base_weight
from lorary.base.fetch import check_source
from lorary.core.job import job
from lorary.plan import layout

with job(snakemake.log[0], snakemake.rule):
    setting = snakemake.params.setting
    check_source(snakemake.input.model, **setting["model_source"])
    init_base_weight(
        model=snakemake.input.model,
        rank=setting["lora_rank"],
        alpha=setting["lora_alpha"],
        target_modules=setting["lora_target_modules"],
        seed=setting["seed"],
        given=layout.folder_of(snakemake.input.given[0]) if snakemake.input.given else None,
        destination=layout.folder_of(snakemake.output.mark),
        mark=Path(snakemake.output.mark).name,
    )
