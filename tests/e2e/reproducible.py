# SPDX-License-Identifier: Apache-2.0
"""The same config twice: metrics equal in all their digits, checkpoints byte by byte."""
import job


def expect_same_twice(launcher):
    settings = dict(job.FOUR_RANKS, **{"train.checkpoint_every": 5})
    runs = [job.train(job.work(f"{launcher}{i}"), 4, launcher, settings) for i in range(2)]
    job.expect_same_metrics(runs[0], runs[1], 10)
    job.expect(runs[0].checkpoints() == [5, 10], f"checkpoints {runs[0].checkpoints()}")
    for step in runs[0].checkpoints():
        job.expect_same_files(*(run.run_dir / f"step-{step}" for run in runs))


def claim_loopback():
    expect_same_twice("threads")


def claim_mpirun():
    expect_same_twice("mpirun")


claim_loopback.without_mpi = True
job.main(globals())
