# SPDX-License-Identifier: Apache-2.0
"""A run that stops and resumes is the run that did not stop: metrics and the last checkpoint (hence
weights, moments, step and data position) are equal bit by bit in the same layout, and within the
tolerance of layouts in another. 16 samples a step of 64: step 5 begins another epoch."""
import shutil

import job

EVERY = {"train.checkpoint_every": 3}
SETTINGS = dict(job.FOUR_RANKS, **EVERY)
DISJOINT = {
    "placement.vision.ranks": "0-2",
    "placement.vision.dp": 3,
    "placement.llm.ranks": "3-4",
    "placement.llm.pp": 2,
}


def reference():
    return job.train(job.work("straight"), 4, "threads", SETTINGS)


def expect_equal(run, straight):
    job.expect_same_metrics(run, straight, 10)
    job.expect_same_files(run.run_dir / "step-10", straight.run_dir / "step-10")


def claim_as_if_never_stopped():
    straight = reference()
    folder = job.work("halves")
    job.train(folder, 4, "threads", SETTINGS, ["--steps", "5"])
    expect_equal(job.train(folder, 4, "threads", SETTINGS, ["--resume"]), straight)


def claim_under_mpirun():
    straight = reference()
    folder = job.work("mpirun")
    job.train(folder, 4, "mpirun", SETTINGS, ["--steps", "5"])
    expect_equal(job.train(folder, 4, "mpirun", SETTINGS, ["--resume"]), straight)


def died_after_step(name, straight, step, checkpoint):
    """What a run leaves that died after `step`, in the middle of writing a line."""
    folder = job.work(name)
    run_dir = folder / "run"
    shutil.copytree(straight.run_dir, run_dir)
    for later in straight.checkpoints():
        if later > checkpoint:
            shutil.rmtree(run_dir / f"step-{later}")
    (run_dir / f"step-{checkpoint + 3}.tmp").mkdir()
    lines = (run_dir / "metrics.jsonl").read_text().splitlines(keepends=True)
    (run_dir / "metrics.jsonl").write_text("".join(lines[:step]) + lines[step][:20])
    return folder


def claim_lines_after_the_checkpoint_are_written_again():
    straight = reference()
    folder = died_after_step("died", straight, step=8, checkpoint=6)
    run = job.train(folder, 4, "threads", SETTINGS, ["--resume"])
    expect_equal(run, straight)
    job.expect_same_files(run.run_dir / "step-9", straight.run_dir / "step-9")


def claim_in_another_layout():
    straight = reference()
    folder = died_after_step("moved", straight, step=8, checkpoint=6)
    run = job.train(folder, 5, "threads", dict(DISJOINT, **EVERY), ["--resume"])
    job.expect_same_metrics(run, straight, 10, tolerance=1e-5)
    folder = died_after_step("one_rank", straight, step=6, checkpoint=6)
    run = job.train(folder, 1, "threads", dict(job.ONE_RANK, **EVERY), ["--resume"])
    job.expect_same_metrics(run, straight, 10, tolerance=1e-5)


claim_as_if_never_stopped.without_mpi = True
claim_lines_after_the_checkpoint_are_written_again.without_mpi = True
claim_in_another_layout.without_mpi = True
job.main(globals())
