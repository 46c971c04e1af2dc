"""A real Slurm on this machine, of one node that says it has two GPUs: munged, slurmctld and slurmd with a
configuration of their own in one folder. Nothing of a Slurm that the machine may have is read or changed."""

import contextlib
import getpass
import os
import secrets
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import psutil

PROGRAMS = ["munged", "slurmctld", "slurmd", "sbatch", "srun", "squeue", "scontrol", "scancel"]
NODE = "lorary"
SLURM_CONF = """
ClusterName={node}
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller_port}
SlurmdPort={node_port}
AuthInfo=socket={folder}/munge.socket
SlurmUser={user}
SlurmdUser={user}
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
PlugStackConfig={folder}/plugstack.conf
MpiDefault=none
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
SchedulerParameters=sched_interval=2,bf_interval=2
MinJobAge=600
JobRequeue=1
# A node whose slurmd is gone is down after so many seconds, and up again when it is back.
SlurmdTimeout=6
ReturnToService=2
# A job's limit is looked at with its processes' end: seconds from SIGTERM to SIGKILL.
KillWait=30
GresTypes=gpu
# More than the machine may have: what is asked for is tested, not how much of it fits here.
SlurmdParameters=config_overrides
NodeName={node} NodeHostname={host} NodeAddr=127.0.0.1 CPUs=8 RealMemory=64000 Gres=gpu:2
PartitionName=gpu Nodes={node} Default=YES MaxTime=INFINITE State=UP
"""
GRES_CONF = """
NodeName={node} Name=gpu File=/dev/null
NodeName={node} Name=gpu File=/dev/zero
"""


def missing() -> list[str]:
    """What a machine lacks to run this, in words."""
    path = f"{os.environ['PATH']}:/usr/sbin:/sbin"
    return [program for program in PROGRAMS if not shutil.which(program, path=path)]


class Cluster:
    """Started when made; `stop` ends every process of it. `env` lets Slurm's commands and Snakemake find it."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.env = {
            **os.environ,
            "PATH": f"{folder}/bin:{os.environ['PATH']}:/usr/sbin:/sbin",
            "SLURM_CONF": str(folder / "slurm.conf"),
        }
        for name in ("state", "spool", "bin"):
            (folder / name).mkdir()
        # Snakemake's job step takes SLURM_CONF out of srun's environment.
        srun = shutil.which("srun")
        (folder / "bin/srun").write_text(f'#!/bin/sh\nSLURM_CONF={folder}/slurm.conf exec {srun} "$@"\n')
        (folder / "bin/srun").chmod(0o755)
        (folder / "plugstack.conf").touch()
        (folder / "munge.key").write_bytes(secrets.token_bytes(128))
        (folder / "munge.key").chmod(0o400)
        values = {
            "folder": folder,
            "host": socket.gethostname().split(".")[0],
            "user": getpass.getuser(),
            "node": NODE,
            "controller_port": _free_port(),
            "node_port": _free_port(),
        }
        (folder / "slurm.conf").write_text(SLURM_CONF.format(**values))
        (folder / "gres.conf").write_text(GRES_CONF.format(**values))
        self.daemons: dict[str, subprocess.Popen] = {}
        try:
            self._start(
                "munged", "--foreground", "--force", f"--socket={folder}/munge.socket",
                f"--key-file={folder}/munge.key", f"--pid-file={folder}/munge.pid", f"--log-file={folder}/munge.log",
                f"--seed-file={folder}/munge.seed",
            )  # fmt: skip
            wait_until((folder / "munge.socket").exists, 20)
            self._start("slurmctld", "-D")
            self.start_node()
        except BaseException:
            self.stop()
            raise

    def start_node(self) -> None:
        self._start("slurmd", "-D", "-N", NODE)
        wait_until(lambda: self.call("sinfo", "--noheader", "--format=%T") in ("idle", "mixed", "allocated"), 60)

    def kill_node(self) -> None:
        """What a power cut does to a node: slurmd, the jobs on it and their supervisors die at once."""
        self._kill_processes_of_the_node()
        self.daemons.pop("slurmd").wait()

    def call(self, *command: str) -> str:
        process = subprocess.run(command, env=self.env, capture_output=True, text=True, timeout=60)
        return process.stdout.strip()

    def jobs(self) -> dict[str, dict[str, str]]:
        """What `scontrol` says of each job, by its number."""
        lines = self.call("scontrol", "--details", "--oneliner", "show", "job").splitlines()
        fields = [dict(word.split("=", 1) for word in line.split() if "=" in word) for line in lines]
        return {job["JobId"]: job for job in fields if "JobId" in job}

    def running(self) -> dict[str, dict[str, str]]:
        return {number: job for number, job in self.jobs().items() if job["JobState"] == "RUNNING"}

    def start_requeued_jobs(self) -> None:
        """Slurm lets them wait for two minutes."""
        for number in self.jobs():
            self.call("scontrol", "update", f"JobId={number}", "StartTime=now")

    def cancel_all(self) -> None:
        self.call("scancel", "--user", getpass.getuser())
        with contextlib.suppress(TimeoutError):
            wait_until(lambda: not self.call("squeue", "--noheader"), 60)

    def stop(self) -> None:
        if "slurmctld" in self.daemons:
            self.cancel_all()
        self._kill_processes_of_the_node()
        for process in reversed(self.daemons.values()):
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self.daemons.clear()

    def _start(self, *command: str) -> None:
        log = (self.folder / f"{command[0]}.out").open("a")
        self.daemons[command[0]] = subprocess.Popen(
            command, env=self.env, stdin=subprocess.DEVNULL, stdout=log, stderr=log
        )

    def _kill_processes_of_the_node(self) -> None:
        """Jobs are found by what is in their environment, and slurmstepd, which hides its own, as their parent."""
        daemons, jobs = [psutil.Process(self.daemons["slurmd"].pid)] if "slurmd" in self.daemons else [], []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                if "SLURM_JOB_ID" in process.environ() and str(self.folder) in process.environ()["PATH"]:
                    jobs.append(process)
                    daemons += [parent for parent in process.parents() if parent.name() == "slurmstepd"]
        for process in daemons + jobs:  # in this order, or a supervisor could still tell how its job ended
            with contextlib.suppress(psutil.Error):
                process.kill()


def wait_until(condition: Callable[[], bool], seconds: float, still: Callable[[], bool] = lambda: True) -> None:
    """Raises TimeoutError; and AssertionError as soon as `still` does not hold."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"not within {seconds} s: {condition}")
        assert still()
        time.sleep(0.2)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
