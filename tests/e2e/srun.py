# SPDX-License-Identifier: Apache-2.0
"""Jobs under srun, in a Slurm that the test starts itself: four ranks train as one does, and when one
is killed the others name it and srun ends."""
import os
import re
import signal
import time

import job
import slurm

DEADLINE_S = 10


def claim_four_ranks_train_as_one():
    with slurm.start() as environment:
        reference = job.train(job.work("reference"), 1, "threads", job.ONE_RANK)
        run = job.train(job.work("srun"), 4, "srun", job.FOUR_RANKS, environment=environment)
    job.expect_same_metrics(run, reference, 10, tolerance=1e-5)
    ranks = sorted(re.findall(r"^rank (\d): libfabric ", run.output(), re.MULTILINE))
    job.expect(ranks == ["0", "1", "2", "3"], f"ranks {ranks} took part")


def kill_one(environment, victim):
    settings = dict(job.FOUR_RANKS, **{"train.steps": 100000, "train.checkpoint_every": 4})
    run = job.start(job.work("killed"), 4, "srun", settings, environment=environment)
    run.wait_for_step(9)
    processes = run.rank_processes()
    job.expect(sorted(processes) == [0, 1, 2, 3], f"ranks {processes}")
    begin = time.monotonic()
    os.kill(processes[victim], signal.SIGKILL)
    run.expect(None, f"rank {victim} is lost: ")
    took = time.monotonic() - begin
    job.expect(took < DEADLINE_S, f"srun ended {took:.1f} s after the death")
    job.expect(not run.rank_processes(), f"ranks are left: {run.rank_processes()}")
    return run


def claim_a_killed_rank_ends_the_job():
    with slurm.start() as environment:
        run = kill_one(environment, 2)
        newest = run.checkpoints()[-1]
        settings = dict(job.FOUR_RANKS, **{"train.steps": newest + 2})
        again = job.train(run.folder, 4, "srun", settings, ["--resume"], environment=environment)
    steps = [step["step"] for step in again.metrics()]
    job.expect(steps == list(range(1, newest + 3)), f"steps in metrics: {steps}")


job.main(globals())
