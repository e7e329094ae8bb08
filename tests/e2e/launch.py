# SPDX-License-Identifier: Apache-2.0
"""Jobs under mpirun over every transport, and a placement policy from a shared object, train as one
rank does. See job.py for the arguments."""
import os

import job

EIGHT_RANKS = {
    "placement.vision.ranks": "0-7",
    "placement.vision.dp": 8,
    "placement.llm.ranks": "0-7",
    "placement.llm.tp": 2,
    "placement.llm.dp": 2,
    "placement.llm.pp": 2,
}


def expect_parity(name, ranks, **options):
    reference = job.train(job.work("reference"), 1, "threads", job.ONE_RANK)
    run = job.train(job.work(name), ranks, **options)
    job.expect_same_metrics(run, reference, 10, tolerance=1e-5)
    return run


def expect_parity_under_mpirun(ranks, provider, settings):
    name = f"mpirun{ranks}_{provider}"
    run = expect_parity(name, ranks, launcher="mpirun", provider=provider, settings=settings)
    for rank in range(ranks):
        job.expect(f"rank {rank}: " in run.output(), f"rank {rank} does not say where it runs")


def claim_mpirun4_shm():
    expect_parity_under_mpirun(4, "shm", job.FOUR_RANKS)


def claim_mpirun4_tcp():
    expect_parity_under_mpirun(4, "tcp", job.FOUR_RANKS)


def claim_mpirun4_mpi():
    expect_parity_under_mpirun(4, "mpi", job.FOUR_RANKS)


def claim_mpirun8_shm():
    expect_parity_under_mpirun(8, "shm", EIGHT_RANKS)


def claim_mpirun8_tcp():
    expect_parity_under_mpirun(8, "tcp", EIGHT_RANKS)


def claim_mpirun8_mpi():
    expect_parity_under_mpirun(8, "mpi", EIGHT_RANKS)


def claim_policy_from_a_shared_object():
    policy = os.path.join(os.path.dirname(job.TROUPE), "examples", "place_interleave.so")
    run = expect_parity("policy", 4, launcher="threads", arguments=["--placement", policy])
    job.expect("on ranks 0 2" in run.output(), "the encoder is not on ranks 0 and 2")
    job.expect("on ranks 1 3" in run.output(), "the language model is not on ranks 1 and 3")


claim_policy_from_a_shared_object.without_mpi = True
job.main(globals())
