"""The Slurm profile on a real Slurm: one case in `make test-slurm`, every one in `make test-all`."""

import os
import signal
import subprocess

import pytest

import fake_server
import speaker
import tiny
from cluster import Cluster, missing, wait_until
from fake_server import FakeServer
from project import Project

PROFILE = ["--workflow-profile", "slurm", "--slurm-init-seconds-before-status-checks", "5", "--latency-wait", "5"]


@pytest.fixture(scope="session")
def cluster(tmp_path_factory):
    if lacking := missing():
        pytest.exit(
            f"The Slurm tests need {', '.join(lacking)} on this machine: Debian and Ubuntu have them in the packages"
            " slurmctld, slurmd, slurm-client and munge. No Slurm that runs already is used or changed.",
            returncode=1,
        )
    cluster = Cluster(tmp_path_factory.mktemp("slurm"))
    yield cluster
    cluster.stop()


@pytest.fixture
def slow(ready):
    """Two batches of three passages, that take seconds each: time to strike in the middle, on a busy machine too."""
    ready.settings |= {"num_train_epochs": 200}
    return ready


@pytest.fixture
def begin(cluster):
    """Starts `snakemake --workflow-profile slurm` in a project; neither it nor a job of it outlives the test."""
    runs = []

    def begin(project: Project, *arguments: str) -> Run:
        runs.append(Run(project, cluster, *arguments))
        return runs[-1]

    yield begin
    for run in runs:
        run.process.kill()
        run.process.communicate()
    cluster.cancel_all()


class Run:
    """A run under way on the cluster."""

    def __init__(self, project: Project, cluster: Cluster, *arguments: str):
        self.project, self.cluster = project, cluster
        self.process = project.start(*PROFILE, *arguments, cores=1, env=cluster.env)

    def wait_until(self, condition, seconds=120):
        wait_until(condition, seconds, still=lambda: self.process.poll() is None)

    def log(self, batch: str) -> str:
        return "".join(path.read_text() for path in self.project.folder.glob(f"logs/train_adapters/*/{batch}.log"))

    def in_the_middle_of_the_first(self) -> str:
        """The number of the Slurm job that trains passages 0 to 2, once it has trained one of them."""
        self.wait_until(lambda: "passage 1 of 3" in self.log("0-2"))
        (number,) = [n for n, job in self.cluster.running().items() if int(job["Comment"].rpartition("_")[2]) == 0]
        return number

    def end(self, seconds: int = 300) -> tuple[int, str]:
        """Its exit status and output."""
        try:
            output, _ = self.process.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            self.process.kill()
            output, _ = self.process.communicate()
        return self.process.returncode, output


@pytest.mark.all
def test_the_demo_on_two_gpus_a_cancelled_job_and_the_tree_of_a_local_run(cluster, begin, tmp_path):
    local = Project(tmp_path / "local", None)
    local.settings |= {"data_dir": "data", "passages_per_job": 3, "inference_methods": ["prag"]}
    tiny.write_demo_rows(local.folder)
    local.snakemake("models")
    away = local.copy(tmp_path / "away")

    run = begin(away, "--retries", "0")
    run.wait_until(lambda: {job.get("GRES") for job in cluster.running().values()} == {"gpu:1(IDX:0)", "gpu:1(IDX:1)"})
    cluster.call("scancel", run.in_the_middle_of_the_first())
    code, output = run.end()
    assert code == 1, output
    assert "Stopped after" in run.log("0-2")
    assert len(away.adapters()) == 9, output
    kept = away.trained() - 9
    assert kept in (1, 2), output

    code, output = begin(away).end()
    assert code == 0, output
    assert f"{3 - kept} trained and {kept} linked" in output
    assert away.trained() == 12

    # One core a job, as on the cluster.
    local.snakemake(gpus=2, env={**os.environ, "CUDA_VISIBLE_DEVICES": "0,1"})
    assert away.adapters() == local.adapters()
    for name in ("knowledge.tsv", "prag/total/predict.json"):
        (there,), (here,) = (p.folder.glob(f"results/predictions/*/*/*/*/*/{name}") for p in (away, local))
        assert there.read_bytes() == here.read_bytes()


@pytest.mark.all
def test_a_node_that_dies(cluster, begin, slow):
    run = begin(slow)
    number = run.in_the_middle_of_the_first()
    cluster.kill_node()
    run.wait_until(lambda: cluster.jobs()[number]["JobState"] == "PENDING")
    cluster.start_node()
    cluster.start_requeued_jobs()
    code, output = run.end()
    assert code == 0, output
    assert len(slow.adapters()) == 6
    assert "1 linked from the store" in run.log("0-2") or "2 linked from the store" in run.log("0-2")


@pytest.mark.all
def test_a_job_that_is_preempted_and_requeued(cluster, begin, slow):
    run = begin(slow)
    number = run.in_the_middle_of_the_first()
    cluster.call("scontrol", "requeue", number)
    run.wait_until(lambda: cluster.jobs()[number]["JobState"] == "PENDING")
    cluster.start_requeued_jobs()
    code, output = run.end()
    assert code == 0, output
    assert cluster.jobs()[number]["Restarts"] == "1"
    assert len(slow.adapters()) == 6
    assert "0 linked from the store" not in run.log("0-2")


def test_a_job_over_its_time_limit_is_tried_again_with_more_and_trains_the_rest(cluster, begin, slow, tmp_path):
    """And in the end the adapters are those of a local run, though the config was edited meanwhile."""
    local = slow.copy(tmp_path / "local")
    run = begin(slow)
    number = run.in_the_middle_of_the_first()
    slow.edit_config(learning_rate=0.5, seed=7, passages_per_job=1)
    before = cluster.jobs()[number]["TimeLimit"]
    cluster.call("scontrol", "update", f"JobId={number}", "EndTime=now")
    code, output = run.end()
    assert code == 0, output
    assert cluster.jobs()[number]["JobState"] == "TIMEOUT"
    again = max(cluster.jobs().values(), key=lambda job: int(job["JobId"]))
    assert again["TimeLimit"] > before
    assert "0 linked from the store" not in run.log("0-2")
    local.snakemake()
    assert slow.adapters() == local.adapters()
    assert len(slow.adapters()) == 6


@pytest.mark.all
def test_ctrl_c_ends_the_jobs_and_a_passage_that_fails_does_not_end_the_others(cluster, begin, slow):
    rows = tiny.make_rows(3)
    tiny.add_to_passage(rows[2], 0, " §")
    slow.write_rows(rows)
    refusal = "{% if '§' in messages[0]['content'] %}{{ raise_exception('§ is not allowed') }}{% endif %}"
    (slow.folder / "tiny-model/chat_template.jinja").write_text(refusal + tiny.CHATML)

    run = begin(slow)
    run.in_the_middle_of_the_first()
    os.killpg(run.process.pid, signal.SIGINT)
    code, output = run.end()
    assert code != 0, output
    wait_until(lambda: not cluster.call("squeue", "--noheader"), 60)
    kept = slow.trained()
    assert 1 <= kept < 5, output
    assert "Stopped after" in run.log("0-2")

    code, output = begin(slow, "--retries", "0").end()
    assert code == 1, output
    assert f"{5 - kept} trained" in output
    assert output.count("FAILED results") == 1, output
    assert "data_2/passage_0: its prompt ids could not be made: TemplateError: § is not allowed" in output
    assert len(slow.adapters()) == 3
    assert slow.trained() == 5


@pytest.mark.all
def test_augmentation_takes_a_gpu_with_a_model_here_and_none_with_a_server(cluster, begin, tmp_path, tiny_llama):
    """And what it makes is what a local run makes."""
    away = Project(tmp_path / "away", tiny_llama)
    for key in ("data_dir", "dataset", "augment_model"):
        del away.settings[key]
    tiny.write_documents(away.folder / "docs", 4)
    away.settings |= {"source": "documents", "documents": "docs", "pairs": 2, "passages_per_augment_job": 2}
    before = set(cluster.jobs())
    with FakeServer(fake_server.steady, speaker.speak) as server:
        at_server = {"augment_with": "server", "augment_base_url": server.url, "augment_server_model": "fake"}
        away.settings["runs"] = [{}, {**at_server, "augment_model": "aug", "adapter_dir": "results/by_server"}]
        local = away.copy(tmp_path / "local")
        code, output = begin(away, "augmented").end()
        assert code == 0, output
        local.snakemake("augmented")

    jobs = [job for number, job in cluster.jobs().items() if number not in before]
    gpus = ["gpu:1" in job.get("TresPerJob", "") for job in jobs if "rule_augment" in job["Comment"]]
    assert sorted(gpus) == [False, False, True, True], jobs
    made = [
        {file.relative_to(p.folder): file.read_bytes() for file in (p.folder / "results/augmented").rglob("*.json")}
        for p in (away, local)
    ]
    assert len(made[0]) == 2
    assert made[0] == made[1]
