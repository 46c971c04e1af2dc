"""Rule export: says where what was exported is, or that nothing was asked for."""

import logging
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from lorary.core.errors import LoraryError
from lorary.core.job import job

with job(snakemake.log[0], snakemake.rule):
    if not snakemake.input:
        raise LoraryError(
            "Say what to export: --config export=<type>/data_<did> for a question, or"
            " 'export=[<type>/data_<did>/passage_<pid>, ...]' for a list of passages."
        )
    for folder in snakemake.input:
        logging.getLogger("lorary").info("%s", folder)
