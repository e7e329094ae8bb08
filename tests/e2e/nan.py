# SPDX-License-Identifier: Apache-2.0
"""A value that is not finite stops the run on every rank before anything is updated, and the message
names the first module that produced one. The test writes a NaN into a checkpoint's weights."""
import json
import struct

import job


def set_nan(path, tensor_name):
    """Sets the first element of a float32 tensor in a safetensors file."""
    with open(path, "r+b") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        header = json.loads(file.read(length))
        entry = header[tensor_name]
        job.expect(entry["dtype"] == "F32", f"{tensor_name} is {entry['dtype']}")
        file.seek(8 + length + entry["data_offsets"][0])
        file.write(struct.pack("<f", float("nan")))


def expect_stop(name, ranks, launcher, tensor, module):
    settings = job.FOUR_RANKS if ranks == 4 else job.ONE_RANK
    folder = job.work(name)
    job.train(folder, ranks, launcher, settings, ["--steps", "2"])
    set_nan(folder / "run" / "step-2" / "model.safetensors", tensor)
    run = job.start(folder, ranks, launcher, settings, ["--resume"])
    run.expect(1, f"step 3: {module} is the first module whose output is not finite")
    job.expect(len(run.metrics()) == 2, "a step with a NaN is in the metrics")
    job.expect(run.checkpoints() == [2], f"checkpoints {run.checkpoints()}")


def claim_projector_on_one_rank():
    expect_stop("projector", 1, "threads", "projector.up.weight", "projector")


def claim_encoder_on_four_threads():
    expect_stop("vision", 4, "threads", "vision.layers.1.mlp.up.weight", "vision")


def claim_projector_under_mpirun():
    expect_stop("mpirun", 4, "mpirun", "projector.up.weight", "projector")


def claim_language_model_under_mpirun():
    expect_stop("llm", 4, "mpirun", "llm.layers.3.mlp.up.weight", "llm")


claim_projector_on_one_rank.without_mpi = True
claim_encoder_on_four_threads.without_mpi = True
job.main(globals())
