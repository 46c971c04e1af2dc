"""Rule build_prompts: the prompt ids of some passages of a table."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from lorary.base.fetch import check_version
from lorary.core.job import job
from lorary.data import heldout, prompts, rows
from lorary.data.prompts import load_prompter

with job(snakemake.log[0], f"build_prompts {snakemake.wildcards.start}-{snakemake.wildcards.stop}"):
    start, stop = int(snakemake.wildcards.start), int(snakemake.wildcards.stop) + 1
    setting = snakemake.params.setting
    check_version(snakemake.input.model)
    passages = rows.read(snakemake.input.table, start, stop)
    passages = heldout.training_rows(passages, setting.get("heldout_pairs", 0))
    how = {key: setting[key] for key in ("objective", "contexts") if key in setting}
    table = prompts.build(passages, load_prompter(snakemake.input.model, setting), setting["max_length"], **how)
    prompts.save(table, snakemake.output[0])
