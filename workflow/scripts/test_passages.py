"""Rules test_passages: what the adapters of some passages have learnt."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from lorary.answer.knowledge import test_passages
from lorary.answer.source import Trained
from lorary.base.fetch import check_source
from lorary.core.job import job
from lorary.data import heldout, rows
from lorary.data.prompts import load_prompter

setting = snakemake.params.setting

with job(snakemake.log[0], setting["label"]):
    check_source(snakemake.input.model, **setting["model_source"])
    test_passages(
        output=snakemake.output[0],
        finished=setting["finished"],
        kind=setting["type"],
        rows=heldout.training_rows(
            rows.read(snakemake.input.table, *setting["rows"]), setting["prompts"].get("heldout_pairs", 0)
        ),
        others=setting["others"],
        prompter=load_prompter(snakemake.input.model, setting["prompts"]),
        source=Trained.of_records(snakemake.input.records, setting.get("task_adapter")),
        model=snakemake.input.model,
        precision=setting["precision"],
        threads=snakemake.threads,
    )
