# The plan of the runs, made when the Snakefile is read: the passages are known, so there is no checkpoint. A process
# that a cluster starts for a job reads that job of it.
import re
import sys
import time
from functools import partial
from pathlib import Path

from snakemake.exceptions import WorkflowError

# Of this workflow, also where it is a module of another.
LIBRARY = Path(workflow.current_basedir.get_path_or_uri(secret_free=True)).parent
if not (LIBRARY / "lorary").is_dir():
    raise WorkflowError(
        f"Lorary runs from a folder, not from {LIBRARY}: clone it, and name the Snakefile of the clone."
    )
sys.path.insert(0, str(LIBRARY))

from lorary.base.support import MODEL_VERSION
from lorary.core import device, lock, stop
from lorary.core.errors import LoraryError, explain
from lorary.core.job import look_for_garbage_seldom
from lorary.core.private import allowed_rules, lock_files
from lorary.plan import layout, parts, recipes, whole
from lorary.plan.config import check_files
from lorary.plan.model import model_files
from lorary.report import summary

STARTED = time.time()

stop.lead_jobs()
look_for_garbage_seldom()

try:
    part = None
    if workflow.is_main_process:
        if told := lock.take_over(".snakemake", partial(lock_files, workflow)):
            print(told, file=sys.stderr)
        check_files(workflow.configfiles)
    else:
        part = parts.read(allowed_rules(), config)
    PLAN = whole.nothing() if part else whole.make(config)
    JOBS = {**PLAN.jobs, **part.jobs} if part else PLAN.jobs
    PROMPTS_ARE_GROUPED = (part or PLAN).prompts_are_grouped
    # A module has no `onstart`.
    if workflow.is_main_process and not workflow.modifier.is_main_snakefile() and not workflow.output_settings.dryrun:
        parts.write(PLAN, config, workflow.modifier.modify_rulename)
    if workflow.is_main_process and (told := recipes.told(config)):
        print(*told, sep="\n", file=sys.stderr)
except LoraryError as error:
    raise WorkflowError(str(error)) from None
except OSError as error:
    raise WorkflowError(explain(error) or str(error)) from None


# A GPU is counted where the job runs. Were it counted over a whole cluster, `--resources gpu=1` would allow one job there.
resource_scopes:
    gpu="local",


def threads(wildcards):
    """All cores on the processor, where one job trains at a time; on GPUs, each job's share of them. On a cluster each
    job gets what the profile calls `cores`."""
    return device.share_of(workflow.cores) if workflow.local_exec else workflow.cores


def under(job):
    """The task adapter of a job that answers with it alone, too: where its digest is not in the params, which is so of
    a translator's shared part, its time has to tell whether it is another by now."""
    files = job.inputs["task_adapter"]
    return ancient(files) if "sha256" in job.params.get("task_adapter", {}) else files


def planned(name):
    """What this plan has to make in a stage of raw text, as a pattern: what an earlier call has left, and is
    read now, is nothing to be made."""
    return "|".join(map(re.escape, JOBS[name])) or "(?!)"


def plot(name, category, what):
    """Its file with its place in Snakemake's own report."""
    return report(layout.PLOTS[name], caption=f"../report/{name}.rst", category=category, labels={"what": what})


onstart:
    stop.pass_sigterm_on()
    if not workflow.local_exec:
        try:
            parts.write(PLAN, config, str)
        except OSError as error:
            raise WorkflowError(explain(error) or str(error)) from None


onsuccess:
    print(summary.of_call(PLAN, STARTED), file=sys.stderr)


onerror:
    print(summary.of_call(PLAN, STARTED), file=sys.stderr)
    summary.draw_unfinished_page(PLAN)
