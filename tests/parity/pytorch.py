# SPDX-License-Identifier: Apache-2.0
"""Compares the single-rank model with PyTorch: loss, every gradient, five AdamW steps.

    pytorch.py PARITY_MODEL_PROGRAM WORK_DIRECTORY

The model below is written from its definition in float64, sample by sample and picture by picture,
with PyTorch's own autograd, clipping and AdamW. Exit status 77: PyTorch is not installed.
"""
import json
import os
import struct
import subprocess
import sys

try:
    import numpy
    import torch
    import torch.nn.functional as F
except ImportError:
    sys.exit(77)

TOLERANCE = 1e-4
NORM_TOLERANCE = 1e-6


def read_safetensors(path):
    with open(path, "rb") as file:
        data = file.read()
    (length,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + length])
    metadata = header.pop("__metadata__")
    body = memoryview(data)[8 + length :]
    assert sum(e["data_offsets"][1] - e["data_offsets"][0] for e in header.values()) == len(body)
    tensors = {}
    for name, entry in header.items():
        assert entry["dtype"] == "F32"
        begin, end = entry["data_offsets"]
        array = numpy.frombuffer(body[begin:end], dtype="<f4").reshape(entry["shape"])
        tensors[name] = torch.from_numpy(array.astype(numpy.float64))
    return tensors, metadata


def group(tensors, prefix):
    return {n[len(prefix) + 1 :]: t for n, t in tensors.items() if n.startswith(prefix + "/")}


def attend(q, k, v, heads, kv_heads, causal):
    """q: (T, heads * D), k, v: (T, kv_heads * D); one segment."""
    length = q.shape[0]
    split = lambda x, n: x.view(length, n, -1).transpose(0, 1)
    q = split(q, heads)
    k = split(k, kv_heads).repeat_interleave(heads // kv_heads, dim=0)
    v = split(v, kv_heads).repeat_interleave(heads // kv_heads, dim=0)
    scores = q @ k.transpose(1, 2) / q.shape[-1] ** 0.5
    if causal:
        above = torch.ones(length, length, dtype=torch.bool).triu(1)
        scores = scores.masked_fill(above, float("-inf"))
    return (scores.softmax(-1) @ v).transpose(0, 1).reshape(length, -1)


def rotate(x, heads, theta):
    """Half-split rotary positions 0, 1, ... of one sequence."""
    length = x.shape[0]
    x = x.view(length, heads, -1)
    half = x.shape[-1] // 2
    frequency = theta ** (-torch.arange(half, dtype=x.dtype) / half)
    angle = (torch.arange(length, dtype=x.dtype)[:, None] * frequency)[:, None, :]
    low, high = x[..., :half], x[..., half:]
    turned = (low * angle.cos() - high * angle.sin(), high * angle.cos() + low * angle.sin())
    return torch.cat(turned, dim=-1).reshape(length, -1)


def rms_norm(x, weight, epsilon):
    return x / (x.pow(2).mean(-1, keepdim=True) + epsilon).sqrt() * weight


def encode_picture(w, sizes, pixels):
    """pixels: (height, width, 3) in 0 .. 255; one row per patch, line by line."""
    patch, hidden, heads = sizes["patch"], sizes["hidden"], sizes["heads"]
    rows, columns = pixels.shape[0] // patch, pixels.shape[1] // patch
    x = (pixels / 255 - 0.5) / 0.5
    x = x.view(rows, patch, columns, patch, 3).transpose(1, 2).reshape(rows * columns, -1)
    linear = lambda x, name: F.linear(x, w[name + ".weight"], w[name + ".bias"])
    norm = lambda x, name: F.layer_norm(x, (hidden,), w[name + ".weight"], w[name + ".bias"], 1e-5)
    x = linear(x, "vision.patch")
    x = x + w["vision.position.weight"][:rows, :columns].reshape(rows * columns, hidden)
    for i in range(sizes["layers"]):
        layer = f"vision.layers.{i}"
        h = norm(x, layer + ".norm1")
        q, k, v = (linear(h, f"{layer}.attention.{n}") for n in "qkv")
        x = x + linear(attend(q, k, v, heads, heads, False), layer + ".attention.o")
        h = norm(x, layer + ".norm2")
        x = x + linear(F.gelu(linear(h, layer + ".mlp.up")), layer + ".mlp.down")
    x = norm(x, "vision.norm")
    return linear(F.gelu(linear(x, "projector.up")), "projector.down")


def decode_sample(w, sizes, x):
    """x: (T, hidden) fused rows of one sample; returns logits."""
    heads, kv_heads = sizes["heads"], sizes["kv_heads"]
    for i in range(sizes["layers"]):
        layer = f"llm.layers.{i}"
        h = rms_norm(x, w[layer + ".norm1.weight"], sizes["epsilon"])
        q, k, v = (h @ w[f"{layer}.attention.{n}.weight"].T for n in "qkv")
        q, k = rotate(q, heads, sizes["theta"]), rotate(k, kv_heads, sizes["theta"])
        x = x + attend(q, k, v, heads, kv_heads, True) @ w[layer + ".attention.o.weight"].T
        h = rms_norm(x, w[layer + ".norm2.weight"], sizes["epsilon"])
        inner = F.silu(h @ w[layer + ".mlp.gate.weight"].T) * (h @ w[layer + ".mlp.up.weight"].T)
        x = x + inner @ w[layer + ".mlp.down.weight"].T
    x = rms_norm(x, w["llm.norm.weight"], sizes["epsilon"])
    return x @ w["llm.head.weight" if sizes["untied"] else "llm.embedding.weight"].T


def loss_sum(w, model, batch):
    """Sum of -log p over the targets of one microbatch, and their number."""
    token_ids, targets = batch["token_ids"].long(), batch["targets"].long()
    patch = model["vision"]["patch"]
    x = F.embedding(token_ids.clamp(min=0), w["llm.embedding.weight"])
    pictures, offset = [], 0
    for rows, columns in zip(batch["grid_rows"].long(), batch["grid_columns"].long()):
        count = int(rows * columns) * patch * patch * 3
        pixels = batch["pixels"][offset : offset + count]
        pictures.append(encode_picture(w, model["vision"], pixels.view(rows * patch, columns * patch, 3)))
        offset += count
    if pictures:
        x = x.index_copy(0, batch["image_rows"].long(), torch.cat(pictures))
    cu_len = batch["cu_len"].long().tolist()
    logits = torch.cat([decode_sample(w, model["llm"], x[a:b]) for a, b in zip(cu_len, cu_len[1:])])
    return F.cross_entropy(logits, targets, ignore_index=-1, reduction="sum"), int((targets >= 0).sum())


class Report:
    """Largest error over its tolerance, so that 1 is the limit."""

    def __init__(self):
        self.failed = False

    def check(self, what, error, limit):
        ok = error <= limit
        self.failed |= not ok
        if not ok:
            print(f"  FAILED {what}: error {error:.3g}, limit {limit:.3g}")
        return error / limit if limit > 0 else float(error > 0)

    def tensors(self, what, ours, theirs, norm):
        worst, name_of_worst = 0.0, ""
        assert ours.keys() == theirs.keys(), sorted(ours.keys() ^ theirs.keys())
        for name, reference in theirs.items():
            if name.endswith("attention.k.bias"):
                continue  # its gradient is mathematically zero
            limit = TOLERANCE * float(reference.abs().max()) + NORM_TOLERANCE * norm
            share = self.check(f"{what} {name}", float((ours[name] - reference).abs().max()), limit)
            if share > worst:
                worst, name_of_worst = share, name
        print(f"  {what}: {len(theirs)} tensors, largest error {worst:.3g} of its limit ({name_of_worst})")


def compare(program, path, kind):
    print(f"{kind}:")
    subprocess.run([program, path, kind], check=True)
    tensors, metadata = read_safetensors(path)
    model, training = json.loads(metadata["model"]), json.loads(metadata["training"])
    batches = [group(tensors, f"batch{k}") for k in range(training["microbatches"])]
    steps = group(tensors, "steps")
    weights = {n: t.clone().requires_grad_() for n, t in group(tensors, "weights").items()}
    # Vectors (norms and biases) do not decay.
    optimizer = torch.optim.AdamW(
        [
            {"params": [t for n, t in weights.items() if t.dim() > 1], "weight_decay": training["decay"]},
            {"params": [t for n, t in weights.items() if t.dim() == 1], "weight_decay": 0.0},
        ],
        betas=(training["beta1"], training["beta2"]),
        eps=training["epsilon"],
    )
    report = Report()
    for step, lr in enumerate(steps["lr"].tolist()):
        optimizer.zero_grad()
        sums = [loss_sum(weights, model, batch) for batch in batches]
        loss = sum(s for s, _ in sums) / sum(n for _, n in sums)
        loss.backward()
        norm = float(torch.nn.utils.clip_grad_norm_(list(weights.values()), float("inf")))
        if step == 0:
            gradients = {n: t.grad.clone() for n, t in weights.items()}
            report.tensors("gradients", group(tensors, "gradients"), gradients, norm)
        for what, ours, theirs in (
            ("loss", steps["loss"][step], loss.item()),
            ("norm", steps["norm"][step], norm),
        ):
            error = abs(float(ours) - theirs)
            report.check(f"step {step + 1} {what}", error, TOLERANCE * abs(theirs))
            print(f"  step {step + 1} {what} {theirs:.6f}, relative error {error / abs(theirs):.2g}")
        assert step > 0 or norm > training["clip"], "clipping is not exercised"
        torch.nn.utils.clip_grad_norm_(list(weights.values()), training["clip"])
        for entry in optimizer.param_groups:
            entry["lr"] = lr
        optimizer.step()
    final = {n: t.detach() for n, t in weights.items()}
    report.tensors("final parameters", group(tensors, "final"), final, 0.0)
    return not report.failed


def main():
    program, directory = sys.argv[1:]
    torch.set_num_threads(1)
    os.makedirs(directory, exist_ok=True)
    good = [compare(program, os.path.join(directory, f"{k}.safetensors"), k) for k in ("tied", "untied")]
    sys.exit(0 if all(good) else 1)


main()
