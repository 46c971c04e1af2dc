# The plan of the runs, made when the Snakefile is read: the passages are known, so there is no checkpoint.
import os
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(workflow.basedir) / "workflow"))

from lorary import plan, request, stop
from lorary.config import resolve
from lorary.device import count_gpus
from lorary.errors import LoraryError, explain
from lorary.summary import summarize
from snakemake.exceptions import WorkflowError

STARTED = time.time()

stop.lead_jobs()

try:
    if workflow.is_main_process and stop.remove_stale_lock(".snakemake"):
        print("The last call here was killed: its lock is removed, and this call goes on from there.", file=sys.stderr)
    PLAN = plan.make(resolve(config))
except LoraryError as error:
    raise WorkflowError(str(error)) from None
except OSError as error:
    raise WorkflowError(explain(error) or str(error)) from None


# A GPU is counted where the job runs. Were it counted over a whole cluster, `--resources gpu=1` would allow one job there.
resource_scopes:
    gpu="local",


PROMPTS = sorted({batch.prompts for batch in PLAN.batches})
# So many files of prompt ids are made where Snakemake runs, on a cluster too: some minutes. More are sent, grouped.
LOCAL_PROMPTS = 200
STORES = sorted({batch.store for batch in PLAN.batches})
ADAPTERS = [adapter for batch in PLAN.batches for adapter in batch.adapters]


# Of wildcards alone: Snakemake notices no change of params that are functions of the output.
def model_settings(wildcards):
    return PLAN.models[f"resources/models/{wildcards.model}"]


def table_settings(wildcards):
    return PLAN.tables[f"results/data/{wildcards.table}.parquet"]


def model_sources(wildcards):
    """The files of a model that lies here: when they change, the model does."""
    folder = Path(os.path.expanduser(model_settings(wildcards)["model_path"]))
    return sorted(str(path) for path in folder.glob("*.*")) if folder.is_dir() else []


def prompt_settings(wildcards):
    return PLAN.prompts[f"results/prompts/{wildcards.prompts}"]


def training_threads(wildcards):
    """All cores on the processor, where one job trains at a time; on GPUs, each job's share of them. On a cluster each
    job gets what the profile calls `cores`."""
    return max(1, workflow.cores // max(1, count_gpus())) if workflow.local_exec else workflow.cores


def training_outcome(batch):
    """What a training job says at its end, also when it has failed: for the summary."""
    return f"logs/train_adapters/{batch.name}.json"


def summary():
    outcomes = {training_outcome(batch): batch.adapters for batch in PLAN.batches}
    folders = "\n".join(f"  {Path(index.path).parent}" for index in PLAN.indexes)
    return f"\n{summarize(outcomes, STARTED, time.time() - STARTED, 'results/failed.tsv')}\n{folders}\n"


onstart:
    stop.pass_sigterm_on()


onsuccess:
    print(summary(), file=sys.stderr)


onerror:
    print(summary(), file=sys.stderr)
