# SPDX-License-Identifier: Apache-2.0
"""A Slurm of one node that lives as long as a `with` block: a key, ports and folders of its own, so
it meets no other Slurm of the machine.

    with slurm.start() as environment:
        subprocess.run(["srun", "--mpi=pmix", "-n", "4", "hostname"], env=environment)

Raises job.Skipped, with the reason, where none can be started. This file run as a program is the
keeper: it starts the daemons and adopts what they leave alone, and when its standard input ends, with
the block or however the test ends, it ends them all and removes their folder."""
import contextlib
import ctypes
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time

LIMIT_S = 20
SLOTS = 8  # that the node offers, whatever it has
PR_SET_CHILD_SUBREAPER = 36
libc = ctypes.CDLL(None)

CONFIG = """\
ClusterName=troupe
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller_port}
SlurmdPort={node_port}
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
CredType=cred/munge
MpiDefault=pmix
CommunicationParameters=NoInAddrAny,NoCtldInAddrAny
SlurmdParameters=config_overrides
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SchedulerType=sched/builtin
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
ReturnToService=2
KillWait=1
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
NodeName={host} NodeAddr=127.0.0.1 CPUs={slots} State=UNKNOWN
PartitionName=all Nodes={host} Default=YES State=UP
"""


class Missing(Exception):
    pass


def free_ports(count):
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for s in sockets:
            s.bind(("127.0.0.1", 0))
        return [s.getsockname()[1] for s in sockets]


def write_files(folder):
    (folder / "state").mkdir()
    (folder / "spool").mkdir()
    key = folder / "munge.key"
    key.touch(0o600)
    key.write_bytes(os.urandom(128))
    controller_port, node_port = free_ports(2)
    (folder / "slurm.conf").write_text(CONFIG.format(
        host=socket.gethostname().partition(".")[0], folder=folder, slots=SLOTS,
        controller_port=controller_port, node_port=node_port))
    (folder / "mpi.conf").write_text(f"PMIxCliTmpDirBase={folder}\n")


def children():
    """Processes whose parent is this one, those it adopted among them."""
    found = []
    for entry in pathlib.Path("/proc").iterdir():
        try:
            if entry.name.isdigit():
                stat = (entry / "stat").read_text().rpartition(")")[2].split()
                if int(stat[1]) == os.getpid():
                    found.append(int(entry.name))
        except OSError:
            pass  # it has ended meanwhile
    return found


def end_children():
    """Generation after generation: an orphan becomes a child."""
    end = time.monotonic() + LIMIT_S
    while children() and time.monotonic() < end:
        for pid in children():
            os.kill(pid, signal.SIGKILL)
            with contextlib.suppress(ChildProcessError):
                os.waitpid(pid, 0)


def start_daemon(folder, environment, *command):
    with open(folder / f"{command[0]}.out", "wb") as output:
        return subprocess.Popen(command, env=environment, cwd=folder, stdin=subprocess.DEVNULL,
                                stdout=output, stderr=subprocess.STDOUT)


def ask(environment, *command):
    return subprocess.run(command, env=environment, timeout=LIMIT_S, capture_output=True, text=True,
                          check=False)


def wait_until_ready(folder, daemons, environment):
    end = time.monotonic() + LIMIT_S
    while True:
        for daemon in daemons:
            if daemon.poll() is not None:
                said = (folder / f"{daemon.args[0]}.out").read_text(errors="replace")
                raise Missing(f"{daemon.args[0]} ended: {said[-400:]}")
        state = ask(environment, "sinfo", "-h", "-o", "%T")
        if state.stdout.strip() == "idle":
            return
        if time.monotonic() > end:
            raise Missing(f"the node is not idle after {LIMIT_S} s: {state.stdout}{state.stderr}")
        time.sleep(0.1)


def start_daemons(folder, environment):
    munge = [f"--{name}-file={folder}/munge.{name}" for name in ("key", "log", "pid", "seed")]
    daemons = [start_daemon(folder, environment, "munged", "--foreground", "--force",
                            f"--socket={folder}/munge.socket", *munge)]
    end = time.monotonic() + LIMIT_S
    while not (folder / "munge.socket").exists() and time.monotonic() < end:
        time.sleep(0.02)
    daemons.append(start_daemon(folder, environment, "slurmctld", "-D", "-i"))
    daemons.append(start_daemon(folder, environment, "slurmd", "-D"))
    wait_until_ready(folder, daemons, environment)
    kinds = ask(environment, "srun", "--mpi=list")
    if "pmix" not in kinds.stdout + kinds.stderr:
        raise Missing(f"this Slurm has no PMIx: {kinds.stdout}{kinds.stderr}")


def check_machine():
    if os.geteuid() != 0:
        raise Missing("only root can start a Slurm")
    for program in ("munged", "slurmctld", "slurmd", "srun", "sinfo"):
        if shutil.which(program) is None:
            raise Missing(f"there is no {program}; .ci/packages-test names its package")


def keep():
    """Says the place of slurm.conf, or why there is none, and waits for the end of its input."""
    libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    with tempfile.TemporaryDirectory(prefix="troupe-slurm-") as name:  # sockets: a short path
        folder = pathlib.Path(name)
        config = folder / "slurm.conf"
        try:
            check_machine()
            write_files(folder)
            start_daemons(folder, dict(os.environ, SLURM_CONF=str(config)))
            print(config, flush=True)
        except Missing as missing:
            print(" ".join(str(missing).split()), flush=True)
        finally:
            sys.stdin.read()
            end_children()


@contextlib.contextmanager
def start():
    """Yields the environment in which srun finds it."""
    import job  # the keeper has no arguments for it

    environment = dict(os.environ)
    environment["PATH"] += ":/usr/sbin:/sbin"
    keeper = subprocess.Popen([sys.executable, "-B", __file__], env=environment, text=True,
                              stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                              start_new_session=True)
    try:
        answer = keeper.stdout.readline().strip()
        if not answer.endswith("slurm.conf"):
            raise job.Skipped(answer)
        yield dict(environment, SLURM_CONF=answer)
    finally:
        keeper.stdin.close()
        keeper.wait()


if __name__ == "__main__":
    keep()
