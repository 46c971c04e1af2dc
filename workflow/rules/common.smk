# The plan of the runs, made when the Snakefile is read: the passages are known, so there is no checkpoint.
import os
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(workflow.basedir) / "workflow"))

from lorary.plan import encode as plan
from lorary.plan import answer as plan_predict
from lorary.plan import resources as request
from lorary.core import stop
from lorary.plan.config import resolve
from lorary.core.device import count_gpus
from lorary.core.errors import LoraryError, explain
from lorary.report.summary import summarize, summarize_scores
from snakemake.exceptions import WorkflowError

STARTED = time.time()

stop.lead_jobs()

try:
    if workflow.is_main_process and stop.remove_stale_lock(".snakemake"):
        print("The last call here was killed: its lock is removed, and this call goes on from there.", file=sys.stderr)
    PLAN = plan.make(resolve(config))
    PREDICT = plan_predict.make(PLAN)
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
# Of the runs that have inference_methods.
SCORES = [*(["results/scores.tsv"] if PREDICT.predictions else []), *(table.path for table in PREDICT.knowledge)]
REPORT = ["results/report.html"] if SCORES else []


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


def answering_minutes(model, part, attempt):
    """As if each question were a passage to train: generous, and the more so the more tokens an answer may have."""
    long = 1 + part.params.get("max_new_tokens", 0) // 100
    return request.minutes(model, part.count, long, part.params["precision"], attempt)


def prediction_settings(prediction):
    run = {**prediction.kind.asked, "data_type": Path(prediction.folder).name}
    return {**run, "inference_method": prediction.method}


def report_runs():
    """Where the results of each run lie, for the summary page."""
    return [
        {
            "index": index.path,
            "records": [batch.record for batch in index.batches],
            "settings": index.run,
            "knowledge": knowledge_of(index),
            "predictions": [
                prediction.folder
                for prediction in PREDICT.predictions
                if Path(prediction.kind.folder).parent == Path(index.path).parent
            ],
        }
        for index in PLAN.indexes
    ]


def plots_of_answers():
    """Of runs that have inference_methods."""
    if not SCORES:
        return {}
    return {
        "scores": report(
            "results/report/scores.svg",
            caption="../report/scores.rst",
            category="Scores",
            labels={"what": "F1 by method"},
        ),
        "knowledge": report(
            "results/report/knowledge.svg",
            caption="../report/knowledge.rst",
            category="Knowledge",
            labels={"what": "before and after"},
        ),
    }


def draw_unfinished_report():
    """The summary page of what is there, with the passages that have failed: its own rule has not run."""
    try:
        from lorary.report.page import RunFiles, build

        runs = [RunFiles(**run) for run in report_runs()]
        build(runs, "results/scores.tsv", "results/failed.tsv", "results/report", REPORT[0])
        os.utime(REPORT[0], (0, 0))  # so old that its rule draws it anew
    except Exception as error:  # the failure itself has been told
        print(f"{REPORT[0]} could not be drawn: {error}", file=sys.stderr)


def knowledge_of(index):
    path = f"{plan_predict.predictions_folder(str(Path(index.path).parent))}/knowledge.tsv"
    return path if path in SCORES else None


def training_outcome(batch):
    """What a training job says at its end, also when it has failed: for the summary."""
    return f"logs/train_adapters/{batch.name}.json"


def summary():
    outcomes = {training_outcome(batch): batch.adapters for batch in PLAN.batches}
    folders = "\n".join(f"  {Path(index.path).parent}" for index in PLAN.indexes)
    told = summarize(outcomes, STARTED, time.time() - STARTED, "results/failed.tsv")
    answered = summarize_scores("results/scores.tsv", STARTED) if PREDICT.predictions else ""
    return f"\n{told}\n{folders}\n{answered}"


onstart:
    stop.pass_sigterm_on()


onsuccess:
    print(summary(), file=sys.stderr)


onerror:
    print(summary(), file=sys.stderr)
    if REPORT and Path("results/failed.tsv").exists():
        draw_unfinished_report()
