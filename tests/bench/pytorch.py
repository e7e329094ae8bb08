# SPDX-License-Identifier: Apache-2.0
"""Trains one model with `troupe train` and with PyTorch, in turns, and prints ratios.

    pytorch.py BUILD_DIRECTORY [--config FILE] [--steps N] [--rounds N] [--threads N]

Each round measures Troupe (a fresh process), then each PyTorch variant (in this process), over the
same steps: the same number of rows of text and pictures in every sample, four microbatches a step,
float32, clipping and AdamW. A round's first WARM steps do not count. What varies between PyTorch
variants is how attention deals with ragged samples; all other operations run on packed rows:

    samples          one scaled_dot_product_attention per sample
    padded           one per microbatch, its samples padded to the longest
    mask             one per microbatch, with a block-diagonal mask
    padded-compiled  as padded, the whole model through torch.compile
    mask-compiled    as mask, the whole model through torch.compile
"""
import argparse
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time

WARM = 2


def read_config(path):
    """The config as a nest of dictionaries; the file keeps to `key: {a: 1, b: 2}` and indentation."""
    import yaml

    with open(path, encoding="utf-8") as file:
        return yaml.safe_load(file)


def microbatches_of(sizes, torch, patch):
    """Tensors of each microbatch of one step; contents are random, sizes are Troupe's."""
    batches = []
    for samples in sizes:
        lengths, token_ids, targets, positions, grids = [], [], [], [], []
        for sample in samples:
            pictures = [(r, c) for r, c in sample["grids"]]
            patches = sum(r * c for r, c in pictures)
            length = patches + sample["text"] + 2
            text = torch.randint(0, 256, (sample["text"],))
            ids = torch.cat([torch.tensor([256]), torch.full((patches,), -1), text, torch.tensor([257])])
            aim = torch.full((length,), -1)
            aim[patches:-1] = ids[patches + 1 :]
            token_ids.append(ids)
            targets.append(aim)
            positions.append(torch.arange(length))
            lengths.append(length)
            grids += pictures
        count = sum(r * c for r, c in grids)
        place = [torch.stack(torch.meshgrid(torch.arange(r), torch.arange(c), indexing="ij")).flatten(1) for r, c in grids]
        token_ids = torch.cat(token_ids)
        batches.append(
            {
                "lengths": lengths,
                "token_ids": token_ids.clamp(min=0),
                "image_rows": (token_ids < 0).nonzero().flatten(),
                "targets": torch.cat(targets),
                "positions": torch.cat(positions),
                "picture_lengths": [r * c for r, c in grids],
                "patches": torch.randint(0, 256, (count, patch * patch * 3), dtype=torch.uint8),
                "place": torch.cat(place, dim=1),
            }
        )
    return batches


def build(torch, config):
    nn, F = torch.nn, torch.nn.functional
    vision, llm = config["model"]["vision"], config["model"]["llm"]

    class Plan:
        """How the rows of one microbatch attend, worked out once for all layers."""

        def __init__(self, lengths, causal, how):
            self.lengths, self.causal, self.how = lengths, causal, how
            rows = sum(lengths)
            segment = torch.repeat_interleave(torch.arange(len(lengths)), torch.tensor(lengths))
            if how == "mask":
                self.mask = segment[:, None] == segment[None, :]
                if causal:
                    self.mask &= torch.ones(rows, rows, dtype=torch.bool).tril()
            elif how == "padded":
                longest = max(lengths)
                start = torch.tensor([0] + lengths[:-1]).cumsum(0)
                self.rows = segment * longest + torch.arange(rows) - start[segment]
                self.shape = (len(lengths), longest)
                self.mask = (torch.arange(longest) < torch.tensor(lengths)[:, None])[:, None, None, :]
                if causal:
                    self.mask = None  # what follows the sample comes later than any row of it

        def attend(self, q, k, v):
            """q: (N, heads, D); k, v: (N, kv_heads, D)."""
            gqa = q.shape[1] != k.shape[1]
            sdpa = F.scaled_dot_product_attention
            if self.how == "mask":
                q, k, v = (x.transpose(0, 1).unsqueeze(0) for x in (q, k, v))
                return sdpa(q, k, v, attn_mask=self.mask, enable_gqa=gqa)[0].transpose(0, 1)
            if self.how == "padded":
                count, longest = self.shape
                spread = lambda x: (
                    x.new_zeros(count * longest, *x.shape[1:])
                    .index_copy(0, self.rows, x)
                    .view(count, longest, *x.shape[1:])
                    .transpose(1, 2)
                )
                o = sdpa(
                    spread(q), spread(k), spread(v), attn_mask=self.mask, is_causal=self.causal, enable_gqa=gqa
                )
                return o.transpose(1, 2).reshape(count * longest, *q.shape[1:]).index_select(0, self.rows)
            outputs = []
            for q1, k1, v1 in zip(q.split(self.lengths), k.split(self.lengths), v.split(self.lengths)):
                q1, k1, v1 = (x.transpose(0, 1).unsqueeze(0) for x in (q1, k1, v1))
                outputs.append(sdpa(q1, k1, v1, is_causal=self.causal, enable_gqa=gqa)[0].transpose(0, 1))
            return torch.cat(outputs)

    class Attention(nn.Module):
        def __init__(self, hidden, heads, kv_heads, bias):
            super().__init__()
            self.heads, self.kv_heads, self.dim = heads, kv_heads, hidden // heads
            self.qkv = nn.Linear(hidden, (heads + 2 * kv_heads) * self.dim, bias=bias)
            self.o = nn.Linear(hidden, hidden, bias=bias)

        def forward(self, x, plan, turn=None):
            qkv = self.qkv(x).view(x.shape[0], -1, self.dim)
            if turn is not None:
                cos, sin = turn
                qk, v = qkv.split([self.heads + self.kv_heads, self.kv_heads], dim=1)
                low, high = qk.chunk(2, dim=-1)
                qk = torch.cat([low * cos - high * sin, high * cos + low * sin], dim=-1)
                q, k = qk.split([self.heads, self.kv_heads], dim=1)
            else:
                q, k, v = qkv.split([self.heads, self.kv_heads, self.kv_heads], dim=1)
            return self.o(plan.attend(q, k, v).reshape(x.shape))

    class VisionLayer(nn.Module):
        def __init__(self):
            super().__init__()
            hidden = vision["hidden"]
            self.norm1, self.norm2 = nn.LayerNorm(hidden), nn.LayerNorm(hidden)
            self.attention = Attention(hidden, vision["heads"], vision["heads"], True)
            self.up, self.down = nn.Linear(hidden, 4 * hidden), nn.Linear(4 * hidden, hidden)

        def forward(self, x, plan):
            x = x + self.attention(self.norm1(x), plan)
            return x + self.down(F.gelu(self.up(self.norm2(x))))

    class TextLayer(nn.Module):
        def __init__(self):
            super().__init__()
            hidden = llm["hidden"]
            self.norm1, self.norm2 = nn.RMSNorm(hidden, 1e-5), nn.RMSNorm(hidden, 1e-5)
            self.attention = Attention(hidden, llm["heads"], llm["kv_heads"], False)
            self.gate_up = nn.Linear(hidden, 2 * llm["ffn"], bias=False)
            self.down = nn.Linear(llm["ffn"], hidden, bias=False)

        def forward(self, x, plan, turn):
            x = x + self.attention(self.norm1(x), plan, turn)
            gate, up = self.gate_up(self.norm2(x)).chunk(2, dim=-1)
            return x + self.down(F.silu(gate) * up)

    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            side, width = vision["image"] // vision["patch"], config["model"]["projector"]["hidden"]
            self.patch = nn.Linear(vision["patch"] ** 2 * 3, vision["hidden"])
            self.position = nn.Parameter(torch.randn(side, side, vision["hidden"]) * 0.02)
            self.vision = nn.ModuleList(VisionLayer() for _ in range(vision["layers"]))
            self.vision_norm = nn.LayerNorm(vision["hidden"])
            self.up, self.down = nn.Linear(vision["hidden"], width), nn.Linear(width, llm["hidden"])
            self.embedding = nn.Embedding(261, llm["hidden"])
            nn.init.normal_(self.embedding.weight, std=0.02)
            self.llm = nn.ModuleList(TextLayer() for _ in range(llm["layers"]))
            self.norm = nn.RMSNorm(llm["hidden"], 1e-5)
            half = llm["hidden"] // llm["heads"] // 2
            angle = torch.arange(llm["sequence"])[:, None] * 10000 ** (-torch.arange(half) / half)
            self.register_buffer("cos", angle.cos()[:, None])
            self.register_buffer("sin", angle.sin()[:, None])

        def forward(self, batch, pictures, samples):
            """Sum of -log p over the targets of one microbatch."""
            p = self.patch((batch["patches"].float() / 255 - 0.5) / 0.5)
            p = p + self.position[batch["place"][0], batch["place"][1]]
            for layer in self.vision:
                p = layer(p, pictures)
            p = self.down(F.gelu(self.up(self.vision_norm(p))))
            x = self.embedding(batch["token_ids"]).index_copy(0, batch["image_rows"], p)
            turn = self.cos[batch["positions"]], self.sin[batch["positions"]]
            for layer in self.llm:
                x = layer(x, samples, turn)
            logits = F.linear(self.norm(x), self.embedding.weight)
            return F.cross_entropy(logits, batch["targets"], ignore_index=-1, reduction="sum")

    return Model, Plan


class PyTorchTrainer:
    """One PyTorch variant: run(steps) trains and returns the seconds of each step."""

    def __init__(self, torch, config, how, compiled):
        self.torch, self.config, self.how = torch, config, how
        Model, self.Plan = build(torch, config)
        self.model = Model()
        self.loss = torch.compile(self.model, dynamic=True) if compiled else self.model
        train = config["train"]
        matrices = [p for p in self.model.parameters() if p.dim() > 1]
        vectors = [p for p in self.model.parameters() if p.dim() == 1]
        self.optimizer = torch.optim.AdamW(
            [{"params": matrices, "weight_decay": 0.1}, {"params": vectors, "weight_decay": 0.0}],
            lr=train["lr"],
            betas=(0.9, 0.95),
            fused=True,
        )

    def step(self, batches):
        targets = sum(int((b["targets"] >= 0).sum()) for b in batches)
        self.optimizer.zero_grad(set_to_none=True)
        total = 0.0
        for batch in batches:
            tensors = {k: v for k, v in batch.items() if not isinstance(v, list)}
            pictures = self.Plan(batch["picture_lengths"], False, self.how)
            samples = self.Plan(batch["lengths"], True, self.how)
            loss = self.loss(tensors, pictures, samples) / targets
            loss.backward()
            total += loss.item()
        clip = self.config["train"]["clip"]
        self.torch.nn.utils.clip_grad_norm_(self.model.parameters(), clip)
        self.optimizer.step()
        return total

    def run(self, steps):
        seconds = []
        for batches in steps:
            start = time.perf_counter()
            self.last_loss = self.step(batches)
            seconds.append(time.perf_counter() - start)
        return seconds


class TroupeTrainer:
    def __init__(self, build_directory, path, threads):
        self.program = os.path.join(build_directory, "apps", "troupe")
        self.path, self.threads = path, threads

    def run(self, steps):
        with tempfile.TemporaryDirectory() as directory:
            settings = {"train.steps": len(steps), "train.workers": self.threads, "train.run_dir": directory}
            command = [self.program, "train", self.path]
            for key, value in settings.items():
                command += ["--set", f"{key}={value}"]
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
            with open(os.path.join(directory, "metrics.jsonl"), encoding="utf-8") as file:
                lines = [json.loads(line) for line in file]
        self.last_loss = lines[-1]["loss"]
        self.flops = [line["model_tflops"] * line["step_ms"] * 1e9 for line in lines]
        self.tokens = [line["tokens"] for line in lines]
        return [line["step_ms"] * 1e-3 for line in lines]


def interval(values):
    """Median and a 95 % bootstrap interval of it."""
    draw = random.Random(1)
    medians = sorted(statistics.median(draw.choices(values, k=len(values))) for _ in range(2000))
    return statistics.median(values), medians[50], medians[-51]


def main():
    here = os.path.dirname(os.path.abspath(__file__))
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("build")
    parser.add_argument("--config", default=os.path.join(here, "pytorch.yaml"))
    parser.add_argument("--steps", type=int, default=8, help="of a round, the first %d are not counted" % WARM)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--variants", default="samples,padded,padded-compiled,mask-compiled")
    options = parser.parse_args()

    import torch

    torch.set_num_threads(options.threads)
    torch.manual_seed(1)
    config = read_config(options.config)
    batches = os.path.join(options.build, "tests", "bench", "bench.batches")
    sizes = json.loads(
        subprocess.run([batches, options.config, str(options.steps)], check=True, capture_output=True).stdout
    )
    steps = [microbatches_of(step, torch, config["model"]["vision"]["patch"]) for step in sizes]
    trainers = {"troupe": TroupeTrainer(options.build, options.config, options.threads)}
    for name in options.variants.split(","):
        how, _, compiled = name.partition("-")
        trainers[name] = PyTorchTrainer(torch, config, how, compiled == "compiled")
    for trainer in trainers.values():
        trainer.run(steps[:1] if isinstance(trainer, TroupeTrainer) else steps)  # compiles, fills caches
    parameters = sum(p.numel() for p in trainers[options.variants.split(",")[0]].model.parameters())

    seconds = {name: [] for name in trainers}
    for _ in range(options.rounds):
        for name, trainer in trainers.items():
            seconds[name].append(trainer.run(steps)[WARM:])

    tokens = trainers["troupe"].tokens[WARM:]
    flops = trainers["troupe"].flops[WARM:]
    assert sum(sum(b["lengths"]) for b in steps[-1]) == tokens[-1], "the batches are not the same"
    print(f"PyTorch {torch.__version__}, {options.threads} threads, {parameters} parameters, "
          f"{statistics.mean(tokens):.0f} tokens a step, {options.rounds} rounds of {len(tokens)} steps, "
          f"load {os.getloadavg()[0]:.1f}")
    print(f"{'':15} {'tokens/s':>9} {'95 % interval':>17} {'GFLOP/s':>8} {'ms/step':>8} {'quiet':>7}  troupe is faster by   quiet")
    rate, quiet = {}, {}
    for name in trainers:
        values = [t / s for round_ in seconds[name] for t, s in zip(tokens, round_)]
        rate[name] = interval(values)
        median, low, high = rate[name]
        per_token = sum(flops) / sum(tokens)
        ms = statistics.median(s for round_ in seconds[name] for s in round_) * 1e3
        # Other load only ever adds time: each step at its quickest is the machine to itself.
        quiet[name] = sum(min(step) for step in zip(*seconds[name]))
        # Rounds are neighbours in time, so their ratio suffers least from other load.
        ratios = [sum(b) / sum(a) for a, b in zip(seconds["troupe"], seconds[name])]
        ratio, ratio_low, ratio_high = interval(ratios)
        print(f"{name:15} {median:9.0f} {low:8.0f}-{high:8.0f} {median * per_token * 1e-9:8.1f} {ms:8.1f} "
              f"{sum(tokens) / quiet[name]:7.0f}  {ratio:.2f} ({ratio_low:.2f}-{ratio_high:.2f})"
              f"  {quiet[name] / quiet['troupe']:13.2f}")


main()
