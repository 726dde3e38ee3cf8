"""A Slurm of one's own: two nodes on this machine's loopback, without systemd and cgroups.

Debian and root only. Everything it starts is stopped by process id; all files lie in one folder,
but for the link ``/etc/slurm/slurm.conf`` that the job steps of the plugin need.
"""

import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

PACKAGES = ("munge", "slurmctld", "slurmd", "slurm-client")
LINK = Path("/etc/slurm/slurm.conf")
NODES = ("n1", "n2")

_CONFIGURATION = """\
ClusterName=loopback
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={port}
CommunicationParameters=NoInAddrAny,NoCtldInAddrAny
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
CredType=cred/munge
AuthInfo=socket={folder}/munge/socket
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool.%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
SlurmdParameters=config_overrides
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
SchedulerParameters=sched_interval=5,bf_interval=5,batch_sched_delay=0,sched_min_interval=0
SlurmdTimeout=10
MessageTimeout=10
KillWait=2
MinJobAge=300
ReturnToService=2
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
JobCompType=jobcomp/filetxt
JobCompLoc={folder}/jobs.log
GresTypes=gpu
{nodes}
PartitionName=main Nodes={names} Default=YES MaxTime=INFINITE State=UP
"""


class CannotStart(Exception):
    """Slurm cannot be had on this machine."""


def install() -> None:
    """Install Debian's packages where they are absent, without starting their services.

    Raises:
        CannotStart: If this is no Debian, we are not root, or the packages cannot be had.
    """
    if all(map(shutil.which, ("munged", "slurmctld", "slurmd", "sbatch"))):
        return
    if os.geteuid() != 0 or not shutil.which("apt-get"):
        raise CannotStart("Slurm is not installed, and installing it needs root and apt-get.")
    policy = Path("/usr/sbin/policy-rc.d")
    ours = not policy.exists()
    if ours:
        policy.write_text("#!/bin/sh\nexit 101\n")
        policy.chmod(0o755)
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    try:
        for words in (["update"], ["install", "-y", "--no-install-recommends", *PACKAGES]):
            done = subprocess.run(
                ["apt-get", "-qq", *words], env=environment, capture_output=True, text=True
            )
        if done.returncode:
            raise CannotStart(f"apt-get install failed: {done.stderr[-300:]}")
    finally:
        if ours:
            policy.unlink()


class Loopback:
    """The cluster; a context manager.

    Args:
        folder: For all its files; its name must be short (sockets).
        cpus: CPUs that each node promises.
    """

    def __init__(self, folder: Path, cpus: int = 2, port: int = 17817) -> None:
        self.folder, self._cpus, self._port = folder, cpus, port
        self._linked = False

    def __enter__(self) -> "Loopback":
        if os.geteuid() != 0:
            raise CannotStart("starting Slurm's daemons needs root.")
        if LINK.exists() or LINK.is_symlink():
            raise CannotStart(f"{LINK} is there already: this machine has a Slurm of its own.")
        try:
            self._configure()
            self._start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def _configure(self) -> None:
        for name in ("munge", "state", *(f"spool.{node}" for node in NODES)):
            (self.folder / name).mkdir(parents=True, exist_ok=True)
        host = socket.gethostname().split(".")[0]
        nodes = "\n".join(
            f"NodeName={node} NodeHostname={host} NodeAddr=127.0.0.1 Port={port} "
            f"CPUs={self._cpus} RealMemory=200000 Gres=gpu:1 State=UNKNOWN"
            for port, node in enumerate(NODES, start=self._port + 1)
        )
        facts = {"host": host, "port": self._port, "folder": self.folder, "nodes": nodes}
        text = _CONFIGURATION.format(**facts, names=",".join(NODES))
        (self.folder / "slurm.conf").write_text(text)
        lines = "".join(f"NodeName={node} Name=gpu File=/dev/null\n" for node in NODES)
        (self.folder / "gres.conf").write_text(lines)
        LINK.parent.mkdir(parents=True, exist_ok=True)
        for name in ("slurm.conf", "gres.conf"):
            (LINK.parent / name).symlink_to(self.folder / name)
        self._linked = True

    def _start(self) -> None:
        munge = self.folder / "munge"
        user = pwd.getpwnam("munge")
        (munge / "key").write_bytes(os.urandom(128))
        (munge / "key").chmod(0o400)
        for path in (munge, munge / "key"):
            os.chown(path, user.pw_uid, user.pw_gid)
        files = ("key", "socket", "pid", "log", "seed")
        options = [
            f"--{option}={munge / name}"
            for option, name in zip(
                ("key-file", "socket", "pid-file", "log-file", "seed-file"), files, strict=True
            )
        ]
        self._call(
            "setpriv", "--reuid", "munge", "--regid", "munge", "--init-groups", "munged", *options
        )
        self._call("slurmctld")
        for node in NODES:
            self._call("slurmd", "-N", node)
        self._wait(lambda: self.ask("sinfo", "-h", "-N", "-o", "%T").split() == ["idle"] * 2, 30)

    def _call(self, *words: str) -> None:
        done = subprocess.run(words, capture_output=True, text=True)
        if done.returncode:
            raise CannotStart(f"{words[0]} does not start: {done.stderr[-300:]}")

    def _wait(self, ready: Callable[[], bool], seconds: float) -> None:
        end = time.monotonic() + seconds
        while not ready():
            if time.monotonic() > end:
                raise CannotStart(f"the cluster does not come up; see the logs in {self.folder}.")
            time.sleep(0.2)

    def ask(self, *words: str) -> str:
        """What a command of Slurm answers."""
        return subprocess.run(words, capture_output=True, text=True, timeout=20).stdout

    def running(self) -> list[tuple[str, str, str]]:
        """Id, node and comment (the rule) of the jobs that run."""
        lines = self.ask("squeue", "-h", "-t", "R", "-o", "%A|%N|%k").splitlines()
        return [(line.split("|")[0], line.split("|")[1], line.split("|")[2]) for line in lines]

    def lose_node(self, node: str, job: str) -> list[int]:
        """Let a node hang: its daemon is gone, the processes of a job stand still.

        Returns:
            These processes. They live on, unseen: :func:`wake` makes them go on.
        """
        os.kill(self._pid(f"slurmd.{node}.pid"), signal.SIGKILL)
        words = f"SLURM_JOB_ID={job}\0".encode()
        stopped = [pid for pid, environment in _environments() if words in environment]
        for pid in stopped:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGSTOP)
        return stopped

    @staticmethod
    def wake(processes: list[int], seconds: float = 300.0) -> None:
        """Let processes go on that stood still, and wait for their end."""
        for pid in processes:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)
        end = time.monotonic() + seconds
        while any(Path(f"/proc/{pid}").exists() for pid in processes):
            assert time.monotonic() < end, "a process of a lost node does not end"
            time.sleep(0.2)

    def records(self) -> list[dict[str, str]]:
        """Every finished job: JobId, JobState, NodeList and so on."""
        lines = (self.folder / "jobs.log").read_text().splitlines()
        return [dict(word.split("=", 1) for word in line.split() if "=" in word) for line in lines]

    def _pid(self, name: str) -> int:
        return int((self.folder / name).read_text())

    def __exit__(self, *_: object) -> None:
        jobs = self.ask("squeue", "-h", "-o", "%A").split() if self._linked else []
        if jobs:
            self.ask("scancel", "--full", *jobs)
            time.sleep(3)
        for name in ("slurmd.n1.pid", "slurmd.n2.pid", "slurmctld.pid", "munge/pid"):
            try:
                _stop(self._pid(name))
            except (OSError, ValueError):
                continue
        self._stop_steps()
        if self._linked:
            for name in ("slurm.conf", "gres.conf"):
                (LINK.parent / name).unlink(missing_ok=True)

    def _stop_steps(self) -> None:
        """Kill what outlived its node: step daemons whose spool folder is ours, and their tasks."""
        for pid, environment in _environments():
            try:
                name = Path(f"/proc/{pid}/comm").read_text()
                mine = b"SLURM_CLUSTER_NAME=loopback\0" in environment
                ours = name.startswith("slurmstepd") and str(self.folder).encode() in environment
                if mine or ours:
                    os.kill(pid, signal.SIGKILL)
            except OSError:
                print(f"process {pid} has ended by itself", file=sys.stderr)


def _environments() -> Iterator[tuple[int, bytes]]:
    """Process id and environment of all processes."""
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            yield int(folder.name), (folder / "environ").read_bytes()


def _stop(pid: int, seconds: float = 10.0) -> None:
    """SIGTERM, and SIGKILL to what still runs after some seconds.

    Raises:
        OSError: If there is no such process.
    """
    os.kill(pid, signal.SIGTERM)
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if (Path("/proc") / str(pid) / "stat").read_text().rpartition(")")[2].split()[0] == "Z":
            return
        time.sleep(0.1)
    os.kill(pid, signal.SIGKILL)
