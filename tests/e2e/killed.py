# SPDX-License-Identifier: Apache-2.0
"""Ranks die by SIGKILL: the others end in time and name the dead one, and what is on the disk stays
whole and can be resumed from."""
import os
import random
import signal
import time

import job

ENDLESS = {"train.steps": 100000, "train.checkpoint_every": 4}
DEADLINE_S = 10


def survivors(run, victim):
    lines = [line for line in run.output().splitlines() if f"rank {victim} is lost" in line]
    return {r for r in range(4) for line in lines if line.startswith(f"troupe train: rank {r}: ")}


def expect_resumable(run, launcher):
    newest = run.checkpoints()[-1]
    settings = dict(job.FOUR_RANKS, **{"train.steps": newest + 2})
    again = job.train(run.folder, 4, launcher, settings, ["--resume"])
    steps = [step["step"] for step in again.metrics()]
    job.expect(steps == list(range(1, newest + 3)), f"steps in metrics: {steps}")


def start_endless(name, provider, launcher_arguments, hosts=""):
    """A job of four ranks that trains already, and its process numbers by rank."""
    run = job.start(job.work(name), 4, "mpirun", dict(job.FOUR_RANKS, **ENDLESS),
                    launcher_arguments=launcher_arguments, provider=provider, hosts=hosts)
    run.wait_for_step(9)
    processes = run.rank_processes()
    job.expect(sorted(processes) == [0, 1, 2, 3], f"ranks {processes}")
    return run, processes


def kill_one(name, victim, provider, launcher_arguments):
    run, processes = start_endless(name, provider, launcher_arguments)
    begin = time.monotonic()
    os.kill(processes[victim], signal.SIGKILL)
    run.wait()  # its status is mpirun's business
    took = time.monotonic() - begin
    job.expect(took < DEADLINE_S, f"the job ended {took:.1f} s after the death")
    return run


def survivors_name_the_dead(provider, victim):
    """Without mpirun's clean-up: every survivor ends by itself."""
    run = kill_one(f"survivors_{provider}", victim, provider, ["--enable-recovery"])
    others = {0, 1, 2, 3} - {victim}
    job.expect(survivors(run, victim) == others, f"only {survivors(run, victim)} name the dead")
    expect_resumable(run, "mpirun")


def claim_survivors_name_the_dead_shm():
    survivors_name_the_dead("shm", 2)


def claim_survivors_name_the_dead_tcp():
    survivors_name_the_dead("tcp", 0)


def has_ended(process):
    try:
        return open(f"/proc/{process}/stat").read().rsplit(")")[1].split()[0] == "Z"
    except OSError:
        return True


def a_sleeper_names_the_dead(provider, hosts):
    """Rank 3 wakes up when all others have ended: one by SIGKILL, two because of that."""
    run, processes = start_endless(f"sleeper_{provider}_{hosts}", provider, ["--enable-recovery"],
                                   hosts)
    os.kill(processes[3], signal.SIGSTOP)
    os.kill(processes[0], signal.SIGKILL)
    job.wait_for(lambda: all(has_ended(processes[r]) for r in (1, 2)), "the end of ranks 1 and 2")
    os.kill(processes[3], signal.SIGCONT)
    run.wait()
    job.expect(survivors(run, 0) == {1, 2, 3}, f"only {survivors(run, 0)} name the dead")


def claim_a_sleeper_names_the_dead_shm():
    a_sleeper_names_the_dead("shm", "aaaa")


def claim_a_sleeper_names_the_dead_tcp():
    a_sleeper_names_the_dead("tcp", "aaaa")


def claim_a_sleeper_names_the_dead_of_another_host():
    a_sleeper_names_the_dead("tcp", "aabb")
    a_sleeper_names_the_dead("tcp", "aaab")


def claim_mpirun_ends_the_job():
    run = kill_one("mpirun", 1, None, [])
    expect_resumable(run, "mpirun")


def claim_a_save_cut_short_leaves_the_earlier_checkpoints():
    """The whole job dies at several moments of a save."""
    seed = int(os.environ.get("TEST_SEED", time.time_ns() % 1000000007))
    print(f"  seed TEST_SEED={seed}", flush=True)
    chance = random.Random(seed)
    settings = dict(job.FOUR_RANKS, **{"train.steps": 12, "train.checkpoint_every": 1})
    straight = job.train(job.work("straight"), 4, "threads", settings)
    for moment in range(5):
        run = job.start(job.work(f"cut{moment}"), 4, "threads", settings)
        temporary = run.run_dir / f"step-{chance.randrange(2, 10)}.tmp"
        job.wait_for(lambda: temporary.exists() or run.process.poll() is not None, temporary.name)
        time.sleep(chance.uniform(0, 0.006))
        run.process.kill()
        run.wait()
        saved = run.checkpoints()
        job.expect(saved == list(range(1, len(saved) + 1)), f"checkpoints {saved}")
        for step in saved:
            job.expect_same_files(run.run_dir / f"step-{step}", straight.run_dir / f"step-{step}")
        again = job.train(run.folder, 4, "threads", settings, ["--resume"])
        job.expect_same_metrics(again, straight, 12)
        job.expect_same_files(again.run_dir / "step-12", straight.run_dir / "step-12")


claim_a_save_cut_short_leaves_the_earlier_checkpoints.without_mpi = True
job.main(globals())
