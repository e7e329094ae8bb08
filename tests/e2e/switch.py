# SPDX-License-Identifier: Apache-2.0
"""`troupe train --switch` as a user types it: on every transport the losses are those of a run that
nobody disturbed, metrics and log say what moved; a switch that cannot be is said and changes
nothing; a run that resumes behind a switch is the run that did not stop."""
import job

SETTINGS = dict(job.FOUR_RANKS)
PIPELINE = """\
placement:
  vision: {ranks: "0-1", dp: 2}
  llm: {ranks: "0-3", pp: 2, tp: 2}
"""
TOO_MANY = 'vision: {ranks: "0-3", dp: 4}\nllm: {ranks: "0-2", tp: 2}\n'
SWITCHES = ["3:pipeline.yaml", "5:order=fifo", "6:colocated", "8:pipeline.yaml"]


def folder_with_files(name):
    folder = job.work(name)
    (folder / "pipeline.yaml").write_text(PIPELINE)
    (folder / "too_many.yaml").write_text(TOO_MANY)
    return folder


def arguments(switches):
    return [word for switch in switches for word in ("--switch", switch)]


def undisturbed():
    return job.train(job.work("undisturbed"), 1, "threads", job.ONE_RANK)


def expect_switched(run, reference):
    job.expect_same_metrics(run, reference, 10, tolerance=1e-5)
    switches = {m["step"]: m["switches"] for m in run.metrics() if "switches" in m}
    job.expect(sorted(switches) == [4, 6, 7, 9], f"switches before steps {sorted(switches)}")
    for made in switches.values():
        job.expect(len(made) == 1, f"{made}")
        job.expect(made[0]["bytes_moved"] == made[0]["bytes_bound"], f"{made}")
        job.expect(made[0]["plan_ms"] <= made[0]["pause_ms"], f"{made}")
    job.expect(switches[7][0]["bytes_moved"] > 0, f"{switches[7]}")
    job.expect(switches[6][0]["bytes_moved"] == 0, f"{switches[6]}")
    log = (run.run_dir / "train.log").read_text()
    for words in ("switched to pipeline.yaml after step 3: ", "switched to order=fifo", "pp 2 on"):
        job.expect(words in log, f"the log does not say '{words}'")


def switch_under(provider):
    run = job.train(folder_with_files(f"mpirun_{provider}"), 4, "mpirun", SETTINGS,
                    arguments(SWITCHES), provider=provider)
    expect_switched(run, undisturbed())


def claim_over_shared_memory():
    switch_under("shm")


def claim_over_tcp():
    switch_under("tcp")


def claim_over_mpi():
    switch_under("mpi")


def claim_among_threads():
    run = job.train(folder_with_files("threads"), 4, "threads", SETTINGS, arguments(SWITCHES))
    expect_switched(run, undisturbed())


def claim_what_cannot_be_is_said_and_changes_nothing():
    straight = job.train(job.work("straight"), 4, "threads", SETTINGS)
    wishes = ["2:clever", "3:too_many.yaml", "3:absent.yaml", "5:./absent.so", "6:order=clever"]
    run = job.train(folder_with_files("refused"), 4, "threads", SETTINGS, arguments(wishes))
    job.expect_same_metrics(run, straight, 10)
    job.expect_same_files(run.run_dir / "step-10", straight.run_dir / "step-10")
    log = (run.run_dir / "train.log").read_text()
    for words in (
        'not switched to clever: placement policy "clever" is not known',
        "not switched to too_many.yaml: placement policy manual: placement.llm: tp 2",
        "not switched to absent.yaml: absent.yaml: No such file",
        "not switched to ./absent.so: policy ./absent.so cannot be loaded",
        'not switched to order=clever: order policy "clever" is not known',
    ):
        job.expect(words in log and words in run.output(), f"it did not say '{words}'")


def claim_a_resumed_run_takes_up_its_switches():
    straight = job.train(folder_with_files("whole"), 4, "threads", SETTINGS, arguments(SWITCHES))
    folder = folder_with_files("halves")
    job.train(folder, 4, "threads", SETTINGS, arguments(SWITCHES) + ["--steps", "7"])
    run = job.train(folder, 4, "threads", SETTINGS, arguments(SWITCHES) + ["--resume"])
    job.expect_same_metrics(run, straight, 10, tolerance=1e-5)


def claim_a_wish_without_a_step_is_refused():
    run = job.start(job.work("misuse"), 1, "threads", job.ONE_RANK, ["--switch", "colocated"])
    run.expect(2, "--switch colocated: write it as STEP:POLICY")


for claim in list(globals().values()):
    if callable(claim) and getattr(claim, "__name__", "").startswith("claim_"):
        claim.without_mpi = "claim_over_" not in claim.__name__
job.main(globals())
