#!/usr/bin/env python3
"""Runs on a CUDA machine with PyTorch 2.11 alone: parity of CPU and GPU, speed beside PyTorch's eager loop, latencies.

    python gpu_check.py FOLDER OUT DEVICE [--tiny]

FOLDER holds the programs `gpu-check` and `thinet`. Writes OUT/gpu-check.md, gpu-check.csv and env.json. Started by run.sh,
which sets the library path. --tiny: a few seconds of everything, to check that the folder works.
"""

import csv
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional as F

FOLDER, OUT, DEVICE = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]
TINY = "--tiny" in sys.argv
BATCH = 2 if TINY else 64
SECONDS = 0.5 if TINY else 4
ROUNDS = 1 if TINY else 3
MODELS = ["vgg16", "thinet-conv", "thinet-gap", "thinet-tiny", "resnet50", "thinet-70", "thinet-50", "thinet-30"]
# Differences up to this size are rounding: other algorithms add in another order.
TOLERANCE = 1e-3
# A figure that rounding alone moves by more than this cannot be compared with the tolerance.
MOST_NOISE = TOLERANCE / 10
FAILED = "DOES NOT HOLD"
rows = []


def note(section, name, metric, value, unit="", remark=""):
    rows.append((section, name, metric, value, unit, remark))
    print(f"{section:<12} {name:<28} {metric:<58} {value} {unit} {remark}", flush=True)


def program(name, *arguments):
    done = subprocess.run([FOLDER / name, *map(str, arguments)], capture_output=True, text=True)
    if done.returncode != 0:
        raise RuntimeError(done.stderr.strip().splitlines()[-1] if done.stderr.strip() else f"status {done.returncode}")
    return json.loads(done.stdout)


def vgg16_gap():
    layers, channels = [], 3
    for stage, (convs, filters) in enumerate([(2, 64), (2, 128), (3, 256), (3, 512), (3, 512)]):
        for _ in range(convs):
            layers += [nn.Conv2d(channels, filters, 3, padding=1), nn.ReLU(inplace=True)]
            channels = filters
        layers.append(nn.MaxPool2d(2) if stage < 4 else nn.AvgPool2d(14))
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(512, 1000))


def vgg16():
    layers = list(vgg16_gap())[:-3] + [nn.MaxPool2d(2), nn.Flatten()]
    head = [nn.Linear(512 * 49, 4096), nn.ReLU(True), nn.Dropout(), nn.Linear(4096, 4096), nn.ReLU(True), nn.Dropout()]
    return nn.Sequential(*layers, *head, nn.Linear(4096, 1000))


class Bottleneck(nn.Module):
    def __init__(self, inputs, inner, stride, project):
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(inputs, inner, 1, stride, bias=False), nn.BatchNorm2d(inner), nn.ReLU(True),
            nn.Conv2d(inner, inner, 3, 1, 1, bias=False), nn.BatchNorm2d(inner), nn.ReLU(True),
            nn.Conv2d(inner, 4 * inner, 1, bias=False), nn.BatchNorm2d(4 * inner),
        )  # fmt: skip
        self.side = nn.Identity()
        if project:
            self.side = nn.Sequential(nn.Conv2d(inputs, 4 * inner, 1, stride, bias=False), nn.BatchNorm2d(4 * inner))

    def forward(self, x):
        return F.relu(self.body(x) + self.side(x), inplace=True)


def resnet50():
    layers = [nn.Conv2d(3, 64, 7, 2, 3, bias=False), nn.BatchNorm2d(64), nn.ReLU(True), nn.MaxPool2d(3, 2, 1)]
    channels = 64
    for stage, (blocks, inner) in enumerate([(3, 64), (4, 128), (6, 256), (3, 512)]):
        for b in range(blocks):
            layers.append(Bottleneck(channels, inner, 2 if b == 0 and stage > 0 else 1, b == 0))
            channels = 4 * inner
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2048, 1000))


NETS = {"vgg16": vgg16, "vgg16-gap": vgg16_gap, "resnet50": resnet50}


def wait():
    if DEVICE.startswith("cuda"):
        torch.cuda.synchronize()


def speed(once):
    for _ in range(3):
        once()
    wait()
    count, start = 0, time.monotonic()
    while time.monotonic() - start < SECONDS:
        once()
        wait()
        count += 1
    return count * BATCH / (time.monotonic() - start)


def torch_training(name, precision):
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = precision == "bf16"
    layout = torch.channels_last if precision == "bf16" else torch.contiguous_format
    net = NETS[name]().to(DEVICE, memory_format=layout)
    sgd = torch.optim.SGD(net.parameters(), 1e-4, momentum=0.9, weight_decay=5e-4)
    images = torch.randn(BATCH, 3, 224, 224, device=DEVICE).to(memory_format=layout)
    labels = torch.arange(BATCH, device=DEVICE) % 1000

    def once():
        sgd.zero_grad(set_to_none=True)
        with torch.autocast(DEVICE.split(":")[0], torch.bfloat16, enabled=precision == "bf16"):
            logits = net(images)
        loss = F.cross_entropy(logits.float(), labels)
        loss.backward()
        sgd.step()
        loss.item()

    return speed(once)


def torch_forward(name):
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    net = NETS[name]().to(DEVICE).eval()
    images = torch.randn(BATCH, 3, 224, 224, device=DEVICE)
    with torch.no_grad():
        return speed(lambda: net(images))


def beside_torch(section, name, ours, theirs):
    """Rounds in turn, so that a change of the machine's clock hits both."""
    speeds, peak = ([], []), None
    try:
        for _ in range(ROUNDS):
            found = ours()
            peak = found.get("peak_mib") or peak
            speeds[0].append(found["images_per_second"])
            speeds[1].append(theirs())
            if DEVICE.startswith("cuda"):
                torch.cuda.empty_cache()
    except RuntimeError as error:
        note(section, name, "images a second", "not run", "", f"{FAILED}: {error}")
        return
    ours, theirs = map(statistics.median, speeds)
    note(section, name, "ours", f"{ours:.1f}", "images/s")
    note(section, name, "PyTorch eager", f"{theirs:.1f}", "images/s")
    note(section, name, "ours over PyTorch", f"{statistics.median(a / b for a, b in zip(*speeds)):.3f}", "", f"{ROUNDS} rounds")
    if section == "training":
        note(section, name, "peak memory of ours", *((peak, "MiB") if peak else ("not run", "", "reported for GPUs only")))


def device():
    name, remark = platform.processor() or platform.machine(), ""
    if DEVICE.startswith("cuda"):
        index = int(DEVICE.split(":")[1]) if ":" in DEVICE else 0
        name = torch.cuda.get_device_name(index)
        query = ["nvidia-smi", "--query-gpu=driver_version,memory.total", "--format=csv,noheader", f"--id={index}"]
        done = subprocess.run(query, capture_output=True, text=True) if os.path.exists("/usr/bin/nvidia-smi") else None
        remark = f"driver, memory: {done.stdout.strip()}" if done and done.returncode == 0 else ""
    note("device", DEVICE, "name", name, "", remark)
    note("device", DEVICE, "PyTorch", torch.__version__)
    note("device", DEVICE, "cores", os.cpu_count())


def parity():
    if not DEVICE.startswith("cuda"):
        note("parity", "all nets", "CPU against GPU", "not run", "", "needs a CUDA device")
        if not TINY:
            return
    batch, models = (1, ["thinet-tiny", "thinet-30"]) if TINY else (4, MODELS)
    try:
        found_rows = program("gpu-check", "parity", DEVICE, batch, ",".join(models))["rows"]
    except RuntimeError as error:
        note("parity", "all nets", "CPU against GPU", "not run", "", f"{FAILED}: {error}")
        return
    for found in found_rows:
        value, remark, noise = found["value"], found["note"], found.get("noise", 0.0)
        if value is None:
            remark = f"{FAILED}: not a number"
        elif isinstance(value, float):
            if not noise <= MOST_NOISE:
                remark = f"not judged: another memory layout on the CPU alone moves it by {noise:.1e}"
            else:
                remark = "holds" if value <= TOLERANCE else f"{FAILED}: above {TOLERANCE}"
            value = f"{value:.2e}"
        where = "parity" if DEVICE.startswith("cuda") else "self-test"
        note(where, found["name"], found["metric"], value, "", remark)


def latency():
    arguments = ["latency", "--device", DEVICE, "--results", OUT / "latency", "--json"]
    if TINY:
        arguments += ["--models", "thinet-tiny", "--batch", 1, "--repeats", 1]
    try:
        table = program("thinet", *arguments)
    except RuntimeError as error:
        note("latency", "all models", "forward", "not run", "", f"{FAILED}: {error}")
        return
    for line in table["rows"]:
        for metric in ["forward_ms", "both_ms"]:
            if line.get(metric) is not None:
                note("latency", line["model"], metric, f"{line[metric]:.2f}", "ms", f"batch of {line.get('batch', 32)}")


def markdown():
    text = [f"# What {DEVICE} computes, and how fast\n"]
    sections = list(dict.fromkeys(row[0] for row in rows))
    for section in sections:
        text.append(f"\n## {section}\n\n| name | metric | value | unit | note |\n| --- | --- | ---: | --- | --- |")
        text += ["| " + " | ".join(map(str, row[1:])) + " |" for row in rows if row[0] == section]
    text.append("\nParity: 32-bit floats without TF32, deterministic algorithms, random weights, the same images on both.")
    text.append("Training, `f32`: without TF32; `bf16`: autocast, channels last and TF32, in both programs.")
    return "\n".join(text) + "\n"


def main():
    if DEVICE.startswith("cuda") and not torch.cuda.is_available():
        sys.exit(f"error: {DEVICE} is not available: PyTorch finds no CUDA device")
    OUT.mkdir(parents=True, exist_ok=True)
    device()
    parity()
    for name in ["vgg16", "resnet50"]:
        for precision in ["f32", "bf16"]:
            ours = lambda: program("gpu-check", "train", name, precision, BATCH, SECONDS, DEVICE)  # noqa: E731, B023
            beside_torch("training", f"{name}, {precision}", ours, lambda: torch_training(name, precision))  # noqa: B023
    for name in ["vgg16-gap", "resnet50"]:
        ours = lambda: program("gpu-check", "calibrate", name, BATCH, SECONDS, DEVICE)  # noqa: E731, B023
        beside_torch("calibration", f"{name}, against a bare forward", ours, lambda: torch_forward(name))  # noqa: B023
    latency()
    with open(OUT / "gpu-check.csv", "w", newline="") as file:
        csv.writer(file).writerows([("section", "name", "metric", "value", "unit", "note"), *rows])
    (OUT / "gpu-check.md").write_text(markdown())
    environment = {"torch": torch.__version__, "device": DEVICE, "python": platform.python_version(), "tiny": TINY}
    (OUT / "env.json").write_text(json.dumps({**environment, "built": (FOLDER / "built.txt").read_text()}, indent=2) + "\n")
    failed = sum(FAILED in str(row[-1]) for row in rows)
    print(f"written: {OUT}/gpu-check.md; {failed} figures do not hold")
    sys.exit(1 if failed else 0)


main()
