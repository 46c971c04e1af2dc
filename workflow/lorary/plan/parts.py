"""The jobs of a plan, each to be read without the others.

On a cluster a job is a Snakemake of its own, which reads the Snakefile again and would make the whole plan for the sake
of one job. So a call writes the jobs of its plan into a file, and leaves the file's name in the environment, which
Slurm hands on to them. They do what they were planned for, whatever has become of the config since.
"""

import contextlib
import hashlib
import json
import os
import re
import sqlite3
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..core.errors import LoraryError
from ..core.files import written_whole
from .config import resolve
from .job import Job
from .resources import AugmentResources, Resources
from .whole import Plan

PLANNED = "LORARY_PLAN"  # environment variable: the files of the call that started this process
FOLDER = Path(".snakemake/lorary/plans")
KEPT = 10  # files of so many calls stay: the jobs of one that was killed may still be queued
NAME = re.compile(r"[0-9a-f]{16}(\.[0-9a-f]{16}){2}")  # of a file: digests of sources, settings and jobs
SCHEMA = "CREATE TABLE jobs (rule TEXT, stage TEXT, name TEXT, job BLOB); CREATE INDEX by_rule ON jobs (rule);"
FACTS = ""  # in the place of a rule: what is no job
TUPLE = "()"  # JSON's lists are lists; Snakemake takes a tuple in its place for changed params
RESOURCES = {kind.__name__: kind for kind in (Resources, AugmentResources)}
WORKFLOW = Path(__file__).parents[2]
SOURCES = ("rules/*.smk", "scripts/*.py", "lorary/plan/*.py")  # what makes jobs, and what takes them

_written: list[str] = []  # by this process; a workflow may have Lorary as a module more than once


@dataclass(frozen=True)
class Part:
    """What a process needs of a plan to run jobs of some rules."""

    jobs: dict[str, dict[str, Job]]  # as `Plan.jobs`, of these rules alone
    prompts_are_grouped: bool


def write(plan: Plan, config: dict[str, Any], known_as: Callable[[str], str]) -> None:
    """For the processes that this one will start. `known_as`: from a rule's name to what Snakemake calls it, which is
    another where Lorary is a module. Raises OSError."""
    rows = [(FACTS, "", "", _packed({"prompts_are_grouped": plan.prompts_are_grouped}))]
    for stage, jobs in plan.jobs.items():
        rows += [(known_as(job.rule), stage, name, _packed(_fields(job))) for name, job in jobs.items()]
    content = hashlib.sha256()
    for *names, job in rows:
        content.update("\n".join(names).encode() + job)
    path = FOLDER / f"{_sources()}.{_settings(config)}.{content.hexdigest()[:16]}"
    if path.is_file():
        with contextlib.suppress(PermissionError):  # another user's
            os.utime(path)
    else:
        with contextlib.closing(sqlite3.connect(":memory:")) as database:  # not where there may be no locks
            database.executescript(SCHEMA)
            database.executemany("INSERT INTO jobs VALUES (?, ?, ?, ?)", rows)
            with written_whole(str(path), new_folder=True) as temporary:
                temporary.write_bytes(database.serialize())
    _written.append(path.name)
    os.environ[PLANNED] = " ".join(_written)
    _remove_old()


def read(rules: list[str], config: dict[str, Any]) -> Part | None:
    """The jobs of these rules (as Snakemake calls them), as they were planned by the call that started this process.
    None where they cannot be had, and the whole plan has to be made.

    Raises LoraryError where that would be another plan, since the call had another config, or another Lorary.
    """
    planned = [name for name in os.environ.get(PLANNED, "").split() if NAME.fullmatch(name)]
    if not planned or not rules:  # Snakemake does not always say which, where there are checkpoints
        return None
    sources = _sources()
    for name in planned:
        with contextlib.suppress(sqlite3.Error, ValueError, LookupError, TypeError, zlib.error):
            if name.startswith(sources) and (part := _read(name, rules)):
                return part
    now = f"{sources}.{_settings(config)}."
    if not any(name.startswith(now) for name in planned):
        raise LoraryError(
            "The config (config.yaml, --configfile), or Lorary itself, has changed since this call of Snakemake began,"
            " so this job would not be the one that was planned. Call Snakemake again: it goes on with what is new."
        )
    return None


def _read(name: str, rules: list[str]) -> Part | None:
    uri = f"file:{FOLDER / name}?mode=ro&immutable=1"  # it is never written again: no locks
    with contextlib.closing(sqlite3.connect(uri, uri=True)) as database:
        found = {rule: database.execute("SELECT * FROM jobs WHERE rule = ?", [rule]) for rule in (FACTS, *rules)}
        rows = {rule: some.fetchall() for rule, some in found.items()}
    if not all(rows.values()):
        return None
    jobs: dict[str, dict[str, Job]] = {}
    for _, stage, of_it, packed in (row for rule in rules for row in rows[rule]):
        jobs.setdefault(stage, {})[of_it] = _job(_unpacked(packed))
    return Part(jobs, **_unpacked(rows[FACTS][0][-1]))


def _remove_old() -> None:
    with contextlib.suppress(FileNotFoundError, PermissionError):  # another call removes them too; or another user's
        for path in sorted(FOLDER.glob("[0-9a-f]*"), key=os.path.getmtime)[:-KEPT]:
            path.unlink()


def _sources() -> str:
    digest = hashlib.sha256()
    for path in sorted(path for pattern in SOURCES for path in WORKFLOW.glob(pattern)):
        digest.update(path.name.encode() + path.read_bytes())
    return digest.hexdigest()[:16]


def _settings(config: dict[str, Any]) -> str:
    """Of the runs, not of the config: a job may be given less of it, with --replace-workflow-config."""
    return hashlib.sha256(repr(resolve(config)).encode()).hexdigest()[:16]


def _fields(job: Job) -> dict[str, Any]:
    resources = job.resources and [type(job.resources).__name__, vars(job.resources)]
    return {**vars(job), "resources": resources}


def _job(fields: dict[str, Any]) -> Job:
    if fields["resources"]:
        kind, values = fields["resources"]
        fields["resources"] = RESOURCES[kind](**values)
    return Job(**fields)


def _packed(value: Any) -> bytes:
    return zlib.compress(json.dumps(_marked(value)).encode(), 1)


def _unpacked(packed: bytes) -> Any:
    return json.loads(zlib.decompress(packed), object_hook=_unmarked)


def _marked(value: Any) -> Any:
    """With its tuples as what JSON can say."""
    if isinstance(value, tuple):
        return {TUPLE: [_marked(one) for one in value]}
    if isinstance(value, list):
        return [_marked(one) for one in value]
    return {key: _marked(one) for key, one in value.items()} if isinstance(value, dict) else value


def _unmarked(value: dict[str, Any]) -> Any:
    return tuple(value[TUPLE]) if value.keys() == {TUPLE} else value
