# SPDX-License-Identifier: Apache-2.0
"""Who waits for what: SIGUSR1 makes every rank say it and train on, also while it waits inside a
collective of its gang; without progress until the deadline the job ends and every rank says it."""
import os
import re
import signal
import time

import job

SETTINGS = dict(job.FOUR_RANKS, **{"train.steps": 400})
REPORT = re.compile(r"^troupe: rank (\d), step \d+: \d+ of \d+ firings done", re.MULTILINE)
IN_COLLECTIVE = "and waits in a collective of its gang, ranks "


def reporters(run):
    return {int(rank) for rank in REPORT.findall(run.output())}


def expect_reports_and_a_good_end(run, ask):
    run.wait_for_step(5)
    ask()
    job.wait_for(lambda: reporters(run) == {0, 1, 2, 3}, "a report of every rank")
    job.expect(run.process.poll() is None, "the job ended before it was asked")
    run.expect(0)
    job.expect(len(run.metrics()) == 400, f"{len(run.metrics())} steps")


def claim_threads_report_and_train_on():
    run = job.start(job.work("threads"), 4, "threads", SETTINGS)
    expect_reports_and_a_good_end(run, lambda: run.process.send_signal(signal.SIGUSR1))


def claim_mpirun_passes_the_signal_on():
    run = job.start(job.work("mpirun"), 4, "mpirun", SETTINGS)
    expect_reports_and_a_good_end(run, lambda: run.process.send_signal(signal.SIGUSR1))


def stop_rank(run, rank):
    """The rank no longer answers; the others come to wait for it."""
    run.wait_for_step(5)
    processes = run.rank_processes()
    os.kill(processes[rank], signal.SIGSTOP)
    return processes


def claim_ranks_report_from_inside_a_collective():
    run = job.start(job.work("collective"), 4, "mpirun", SETTINGS)
    processes = stop_rank(run, 3)

    def is_reported():
        for rank in (0, 1, 2):
            os.kill(processes[rank], signal.SIGUSR1)
        time.sleep(0.1)
        if IN_COLLECTIVE + "2, 3" in run.output():
            return True
        os.kill(processes[3], signal.SIGCONT)  # it was stopped outside of its collectives
        time.sleep(0.003)
        os.kill(processes[3], signal.SIGSTOP)
        return False

    try:
        job.wait_for(is_reported, "the report of a collective")
    finally:
        os.kill(processes[3], signal.SIGCONT)
    run.expect(0)


def claim_a_stall_ends_the_job():
    settings = dict(SETTINGS, **{"train.steps": 100000, "comm.stall_s": 2})
    run = job.start(job.work("stall"), 4, "mpirun", settings, mpi_arguments=["--enable-recovery"])
    processes = stop_rank(run, 3)
    begin = time.monotonic()
    try:
        job.wait_for(lambda: "saw no progress for 2" in run.output(), "a stall")
        job.wait_for(lambda: set(run.rank_processes()) <= {3}, "the end of the other ranks")
        took = time.monotonic() - begin
        job.expect(2 <= took < 10, f"the others ended after {took:.1f} s")
        job.expect(reporters(run) >= {0, 1, 2}, f"only {reporters(run)} said what they wait for")
        for rank in (0, 1, 2):
            job.expect(f"troupe train: rank {rank}: " in run.output(), f"rank {rank} says no reason")
    finally:
        os.kill(processes[3], signal.SIGKILL)
    run.wait()  # its status is mpirun's business


claim_threads_report_and_train_on.without_mpi = True
job.main(globals())
