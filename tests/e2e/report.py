# SPDX-License-Identifier: Apache-2.0
"""Who waits for what: SIGUSR1 makes every rank say it and train on, also while it waits inside a
collective of its gang; without progress until the deadline the job ends and every rank says it."""
import os
import re
import signal
import time

import job

SETTINGS = dict(job.FOUR_RANKS, **{"train.steps": 100000})
REPORT = re.compile(r"^troupe: rank (\d), step \d+: \d+ of \d+ firings done", re.MULTILINE)
IN_COLLECTIVE = "and waits in a collective of its gang, ranks "


def reporters(run):
    return {int(rank) for rank in REPORT.findall(run.output())}


def expect_it_trains_on(run):
    run.wait_for_step(len(run.metrics()) + 5)
    run.end()


def expect_reports(run, ask):
    run.wait_for_step(5)
    ask()
    job.wait_for(lambda: reporters(run) == {0, 1, 2, 3}, "a report of every rank")
    expect_it_trains_on(run)


def claim_threads_report_and_train_on():
    run = job.start(job.work("threads"), 4, "threads", SETTINGS)
    expect_reports(run, lambda: run.process.send_signal(signal.SIGUSR1))


def claim_mpirun_passes_the_signal_on():
    run = job.start(job.work("mpirun"), 4, "mpirun", SETTINGS)
    expect_reports(run, lambda: run.process.send_signal(signal.SIGUSR1))


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
    expect_it_trains_on(run)


def stall(name, launcher_arguments):
    """Rank 3 stops for ever; returns the job and its other processes."""
    settings = dict(SETTINGS, **{"comm.stall_s": 2})
    run = job.start(job.work(name), 4, "mpirun", settings, launcher_arguments=launcher_arguments)
    return run, stop_rank(run, 3)


def expect_one_sentence(run):
    """Whoever notices first, every rank that can says what it waits for, and one says the end. (The
    launcher wakes rank 3 to end it, which may then say what it sees.)"""
    job.expect(reporters(run) >= {0, 1, 2}, f"only {reporters(run)} said what they wait for")
    ends = re.findall(r"^troupe train: (?!rank 3: ).*", run.output(), re.MULTILINE)
    job.expect(len(ends) == 1, f"{len(ends)} sentences at the end: {ends}")
    job.expect("saw no progress for 2" in ends[0], f"it ended with '{ends[0]}'")
    job.expect("; rank 3 does not answer; " in ends[0], f"it ended with '{ends[0]}'")


def claim_a_stall_ends_the_job():
    run, _ = stall("stall", [])
    job.expect(run.wait() != 0, "a stalled job ended well")
    expect_one_sentence(run)


def claim_after_a_stall_every_rank_ends_by_itself():
    run, processes = stall("recovery", ["--enable-recovery"])
    try:
        job.wait_for(lambda: set(run.rank_processes()) <= {3}, "the end of the other ranks")
    finally:
        os.kill(processes[3], signal.SIGKILL)
    run.wait()  # its status is mpirun's business
    expect_one_sentence(run)


claim_threads_report_and_train_on.without_mpi = True
job.main(globals())
