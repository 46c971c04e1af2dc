"""Rules test_heldout: what the adapters of some passages know that they were not trained on."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from lorary.answer.heldout import test_heldout
from lorary.answer.source import Trained
from lorary.base.fetch import check_source
from lorary.core.job import job
from lorary.data import rows
from lorary.data.prompts import load_prompter

setting = snakemake.params.setting

with job(snakemake.log[0], setting["label"]):
    check_source(snakemake.input.model, **setting["model_source"])
    test_heldout(
        output=snakemake.output[0],
        finished=setting["finished"],
        kind=setting["type"],
        rows=rows.read(snakemake.input.table, *setting["rows"]),
        others=setting["others"],
        heldout_pairs=setting["heldout_pairs"],
        written=setting["written"],
        general=setting["general"],
        prompter=load_prompter(snakemake.input.model, setting["prompts"]),
        source=Trained.of_records(snakemake.input.records, setting.get("task_adapter")),
        model=snakemake.input.model,
        precision=setting["precision"],
        max_new_tokens=setting["max_new_tokens"],
        threads=snakemake.threads,
    )
