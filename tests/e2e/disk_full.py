# SPDX-License-Identifier: Apache-2.0
"""A run whose log cannot be written, because the disk is full, stops and says so."""
import pathlib

import job


def claim_the_log():
    if not pathlib.Path("/dev/full").exists():
        raise job.Skipped("there is no /dev/full")
    folder = job.work("log")
    (folder / "run").mkdir()
    (folder / "run" / "train.log").symlink_to("/dev/full")
    run = job.start(folder, 1, "threads", job.ONE_RANK)
    run.expect(1, "train.log: cannot be written: No space left on device")


claim_the_log.without_mpi = True
job.main(globals())
