"""Rule export: says where the merged adapters are, or that none were asked for."""

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
