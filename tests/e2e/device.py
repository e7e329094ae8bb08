# SPDX-License-Identifier: Apache-2.0
"""`troupe train` on a device gives the losses of the CPU, in every layout and placement.

Claims named sim_... run a tiny model on the simulated device, anywhere; those named cuda_... the
model of the demo on a GPU, which the processes share. Every key is given by --set, so that it also
works in a build that reads no config files, on synthetic samples.
"""
import os
import re
import shutil

import job

job.LIMIT_S = 150
STEPS = 20
TINY = {
    "model.vision.layers": 2, "model.vision.hidden": 24, "model.vision.heads": 4,
    "model.vision.ffn": 40, "model.vision.patch": 4, "model.vision.image": 16,
    "model.projector.hidden": 20, "model.llm.layers": 4, "model.llm.hidden": 32,
    "model.llm.heads": 4, "model.llm.kv_heads": 4, "model.llm.ffn": 44, "model.llm.sequence": 96,
    "train.global_batch": 8, "train.workers": 1, "data.synthetic.images_max": 3,
}
# apps/demo.yaml, but for its pictures.
DEMO = {
    "model.vision.layers": 3, "model.vision.hidden": 128, "model.vision.heads": 4,
    "model.vision.patch": 8, "model.vision.image": 64, "model.projector.hidden": 256,
    "model.llm.layers": 4, "model.llm.hidden": 192, "model.llm.heads": 6, "model.llm.kv_heads": 2,
    "model.llm.ffn": 512, "model.llm.sequence": 256, "train.global_batch": 32, "train.workers": 4,
    "data.synthetic.images_max": 2,
}
COMMON = {
    "data.max_images": 3, "data.synthetic.samples": 64, "data.synthetic.images_min": 1,
    "data.synthetic.text_min": 3, "data.synthetic.text_max": 30, "data.synthetic.text_only": 0.25,
    "train.run_dir": "run", "train.seed": 1, "train.microbatches": 4, "train.lr": 1e-3,
    "train.lr_min": 1e-4, "train.warmup": 5, "train.weight_decay": 0.1, "train.clip": 1.0,
    "train.eps": 1e-5, "train.steps": STEPS,
}
ONE = {"placement.policy": "homogeneous"}


def place(vision, llm):
    """Ranks and degrees of both: "0-1 dp=2"."""
    settings = {"placement.policy": "manual"}
    for module, text in (("vision", vision), ("llm", llm)):
        ranks, *degrees = text.split()
        settings[f"placement.{module}.ranks"] = ranks
        for degree in degrees:
            name, value = degree.split("=")
            settings[f"placement.{module}.{name}"] = value
    return settings


# name: ranks, settings
LAYOUTS = {
    "one": (1, ONE),
    "two_colocated": (2, place("0-1 dp=2", "0-1 tp=2")),
    "two_disjoint": (2, place("0", "1")),
    "four_colocated": (4, place("0-3 dp=4", "0-3 tp=2 dp=2")),
    "four_disjoint": (4, place("0-1 dp=2", "2-3 tp=2")),
    "four_pipeline": (4, place("0-3 tp=2 dp=2", "0-3 pp=2 dp=2")),
    "three_to_one": (4, place("0-2 dp=3", "3")),
    "mode_static": (4, {**place("0-3 dp=4", "0-3 tp=2 dp=2"), "schedule.mode": "static"}),
    "mode_static_pipeline": (4, {**place("0-3 tp=2 dp=2", "0-3 pp=2 dp=2"),
                                 "schedule.mode": "static"}),
}
references = {}


def start(name, model, device, ranks, settings, more=(), folder=None, launched=False):
    folder = folder or job.work(f"{name}_{device}")
    command = [job.TROUPE, "train", "--device", device, *more]
    for key, value in {**COMMON, **model, **settings}.items():
        command += ["--set", f"{key}={value}"]
    if launched or (device == "cuda" and ranks > 1):  # NCCL wants processes
        command = [job.MPIEXEC, "-n", str(ranks), *command]
    else:
        command += ["--ranks", str(ranks)]
    return job.Run(folder, command, dict(os.environ))


def reference_of(model_name, model):
    """The run of one rank on the CPU."""
    if model_name not in references:
        references[model_name] = start(model_name, model, "cpu", 1, ONE).expect(0)
    return references[model_name]


def expect_close(run, reference, tolerance):
    found, wanted = run.metrics(), reference.metrics()
    job.expect([step["step"] for step in found] == list(range(1, STEPS + 1)), "steps are missing")
    worst = max(abs(a["loss"] - b["loss"]) / b["loss"] for a, b in zip(found, wanted))
    print(f"    losses differ by at most {worst:.2g}", flush=True)
    job.expect(worst <= tolerance, f"a loss differs by {worst:.3g}")


def model_of(device):
    return ("tiny", TINY) if device == "sim" else ("demo", DEMO)


def finish(run):
    """To a good end, where there is such a device."""
    status = run.wait()
    if "no cuda devices" in run.output():
        raise job.Skipped("there is no GPU")
    job.expect(status == 0, f"exit status {status}")
    return run


def flows(run):
    """How many flows of messages go from device to device, and how many through host memory."""
    found = re.search(r"one machine: (\d+) flows .*, (\d+) through", run.output())
    return (int(found[1]), int(found[2])) if found else (0, 0)


def compare(layout, device, tolerance, launched=False):
    model_name, model = model_of(device)
    ranks, settings = LAYOUTS[layout]
    run = finish(start(f"{model_name}_{layout}", model, device, ranks, settings, launched=launched))
    direct, staged = flows(run)
    found, wanted = run.metrics(), reference_of(model_name, model).metrics()
    job.expect(len(found) == len(wanted) == STEPS, f"{len(found)} and {len(wanted)} steps")
    worst = max(abs(a["loss"] - b["loss"]) / b["loss"] for a, b in zip(found, wanted))
    for step in found:
        schedule = step["schedule"]
        job.expect(schedule["ratio"] >= 1, f"{layout}: T is {schedule['ratio']} T*")
        job.expect(max(schedule["busy_ms"]) <= schedule["t_ms"] * 1.0001, "a rank is busy beyond T")
    step = sorted(found[5:], key=lambda step: step["step_ms"])[(len(found) - 5) // 2]
    parts = ", ".join(f"{name} {sum(step[name + '_ms'].values()):.1f}"
                      for name in ("compute", "launch", "wait"))
    print(f"    {layout}: losses {found[0]['loss']:.5f} to {found[-1]['loss']:.5f}, differ by at most "
          f"{worst:.2g}; {step['step_ms']:.1f} ms a step, all ranks together: {parts}, "
          f"copies {step['copy_ms']:.2f} ms; {direct} flows direct, {staged} by host", flush=True)
    job.expect(worst <= tolerance, f"{layout}: a loss differs by {worst:.3g}")
    return direct, staged


def claim_sim_layouts():
    for layout, (ranks, _) in LAYOUTS.items():
        direct, staged = compare(layout, "sim", 1e-5)
        job.expect(staged == 0 and (direct > 0) == (ranks > 1), f"{direct} flows, {staged} by host")


def claim_sim_processes():
    """Processes share no simulated memory: messages go through that of the host."""
    if not job.MPIEXEC:
        return
    direct, staged = compare("two_disjoint", "sim", 1e-5, launched=True)
    job.expect(direct == 0 and staged > 0, f"{direct} flows, {staged} by host")


def switch_and_resume(device, tolerance):
    """A job goes through three placements; what it saved in the second goes on in a fourth, there
    with messages through host memory."""
    model_name, model = model_of(device)
    ranks, first = LAYOUTS["four_colocated"]
    folder = job.work(f"{model_name}_switch_{device}")
    run = finish(start("switch", model, device, ranks, {**first, "train.checkpoint_every": 10},
                       ["--switch", "5:disjoint", "--switch", "12:homogeneous"], folder))
    text = run.output()
    job.expect(text.count("switched to") == 2, "it has not switched twice")
    expect_close(run, reference_of(model_name, model), tolerance)
    shutil.rmtree(run.run_dir / f"step-{STEPS}")
    ranks, last = LAYOUTS["three_to_one"]
    again = finish(start("switch", model, device, ranks, {**last, "comm.windows": "false"},
                         ["--resume"], folder))
    job.expect(flows(again)[0] == 0, "messages go from device to device in spite of comm.windows")
    expect_close(again, reference_of(model_name, model), tolerance)


def claim_sim_switch():
    switch_and_resume("sim", 1e-5)


def claim_cuda_switch():
    switch_and_resume("cuda", 1e-4)


def claim_cuda_layouts():
    for layout in LAYOUTS:
        compare(layout, "cuda", 1e-4)


def claim_sim_checkpoint():
    """Weights pass through checkpoints of a device: the files are those of the CPU."""
    runs = [start("files", TINY, device, 2, LAYOUTS["two_colocated"][1]).expect(0)
            for device in ("sim", "cpu")]
    names = [f"{name}.safetensors" for name in ("model", "optimizer-m", "optimizer-v")]
    for name in names:
        a, b = (run.run_dir / f"step-{STEPS}" / name for run in runs)
        job.expect(a.read_bytes() == b.read_bytes(), f"{name} differs")


for claim in (claim_sim_layouts, claim_sim_checkpoint, claim_sim_processes, claim_sim_switch):
    claim.without_mpi = True
job.main(globals())
