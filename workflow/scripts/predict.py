"""Rules predict: questions answered with one method."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from lorary.answer import route
from lorary.answer.predict import predict
from lorary.answer.source import Trained
from lorary.base.fetch import check_source
from lorary.core.job import job
from lorary.data import rows
from lorary.data.prompts import load_prompter

setting = snakemake.params.setting

with job(snakemake.log[0], setting["label"]):
    check_source(snakemake.input.model, **setting["model_source"])
    routes = snakemake.input.get("routes")
    top = setting.get("routed_top")
    predict(
        output=snakemake.output[0],
        finished=setting["finished"],
        rows=rows.read(snakemake.input.table, *setting["rows"]),
        method=setting["method"],
        prompter=load_prompter(snakemake.input.model, setting["prompts"]),
        source=Trained.of_records(snakemake.input.get("records", []), setting.get("task_adapter")),
        model=snakemake.input.model,
        precision=setting["precision"],
        max_new_tokens=setting["max_new_tokens"],
        threads=snakemake.threads,
        routed={did: pids[:top] for did, pids in route.read(routes).items()} if routes else None,
    )
