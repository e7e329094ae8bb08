# SPDX-License-Identifier: Apache-2.0
"""Who waits for what: SIGUSR1 prints one screen about all ranks and trains on, also while ranks wait
inside a collective of their gang; without progress until the deadline the job ends with its cause."""
import os
import pathlib
import re
import signal
import time

import job

SETTINGS = dict(job.FOUR_RANKS, **{"train.steps": 100000})
ASKED = re.compile(r"^troupe: who waits for what in step \d+: ", re.MULTILINE)
ROW = re.compile(r"^ {2,6}(\d+) +[\d-]+ +[\d-]+ +[\d.s -]+  (.*)$", re.MULTILINE)
IN_COLLECTIVE = re.compile("in (a|the) collective of ")
SILENT = "does not answer"
COPIES = {270, 271, 310, 311}  # process_vm_readv and _writev of aarch64 and x86-64


def states(run):
    """By rank, of the last screen."""
    return {int(rank): state for rank, state in ROW.findall(run.output())}


def expect_it_trains_on(run):
    run.wait_for_step(len(run.metrics()) + 5)
    run.end()


def expect_report(run, ask):
    run.wait_for_step(5)
    ask()
    job.wait_for(lambda: set(states(run)) == {0, 1, 2, 3}, "a report about every rank")
    expect_it_trains_on(run)
    screens = len(ASKED.findall(run.output()))
    job.expect(screens == 1, f"{screens} screens for one signal")


def claim_threads_report_and_train_on():
    run = job.start(job.work("threads"), 4, "threads", SETTINGS)
    expect_report(run, lambda: run.process.send_signal(signal.SIGUSR1))


def claim_mpirun_passes_the_signal_on():
    run = job.start(job.work("mpirun"), 4, "mpirun", SETTINGS)
    expect_report(run, lambda: run.process.send_signal(signal.SIGUSR1))


def stops_outside_of_locks(process):
    """Stops the process; whether it is in a system call that libfabric makes under no lock, if the
    system tells."""
    os.kill(process, signal.SIGSTOP)
    stat = pathlib.Path(f"/proc/{process}/stat")
    job.wait_for(lambda: stat.read_text().rsplit(")")[1].split()[0] == "T", "the stop of a rank")
    try:
        call = int(pathlib.Path(f"/proc/{process}/syscall").read_text().split()[0])
    except OSError:
        return True
    if call >= 0 and call not in COPIES:
        return True
    os.kill(process, signal.SIGCONT)
    return False


def stop_rank(run, rank):
    """The rank no longer answers; the others come to wait for it. It holds no lock that would keep
    them from answering: tests/dist/peer_death.c has that."""
    run.wait_for_step(5)
    processes = run.rank_processes()
    job.wait_for(lambda: stops_outside_of_locks(processes[rank]), "a moment to stop a rank")
    return processes


def claim_a_silent_rank_is_named():
    """The others, which come to wait in collectives for it, answer from there."""
    run = job.start(job.work("silent"), 4, "mpirun", SETTINGS)
    processes = stop_rank(run, 3)
    others = [processes[rank] for rank in (0, 1, 2)]

    def is_reported():
        for process in others:
            os.kill(process, signal.SIGUSR1)
        time.sleep(0.5)
        found = states(run)
        return found.get(3) == SILENT and any(IN_COLLECTIVE.search(s) for s in found.values())

    try:
        job.wait_for(is_reported, "the report about a silent rank")
    finally:
        os.kill(processes[3], signal.SIGCONT)
    expect_it_trains_on(run)


def stall(name, launcher_arguments):
    """Rank 3 stops for ever; returns the job and its other processes."""
    settings = dict(SETTINGS, **{"comm.stall_s": 5})
    run = job.start(job.work(name), 4, "mpirun", settings, launcher_arguments=launcher_arguments)
    return run, stop_rank(run, 3)


def expect_one_sentence(run):
    """Whoever notices first prints the screen, and says the end. (The launcher wakes rank 3 to end it,
    which may then say what it sees.)"""
    cause = r"no progress for [5-9]\.\d s in step \d+: rank 3 does not answer"
    screens = re.findall(rf"^troupe: {cause}", run.output(), re.MULTILINE)
    job.expect(len(screens) == 1, f"{len(screens)} screens at the end")
    job.expect(states(run)[3] == SILENT, f"the ranks are {states(run)}")
    ends = re.findall(r"^troupe train: (?!rank 3: ).*", run.output(), re.MULTILINE)
    job.expect(len(ends) == 1, f"{len(ends)} sentences at the end: {ends}")
    job.expect(re.search(cause, ends[0]), f"it ended with '{ends[0]}'")


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
