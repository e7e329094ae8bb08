# SPDX-License-Identifier: Apache-2.0
"""The simulator beside published step times.

    python3 tests/bench/published.py build/apps/troupe

The step times of Megatron-LM MIMO (arXiv 2605.27678, table A2): 72 H100, sequence 8192, global
batch 288, encoder and language model homogeneous (one grid) or colocated, each with its own. The
rows that `troupe sim` cannot express are named at the end with what is missing.

The cluster is the default roofline, not fitted to these rows, but for the speed inside a host: the
graph's activations are fp32, the paper's bf16, so links inside carry twice the bytes per second.
Shapes that the paper does not give are those of models of that size: MLP widths, 1024 tokens a
picture, and as many microbatches as give each encoder replica one sample in each. The colocated
order is three_phase, with room for all of the encoder's activations, as the reference has it.
"""
import re
import subprocess
import sys
import tempfile

ENCODERS = {"1B": (40, 1408, 16), "3B": (48, 2304, 32)}  # layers, width, heads; MLP 4 x
LANGUAGE = {"14B": (48, 5120, 40, 13824), "32B": (64, 6144, 48, 24576)}
SEQUENCE, BATCH, RANKS, PICTURE = 8192, 288, 72, 1024
# encoder, language model, pictures' share, TP and DP of the homogeneous grid; encoder TP, DP and
# language model TP, PP, DP of the colocated one; ms homogeneous, ms colocated
ROWS = [
    ("1B", "14B", 50, (4, 18), (2, 36), (2, 2, 18), 7570, 6750),
    ("1B", "14B", 75, (4, 18), (1, 72), (2, 2, 18), 7780, 6840),
    ("3B", "14B", 50, (4, 18), (2, 36), (2, 2, 18), 7850, 6970),
    ("3B", "14B", 75, (4, 18), (1, 72), (2, 2, 18), 8020, 7140),
    ("1B", "32B", 75, (4, 18), (1, 72), (4, 2, 9), 14210, 14380),
    ("3B", "32B", 75, (4, 18), (1, 72), (4, 2, 9), 14370, 12950),
]
MISSING = """not simulated:
  A3 (16 and 32 GPUs): context parallel sizes above 1
  A4 (256 GPUs, 120B and 7.2B): the shapes of these models are not published with them
  Optimus (1536 GPUs): interleaved chunks (VPP 12) of the language model
  full recompute of the 3B encoder: the encoder's forward is counted once"""


def config(encoder, language, share, microbatches):
    layers, width, heads = ENCODERS[encoder]
    depth, hidden, llm_heads, ffn = LANGUAGE[language]
    pictures = SEQUENCE * share // 100 // PICTURE
    text = SEQUENCE - pictures * PICTURE - 2
    return f"""\
model:
  vision: {{layers: {layers}, hidden: {width}, heads: {heads}, patch: 14, image: 448}}
  projector: {{hidden: {hidden}}}
  llm: {{layers: {depth}, hidden: {hidden}, heads: {llm_heads}, ffn: {ffn}, sequence: {SEQUENCE},
        vocabulary: 128000, untied: true}}
data:
  max_images: {pictures}
  synthetic: {{samples: {BATCH}, images_min: {pictures}, images_max: {pictures}, side_min: 448,
              text_min: {text}, text_max: {text}}}
train: {{seed: 1, steps: 1, global_batch: {BATCH}, microbatches: {microbatches}}}
"""


def simulate(troupe, folder, text, encoder, llm, order):
    """Milliseconds of a step, and T/T*."""
    with open(f"{folder}/config.yaml", "w", encoding="utf-8") as file:
        file.write(text)
    with open(f"{folder}/cluster", "w", encoding="utf-8") as file:
        file.write("inside_bytes_per_s: 7.4e+11\n")
    command = [troupe, "sim", f"{folder}/config.yaml", "--ranks", str(RANKS), "--order", order,
               "--cluster", f"{folder}/cluster", "--set", "schedule.slots=16",
               "--set", "schedule.credits=16"]
    for module, (tp, pp, dp) in {"vision": encoder, "llm": llm}.items():
        for key, value in {"ranks": f"0-{RANKS - 1}", "tp": tp, "pp": pp, "dp": dp}.items():
            command += ["--set", f"placement.{module}.{key}={value}"]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    found = re.search(r"^T ([\d.]+) (\w+), .*T/T\* ([\d.]+)", run.stdout, re.MULTILINE)
    if run.returncode != 0 or found is None:
        sys.exit(f"{' '.join(command)}\n{run.stderr}{run.stdout}")
    unit = {"s": 1e3, "ms": 1.0, "us": 1e-3}[found[2]]
    return float(found[1]) * unit, float(found[3])


def main(troupe):
    print("               homogeneous, ms          colocated, ms            gain, %        "
          "colocated with fill")
    print("enc  llm  img  paper   sim  ratio   paper    sim  ratio   paper    sim      ms   T/T*")
    with tempfile.TemporaryDirectory() as folder:
        for encoder, language, share, grid, vision, llm, paper_h, paper_c in ROWS:
            same = (grid[0], 1, grid[1])
            alone = simulate(troupe, folder, config(encoder, language, share, BATCH // grid[1]),
                             same, same, "1f1b")[0]
            text = config(encoder, language, share, BATCH // vision[1])
            mixed = simulate(troupe, folder, text, (vision[0], 1, vision[1]), llm, "three_phase")[0]
            filled, ratio = simulate(troupe, folder, text, (vision[0], 1, vision[1]), llm, "fill")
            print(f"{encoder:4} {language:4} {share:3}  {paper_h:5} {alone:5.0f}  {alone / paper_h:5.2f}"
                  f"   {paper_c:5}  {mixed:5.0f}  {mixed / paper_c:5.2f}"
                  f"   {100 * (paper_h / paper_c - 1):5.1f}  {100 * (alone / mixed - 1):5.1f}"
                  f"   {filled:5.0f}  {ratio:5.3f}")
    print(MISSING)


if len(sys.argv) != 2:
    sys.exit(__doc__)
main(sys.argv[1])
