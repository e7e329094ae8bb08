# SPDX-License-Identifier: Apache-2.0
"""Starts `troupe train` as a user does and looks at what it leaves behind; for the tests beside it.

    job.main(globals())                 (runs every function of the test whose name begins so)
    run = job.train(job.work("a"), ranks=4, launcher="mpirun", settings={"train.steps": 10})
    run.expect(0)

Every test program is called as `test.py TROUPE MPIEXEC WORK_DIRECTORY [claim...]`; MPIEXEC empty:
there is none, and what needs it is skipped. A failed expectation ends the program with status 1
and ends every process that it started.
"""
import ctypes
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time

TROUPE, MPIEXEC, WORK = sys.argv[1:4]
PR_SET_PDEATHSIG = 1
libc = ctypes.CDLL(None)
LIMIT_S = 60  # for anything to happen; less than the TIMEOUT of the tests
running = []

# A model that trains a step in milliseconds. One rank and every layout agree to 1e-5 with these
# AdamW settings; a constant learning rate makes a run a continuation of a shorter one.
TINY = """\
model:
  vision: {layers: 2, hidden: 24, heads: 4, ffn: 40, patch: 4, image: 16}
  projector: {hidden: 20}
  llm: {layers: 4, hidden: 32, heads: 4, kv_heads: 4, ffn: 44, sequence: 96}
data:
  max_images: 3
  synthetic: {samples: 64, images_min: 1, images_max: 3, text_min: 3, text_max: 30, text_only: 0.25}
train: {run_dir: run, seed: 1, steps: 10, global_batch: 16, microbatches: 4, lr: 1.0e-3,
        lr_min: 1.0e-3, warmup: 0, eps: 1.0e-5, clip: 1.0, workers: 1}
"""
FOUR_RANKS = {
    "placement.vision.ranks": "0-3",
    "placement.vision.dp": 4,
    "placement.llm.ranks": "0-3",
    "placement.llm.tp": 2,
    "placement.llm.dp": 2,
}
ONE_RANK = {"placement.policy": "homogeneous"}


class Failed(Exception):
    pass


class Skipped(Exception):
    """This machine lacks what the claim needs."""


def expect(condition, text):
    if not condition:
        raise Failed(text)


def wait_for(condition, what):
    end = time.monotonic() + LIMIT_S
    while not condition():
        expect(time.monotonic() < end, f"{what}: not within {LIMIT_S} s")
        time.sleep(0.005)


class Run:
    """A started job: its process, its folder, its output so far."""

    def __init__(self, folder, command, environment):
        self.folder = folder
        self.run_dir = folder / "run"
        self.output_path = folder / "output.txt"
        # Whatever ends the test ends the job: mpirun can still end its ranks after SIGTERM.
        last = signal.SIGTERM if command[0] == MPIEXEC else signal.SIGKILL
        with open(self.output_path, "wb") as output:
            self.process = subprocess.Popen(
                command, cwd=folder, env=environment, stdout=output, stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                preexec_fn=lambda: libc.prctl(PR_SET_PDEATHSIG, last, 0, 0, 0),
            )
        running.append(self)

    def output(self):
        return self.output_path.read_text(errors="replace")

    def wait(self):
        """Exit status; the job must end in time."""
        try:
            return self.process.wait(LIMIT_S)
        except subprocess.TimeoutExpired:
            raise Failed(f"the job has not ended after {LIMIT_S} s") from None

    def expect(self, status, *texts):
        """The job ends with this status (None: any but 0) and has said all these texts."""
        found = self.wait()
        expect(found != 0 if status is None else found == status, f"exit status {found}")
        for text in texts:
            expect(text in self.output(), f"it did not say '{text}'")
        return self

    def metrics(self):
        """What metrics.jsonl says, a dictionary a step; none if it is not there yet."""
        path = self.run_dir / "metrics.jsonl"
        text = path.read_text() if path.exists() else ""
        return [json.loads(line) for line in text.splitlines(keepends=True) if line[-1] == "\n"]

    def checkpoints(self):
        return sorted(int(p.name[5:]) for p in self.run_dir.glob("step-*") if p.name[5:].isdigit())

    def wait_for_step(self, step):
        def is_there():
            expect(self.process.poll() is None, "the job has ended early")
            return len(self.metrics()) >= step

        wait_for(is_there, f"step {step}")

    def rank_processes(self):
        """Process numbers by rank, of a launched job: who runs in its folder and has a rank."""
        found = {}
        for entry in pathlib.Path("/proc").iterdir():
            try:
                if entry.name.isdigit() and (entry / "cwd").samefile(self.folder):
                    for item in (entry / "environ").read_bytes().split(b"\0"):
                        if item.startswith(b"PMIX_RANK="):
                            found[int(item.split(b"=")[1])] = int(entry.name)
            except OSError:
                pass  # it has ended meanwhile
        return found

    def end(self):
        if self.process.poll() is None:
            for pid in self.rank_processes().values():
                os.kill(pid, signal.SIGKILL)
            self.process.kill()
            self.process.wait()


def work(name):
    """An empty folder of this test."""
    folder = pathlib.Path(WORK) / name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


def start(folder, ranks, launcher, settings=None, arguments=(), launcher_arguments=(),
          provider=None, environment=None, config=TINY, last=(), hosts=""):
    """launcher: "threads" (loopback ranks), "mpirun" or "srun" (with slurm.py's environment). last:
    words behind all others. hosts: of each rank of mpirun a letter, the host it takes itself to be
    on."""
    (folder / "tiny.yaml").write_text(config)
    command = [TROUPE, "train", "tiny.yaml", *arguments]
    for key, value in (settings or {}).items():
        command += ["--set", f"{key}={value}"]
    environment = dict(environment or os.environ)
    if provider is not None:
        environment["TROUPE_PROVIDER"] = provider
    if launcher == "threads":
        command += ["--ranks", str(ranks)]
    elif hosts:
        parts = [["-n", "1", "-x", f"TROUPE_HOST_ID={host}", *command] for host in hosts]
        command = [MPIEXEC, *launcher_arguments, *sum([[":", *part] for part in parts], [])[1:]]
    else:
        program = [MPIEXEC] if launcher == "mpirun" else ["srun", "--mpi=pmix"]
        command = [*program, *launcher_arguments, "-n", str(ranks), *command]
    return Run(folder, [*command, *last], environment)


def train(*args, **options):
    """start, to a good end."""
    return start(*args, **options).expect(0)


def losses_and_norms(metrics):
    expect(metrics, "the metrics are empty")
    keys = ["loss"] + sorted(key for key in metrics[0] if key.startswith("grad_norm"))
    expect(len(keys) == 5, f"metrics hold {keys}")
    return [[step["step"]] + [step[key] for key in keys] for step in metrics]


def expect_same_metrics(run, reference, steps, tolerance=0.0):
    """Steps 1 .. steps once each; losses and gradient norms within the relative tolerance."""
    found, wanted = losses_and_norms(run.metrics()), losses_and_norms(reference.metrics())
    expect([row[0] for row in found] == list(range(1, steps + 1)), f"steps in metrics: {found}")
    expect(len(wanted) >= steps, f"{len(wanted)} steps in the reference's metrics")
    for row, other in zip(found, wanted):
        for a, b in zip(row, other):
            expect(abs(a - b) <= tolerance * abs(b), f"step {row[0]}: {row}, expected {other}")


def expect_same_files(folder, reference):
    """Byte by byte."""
    names = sorted(p.name for p in reference.iterdir())
    found = sorted(p.name for p in folder.iterdir())
    expect(names == found and len(names) == 5, f"{folder} holds {found}, {reference} {names}")
    for name in names:
        same = (folder / name).read_bytes() == (reference / name).read_bytes()
        expect(same, f"{folder / name} differs from {reference / name}")


def main(names):
    """Runs the functions of a test program, or those named on the command line, as claims."""
    claims = [f for n, f in names.items() if n.startswith("claim_")]
    chosen = sys.argv[4:] or [f.__name__[6:] for f in claims]
    claims = [f for f in claims if f.__name__[6:] in chosen]
    if not claims or (not MPIEXEC and not any(hasattr(f, "without_mpi") for f in claims)):
        print("skipped: there is no mpirun")
        sys.exit(77)
    for claim in claims:
        print(f"  {claim.__name__[6:]}", flush=True)
        try:
            claim()
        except Failed as failure:
            for run in running[-2:]:
                print(f"--- {run.output_path}\n{run.output()[-4000:]}")
            print(f"{claim.__name__}: {failure}")
            sys.exit(1)
        except Skipped as reason:
            print(f"skipped: {reason}")
            sys.exit(77)
        finally:
            for run in running:
                run.end()
            running.clear()
    print(f"{len(claims)} claims hold")
