# SPDX-License-Identifier: Apache-2.0
"""What a launched job refuses, it refuses once: one rank says the sentence, with file and line where
there is one; all ranks end with the status of a wrong call or configuration."""
import job


def expect_one_sentence(name, *texts, settings=None, arguments=(), status=2):
    run = job.start(job.work(name), 4, "mpirun", dict(job.FOUR_RANKS, **(settings or {})), arguments)
    expect_said_once(run, status, *texts)


def expect_said_once(run, status, *texts):
    run.expect(status, *texts)
    said = [line for line in run.output().splitlines() if line.startswith("troupe train: ")]
    job.expect(len(said) == 1, f"{len(said)} ranks say what is wrong: {said}")
    for text in texts:
        job.expect(text in said[0], f"'{said[0]}' is not about '{text}'")
    job.expect(not run.metrics(), "a refused job has trained")


def claim_an_unknown_key():
    folder = job.work("key")
    bad = job.TINY.replace("microbatches: 4", "microbatchs: 4")
    run = job.start(folder, 4, "mpirun", config=bad)
    expect_said_once(run, 2, "tiny.yaml:8: ", "train.microbatchs", "train.microbatches")


def claim_an_unknown_option():
    expect_one_sentence("option", "--stepz", arguments=["--stepz", "3"])


def claim_a_layout_that_does_not_fit_the_ranks():
    expect_one_sentence("ranks", "placement.llm", settings={"placement.llm.tp": 3})


def claim_a_missing_shard():
    settings = {"data.train": "nowhere-*.tar", "data.synthetic.samples": 0}
    expect_one_sentence("shard", "nowhere-*.tar", settings=settings, status=None)


def claim_the_configuration_of_some_ranks_only():
    run = job.start(job.work("some"), 2, "mpirun", job.FOUR_RANKS,
                    last=[":", "-n", "2", job.TROUPE, "train", "missing.yaml"])
    expect_said_once(run, None, "missing.yaml")


job.main(globals())
