import fcntl
import json
import logging
import os
import shutil
import signal
import subprocess
import sys

# Where tests run side by side, one a core, two threads of each would wait for each other most of the time; and where
# they do, they should not keep the cores busy with it.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest

import tiny
from lorary.adapters import files as adapter
from lorary.base import fetch as model
from lorary.core.job import look_for_garbage_seldom
from lorary.data import prompts
from lorary.data import rows as dataset
from project import Project

look_for_garbage_seldom()

# What a shell starts in the background ignores Ctrl-C, and so would every process that a test starts.
signal.signal(signal.SIGINT, signal.default_int_handler)


LONG = (tiny.ROOT / "tests/oracle", tiny.ROOT / "tests/workflow")


@pytest.hookimpl(trylast=True)  # after what is not to run is taken out
def pytest_collection_modifyitems(items):
    """Two workers are given half of the tests each, and who has none left takes from the end of the other's: so each
    half begins with half of the long files, and ends with short tests, since none can help with a long one."""
    if "PYTEST_XDIST_WORKER" not in os.environ:
        return
    files = list(dict.fromkeys(item.path for item in items if item.path.parent in LONG))
    rank = {file: 0 if place < len(files) // 2 else 2 for place, file in enumerate(files)}
    first, short, second = ([item for item in items if rank.get(item.path, 1) == part] for part in range(3))
    middle = max(len(items) // 2 - len(first), 0)
    items[:] = [*first, *short[:middle], *second, *short[middle:]]


@pytest.fixture(autouse=True)
def logs_as_before():
    """A job, or a command, that a test runs in its own process sets up the log, which other tests read."""
    logger = logging.getLogger("lorary")
    before = logger.level, logger.propagate, logger.handlers[:]
    yield
    level, logger.propagate, logger.handlers[:] = before
    logger.setLevel(level)


@pytest.fixture(scope="session")
def once(tmp_path_factory):
    """`once(name, make)`: a folder that `make(folder)` fills, called by the first of the workers that needs it. Returns
    the folder, and what `make` returned (as JSON keeps it)."""
    parallel = "PYTEST_XDIST_WORKER" in os.environ
    root = tmp_path_factory.getbasetemp().parent if parallel else tmp_path_factory.getbasetemp()

    def once(name, make):
        with (root / f"{name}.lock").open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            folder, returned = root / name, root / f"{name}.json"
            if not returned.exists():
                if folder.exists():
                    pytest.fail(f"{folder} could not be made: see the first test that needed it")
                folder.mkdir()
                content = json.dumps(make(folder))
                returned.write_text(content)
            return folder, json.loads(returned.read_text())

    return once


@pytest.fixture(scope="session")
def tiny_llama(once):
    """A directory with a tiny random Llama and its tokenizer."""

    def make(folder):
        tiny.make_model(folder, "llama", tie_word_embeddings=True)

    return once("llama", make)[0]


@pytest.fixture(scope="session")
def tiny_qwen(once):
    """A directory with a tiny random Qwen2 (biases in attention, an own head) and its tokenizer."""

    def make(folder):
        tiny.make_model(folder, "qwen2", tie_word_embeddings=False)

    return once("qwen", make)[0]


@pytest.fixture(scope="session")
def made(once, tiny_llama, tiny_qwen):
    """Per model: a base model directory, base weight of rank 2, and the prompts of 3 passages with 3, 4 and 1 pairs."""

    def make(root):
        rows = [tiny.make_rows(1, passages=1, pairs=pairs, seed=pairs)[0] for pairs in (3, 4, 1)]
        data = tiny.write_rows(root / "total.json", rows)
        for name, source in (("llama", tiny_llama), ("qwen", tiny_qwen)):
            model.get_model(str(source), None, str(root / name))
            adapter.init_base_weight(str(root / name), 2, 32, tiny.TARGETS, 0, None, str(root / f"{name}-base"))
            prompter = prompts.load_prompter(str(root / name), tiny.PROMPTS)
            prompts.save(prompts.build(dataset.load_all([data], -1, "aug"), prompter, 3000), root / f"{name}.parquet")

    return once("made", make)[0]


@pytest.fixture
def project(tmp_path, tiny_llama):
    """A checkout with a tiny model, and 3 questions of 2 passages as data."""
    made = Project(tmp_path / "project", tiny_llama)
    made.write_rows(tiny.make_rows(3))
    return made


@pytest.fixture(scope="session")
def project_of(once):
    """`project_of(name, make)`: the project that `make(folder)` makes once, and what else `make` returns."""

    def project_of(name, make):
        def made(folder):
            project, *rest = make(folder / "project")
            return project.settings, *rest

        folder, (settings, *rest) = once(name, made)
        return Project.found(folder / "project", settings), *rest

    return project_of


@pytest.fixture
def copy_of(project_of, tmp_path):
    """The same, but a copy of that project, for a test to spoil."""

    def copy_of(name, make):
        project, *rest = project_of(name, make)
        return project.copy(tmp_path / "copy"), *rest

    return copy_of


@pytest.fixture(scope="session")
def whole_run(project_of, tiny_llama):
    """The project after a whole run (3 passages a job), which no test may change."""

    def make(folder):
        made = Project(folder, tiny_llama)
        made.settings["passages_per_job"] = 3
        made.write_rows(tiny.make_rows(3))
        made.snakemake()
        return (made,)

    return project_of("finished", make)[0]


@pytest.fixture
def finished(whole_run, tmp_path):
    """The project after a whole run (3 passages a job), for a test to spoil."""
    return whole_run.copy(tmp_path / "copy")


@pytest.fixture(scope="session")
def with_base(whole_run):
    """`with_base(folder)`: the project with nothing but its base model and base weight, which take the longest to make,
    for what is made once."""

    def with_base(folder):
        made = whole_run.copy(folder)
        for path in ("data", "results/data", "results/prompts", "results/store", "logs", "benchmarks"):
            shutil.rmtree(folder / path)
        shutil.rmtree(folder / f"results/adapters/{made.BASE}/toy")
        return made

    return with_base


@pytest.fixture
def ready(finished):
    """The same before the first training: base model, base weight, data and prompt ids are there."""
    for path in ("results/store", f"results/adapters/{finished.BASE}/toy", "logs"):
        shutil.rmtree(finished.folder / path)
    return finished


@pytest.fixture
def with_model(finished):
    """The project with nothing but its base model."""
    for name in ("results", "logs", "benchmarks"):
        shutil.rmtree(finished.folder / name)
    del finished.settings["passages_per_job"]
    return finished


@pytest.fixture
def start():
    """Starts a process in which `lorary` is found; none outlives the test."""
    started = []

    def start(code, *arguments):
        env = {**os.environ, "PYTHONPATH": str(tiny.ROOT / "workflow")}
        command = [sys.executable, "-c", code, *map(str, arguments)]
        started.append(subprocess.Popen(command, env=env, stdout=subprocess.PIPE, text=True))
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.communicate()
