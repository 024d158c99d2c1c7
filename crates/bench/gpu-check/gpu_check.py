#!/usr/bin/env python3
"""Runs on a CUDA machine with PyTorch 2.11 alone: parity of CPU and GPU, speed beside PyTorch's eager loop, studies, latencies.

    python gpu_check.py FOLDER OUT DEVICE [--tiny] [--budget SECONDS] [--rounds N] [--sections LIST]

FOLDER holds the programs `gpu-check` and `thinet`, experiments, and Fashion-MNIST in data/ for the studies. Writes OUT/gpu-check.csv,
a row at a time, then gpu-check.md and env.json; tables of the studies lie in OUT/<study>/tables. Started by run.sh, which sets the
library path. --tiny: a few seconds of everything, to check that the folder works. --budget: ends within this time (default 400 s);
what no longer fits is a row "not run". --rounds: of each speed (default 3). --sections: those of parity, training, inference,
calibration, loader, study and latency that are wanted (default: all).
"""

import argparse
import csv
import json
import os
import platform
import re
import shutil
import signal
import statistics
import subprocess
import sys
import time
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional as F

parser = argparse.ArgumentParser()
parser.add_argument("folder", type=Path)
parser.add_argument("out", type=Path)
parser.add_argument("device")
parser.add_argument("--tiny", action="store_true")
parser.add_argument("--budget", type=float, default=400)
parser.add_argument("--sections", default="parity,training,inference,calibration,loader,study,latency")
parser.add_argument("--rounds", type=int, default=3)
arguments = parser.parse_args()
FOLDER, OUT, DEVICE, TINY = arguments.folder, arguments.out, arguments.device, arguments.tiny
START = time.monotonic()
END = START + arguments.budget
# Until when the section at work may run: each has a share of the budget, and what one leaves is the next one's.
SHARES = {"parity": 0.35, "training": 0.25, "inference": 0.1, "calibration": 0.05, "loader": 0.05, "study": 1, "latency": 1}
until = END
BATCH = 2 if TINY else 64
SECONDS = 0.5 if TINY else 3
FREE_RUNS = 20  # between two waits for the device, as in gpu_check.rs
ROUNDS = 1 if TINY else arguments.rounds
MODELS = ["vgg16", "thinet-conv", "thinet-gap", "thinet-tiny", "resnet50", "thinet-70", "thinet-50", "thinet-30"]
# A difference from the CPU may be so many times the noise: what another memory format, or images that differ by
# one rounding, change on the CPU alone.
TIMES_NOISE = 10
LEAST_NOISE = 1e-6
FAILED = "DOES NOT HOLD"
OUT_OF_TIME = "out of time"
COLUMNS = ("section", "name", "metric", "value", "unit", "note")
rows = []


class OutOfTime(Exception):
    pass


def note(section, name, metric, value, unit="", remark=""):
    rows.append((section, name, metric, value, unit, remark))
    with open(OUT / "gpu-check.csv", "w" if len(rows) == 1 else "a", newline="") as file:
        csv.writer(file).writerows([COLUMNS, rows[-1]] if len(rows) == 1 else [rows[-1]])
    print(f"{section:<12} {name:<28} {metric:<58} {value} {unit} {remark}", flush=True)


def program(name, *arguments):
    left = until - time.monotonic()
    if left <= 0:
        raise OutOfTime
    try:
        done = subprocess.run([FOLDER / name, *map(str, arguments)], capture_output=True, text=True, timeout=left)
    except subprocess.TimeoutExpired:
        raise OutOfTime from None
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


class BasicBlock(nn.Module):
    def __init__(self, inputs, outputs, stride):
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU(True),
            nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False), nn.BatchNorm2d(outputs),
        )  # fmt: skip
        self.side = nn.Identity()
        if inputs != outputs:
            self.side = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))

    def forward(self, x):
        return F.relu(self.body(x) + self.side(x), inplace=True)


def cifar_resnet56():
    layers, channels = [nn.Conv2d(3, 16, 3, 1, 1, bias=False), nn.BatchNorm2d(16), nn.ReLU(True)], 16
    for filters in [16, 32, 64]:
        for _ in range(9):
            layers.append(BasicBlock(channels, filters, 1 if filters in (16, channels) else 2))
            channels = filters
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10))


NETS = {"vgg16": vgg16, "vgg16-gap": vgg16_gap, "resnet50": resnet50, "cifar-resnet56": cifar_resnet56}
# Net, precision and batch of the training speeds, most wanted first.
TRAININGS = [("vgg16", "bf16", 64), ("resnet50", "bf16", 64), ("cifar-resnet56", "bf16", 128), ("resnet50", "bf16", 256)]
TRAININGS += [("vgg16", "bf16", 256), ("resnet50", "f32", 64), ("vgg16", "f32", 64)]

INFERENCES = [(name, "bf16", batch) for batch in (64, 256) for name in ("vgg16", "resnet50")] + [("cifar-resnet56", "bf16", 128)]


def wait():
    if DEVICE.startswith("cuda"):
        torch.cuda.synchronize()


def speed(once, batch=BATCH):
    for _ in range(3):
        once()
    wait()
    count, start = 0, time.monotonic()
    while time.monotonic() - start < SECONDS:
        once()
        count += 1
        if count % FREE_RUNS == 0:
            wait()
    wait()
    return count * batch / (time.monotonic() - start)


def torch_training(name, precision, batch):
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = precision == "bf16"
    layout = torch.channels_last if precision == "bf16" else torch.contiguous_format
    net = NETS[name]().to(DEVICE, memory_format=layout)
    sgd = torch.optim.SGD(net.parameters(), 1e-4, momentum=0.9, weight_decay=5e-4)
    side, classes = (32, 10) if name.startswith("cifar-") else (224, 1000)
    images = torch.randn(batch, 3, side, side, device=DEVICE).to(memory_format=layout)
    labels = torch.arange(batch, device=DEVICE) % classes

    def once():
        sgd.zero_grad(set_to_none=True)
        with torch.autocast(DEVICE.split(":")[0], torch.bfloat16, enabled=precision == "bf16"):
            logits = net(images)
        loss = F.cross_entropy(logits.float(), labels)
        loss.backward()
        sgd.step()

    return speed(once, batch)


def torch_forward(name, precision="f32", batch=BATCH):
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = precision == "bf16"
    layout = torch.channels_last if precision == "bf16" else torch.contiguous_format
    net = NETS[name]().to(DEVICE, memory_format=layout).eval()
    side = 32 if name.startswith("cifar-") else 224
    images = torch.randn(batch, 3, side, side, device=DEVICE).to(memory_format=layout)
    with torch.no_grad(), torch.autocast(DEVICE.split(":")[0], torch.bfloat16, enabled=precision == "bf16"):
        return speed(lambda: net(images), batch)


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
    except OutOfTime:
        if not speeds[1]:
            note(section, name, "images a second", "not run", "", OUT_OF_TIME)
            return
    except RuntimeError as error:
        note(section, name, "images a second", "not run", "", f"{FAILED}: {error}")
        return
    ours, theirs = map(statistics.median, speeds)
    note(section, name, "ours", f"{ours:.1f}", "images/s")
    note(section, name, "PyTorch eager", f"{theirs:.1f}", "images/s")
    note(section, name, "ours over PyTorch", f"{statistics.median(a / b for a, b in zip(*speeds)):.3f}", "", f"{len(speeds[1])} rounds")
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
    # One call for each net, so that the rows of those before the budget's end are there.
    for name in [*models, "evidence"]:
        try:
            judge(program("gpu-check", "parity", DEVICE, batch, name)["rows"])
        except OutOfTime:
            note("parity", name, "CPU against GPU", "not run", "", OUT_OF_TIME)
        except RuntimeError as error:
            note("parity", name, "CPU against GPU", "not run", "", f"{FAILED}: {error}")


def judge(found_rows):
    for found in found_rows:
        value, remark = found["value"], found["note"]
        if value is None or value is False:
            remark = FAILED
        elif isinstance(value, float):
            bound = found.get("bound") or TIMES_NOISE * found.get("noise", LEAST_NOISE)
            verdict = "holds" if value <= bound else FAILED
            remark = f"{verdict}: at most {bound:.1e} allowed" + (f"; {remark}" if remark else "")
            value = f"{value:.2e}"
        where = "parity" if DEVICE.startswith("cuda") else "self-test"
        note(where, found["name"], found["metric"], value, "", remark)


def latency():
    arguments = ["latency", "--device", DEVICE, "--results", OUT / "latency", "--json"]
    if TINY:
        arguments += ["--models", "thinet-tiny", "--batch", 1, "--repeats", 1]
    try:
        table = program("thinet", *arguments)
    except OutOfTime:
        note("latency", "all models", "forward", "not run", "", OUT_OF_TIME)
        return
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
    text.append(f"Allowed is {TIMES_NOISE} times what another memory format, or images that differ by one rounding, change on the CPU alone.")
    text.append("Training, `f32`: without TF32; `bf16`: autocast, channels last and TF32, in both programs.")
    return "\n".join(text) + "\n"


def training():
    for name, precision, batch in TRAININGS[:2] if TINY else TRAININGS:
        batch = min(batch, BATCH) if TINY else batch
        ours = lambda: program("gpu-check", "train", name, precision, batch, SECONDS, DEVICE)  # noqa: E731, B023
        theirs = lambda: torch_training(name, precision, batch)  # noqa: E731, B023
        beside_torch("training", f"{name}, {precision}, batch {batch}", ours, theirs)


def inference():
    for name, precision, batch in INFERENCES[:1] if TINY else INFERENCES:
        batch = min(batch, BATCH) if TINY else batch
        ours = lambda: program("gpu-check", "infer", name, precision, batch, SECONDS, DEVICE)  # noqa: E731, B023
        theirs = lambda: torch_forward(name, precision, batch)  # noqa: E731, B023
        beside_torch("inference", f"{name}, {precision}, batch {batch}", ours, theirs)


def calibration():
    for name in ["vgg16-gap", "resnet50"]:
        ours = lambda: program("gpu-check", "calibrate", name, BATCH, SECONDS, DEVICE)  # noqa: E731, B023
        beside_torch("calibration", f"{name}, against a bare forward", ours, lambda: torch_forward(name))  # noqa: B023


def loader():
    """Photographs a second that reach the device as bytes: decoded, and from a prepared file, by one thread and by all cores."""
    images, cores = (8, 2) if TINY else (256, os.cpu_count())
    for way, threads in [("decoding", 1), ("prepared", 1), ("prepared", cores)]:
        name = f"{way}, {threads} loader thread{'s' if threads > 1 else ''}"
        try:
            found = program("gpu-check", "load", way, images, SECONDS, threads, DEVICE)
        except OutOfTime:
            note("loader", name, "images a second", "not run", "", OUT_OF_TIME)
        except RuntimeError as error:
            note("loader", name, "images a second", "not run", "", f"{FAILED}: {error}")
        else:
            note("loader", name, "ours", f"{found['images_per_second']:.1f}", "images/s", found["source"])


def spec_of(name, changes):
    """A spec of the folder with other values, and deterministic algorithms."""
    text = (FOLDER / "experiments" / f"{name}.toml").read_text()
    for pattern, value in [*changes, *(TINY_CHANGES if TINY else [])]:
        text = re.sub(pattern, value, text, flags=re.MULTILINE)
    if "[compute]" in text:
        text = text.replace("[compute]", "[compute]\ndeterministic = true")
    else:
        text = text.replace("[net]", "[compute]\ndeterministic = true\n\n[net]")
    path = OUT / "specs" / f"{name}.toml"
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    return path


# A study of seconds on a CPU.
TINY_CHANGES = [
    (r"^\[dataset\]\nkind = .*$", '[dataset]\nkind = "fashion-mnist"\ntrain-limit = 300\ntest-limit = 100'),
    (r"^(train|test)-limit = [12]000\n", ""), (r"^epochs = .*$", "epochs = 1"), (r"^steps = .*$", "steps = 2"),
    (r"^seeds = .*$", "seeds = 1"), (r"^width = .*$", "width = 0.0625"), (r"^keep-rates = .*$", "keep-rates = [0.5]"),
    (r"^layers = \[(.|\n)*?\]$", 'layers = ["conv1_1", "conv2_1"]'),
    (r"^\[dense.train\]", "[dense]\nallow-chance = true\n[dense.train]"),
    (r"(?s)(\[\[methods\]\].*?)\[\[methods\]\].*\Z", r"\1"),
]  # fmt: skip


def command(spec, results, *options, word="run"):
    place = ["--data", FOLDER / "data" / "fashion-mnist", "--results", OUT / results]
    return [str(part) for part in [FOLDER / "thinet", word, *place, *options, spec]]


def run_study(spec, results, limit=None, ends_with=None, jobs=1):
    """Runs a study to its end, or sends the signal at the limit. Returns the seconds, and whether it ended by itself."""
    left = until - time.monotonic()
    if left <= 0:
        raise OutOfTime
    (OUT / results).mkdir(exist_ok=True)
    options = ["--device", DEVICE, "--jobs", jobs, "--checkpoint-every", 1]
    with open(OUT / results / "log.txt", "ab") as log:
        begun = time.monotonic()
        study = subprocess.Popen(command(spec, results, *options), stdout=log, stderr=log, start_new_session=True)
        try:
            code = study.wait(min(left, limit or left))
        except subprocess.TimeoutExpired:
            os.killpg(study.pid, ends_with or signal.SIGINT)
            try:
                study.wait(20)
            except subprocess.TimeoutExpired:
                os.killpg(study.pid, signal.SIGKILL)
                study.wait()
            if ends_with is None and limit is None:
                raise OutOfTime from None
            return time.monotonic() - begun, False
    if code != 0:
        last = (OUT / results / "log.txt").read_text().strip().splitlines()[-1:]
        raise RuntimeError(last[0] if last else f"status {code}")
    return time.monotonic() - begun, True


def outcome(results):
    """The bytes of the tables and of all weights of a results folder."""
    tables = sorted((OUT / results / "tables").glob("*.csv"))
    weights = sorted((OUT / results / "store").glob("*/weights.safetensors"))
    kept = [path for path in [*tables, *weights] if not path.name.endswith(".seconds.csv")]
    return {str(path.relative_to(OUT / results)): path.read_bytes() for path in kept}


def stages(results):
    return [json.loads(path.read_text()) for path in sorted((OUT / results / "store").glob("*/result.json"))]


def waited(name, results):
    """The share of its time in which a study's program waited for images: the device waits for no longer."""
    found = stages(results)
    busy, waiting = (sum(stage.get(key) or 0 for stage in found) for key in ("busy_seconds", "waited_seconds"))
    share = f"{100 * waiting / busy:.1f}" if busy else "not run"
    note("study", name, "time spent waiting for images", share, "%", f"of {busy:.0f} s in {len(found)} stages")


def smoke():
    spec, name = spec_of("smoke", []), "smoke, deterministic"
    seconds, _ = run_study(spec, "smoke-1")
    note("study", name, "seconds", f"{seconds:.1f}", "s", f"{len(stages('smoke-1'))} stages")
    waited(name, "smoke-1")
    run_study(spec, "smoke-2")
    first = outcome("smoke-1")
    same = bool(first) and outcome("smoke-2") == first
    note("study", name, "the same bytes in a second run", same, "", f"{len(first)} files" if same else FAILED)
    # Killed twice, each time further on.
    killed = 0
    for part in (0.35, 0.6):
        killed += not run_study(spec, "smoke-3", limit=part * seconds, ends_with=signal.SIGKILL)[1]
    run_study(spec, "smoke-3")
    same = outcome("smoke-3") == first
    note("study", name, "the same bytes when killed and resumed", same, "", f"killed {killed} times" if same else FAILED)


def default_study():
    """As many cells as the time allows, with four processes on one device, as one of its nets does not fill it."""
    spec, name = spec_of("fashion-mnist-selectors", [(r"^width = .*$", "width = 1.0")]), "default study at full width"
    # 15 s for the end: a checkpoint, and the tables.
    limit = until - time.monotonic() - (15 if not TINY else 0)
    limit = min(limit, 15) if TINY else limit
    if limit < 5:
        raise OutOfTime
    seconds, is_whole = run_study(spec, "default", limit=limit, ends_with=signal.SIGINT, jobs=1 if TINY else 4)
    done = [stage for stage in stages("default") if stage["id"].startswith("cell-")]
    note("study", name, "cells", len(done), "", f"in {seconds:.0f} s, {'all of them' if is_whole else 'then out of time'}")
    waited(name, "default")
    place = ["--device", DEVICE]
    written = subprocess.run(command(spec, "default", *place, word="table"), capture_output=True, text=True)
    remark = "OUT/default/tables" if written.returncode == 0 else f"{FAILED}: {written.stderr.strip()[-200:]}"
    note("study", name, "tables written", written.returncode == 0, "", remark)


def study():
    if not (FOLDER / "data" / "fashion-mnist").is_dir():
        note("study", "all", "studies", "not run", "", "the folder holds no data")
        return
    for name, check in {"smoke, deterministic": smoke, "default study at full width": default_study}.items():
        try:
            check()
        except OutOfTime:
            note("study", name, "the rest", "not run", "", OUT_OF_TIME)
        except RuntimeError as error:
            note("study", name, "the rest", "not run", "", f"{FAILED}: {error}")
    for results in ["smoke-1", "smoke-2", "smoke-3", "default"]:
        # Weights and checkpoints: the tables stay.
        for part in ["store", "crops"]:
            shutil.rmtree(OUT / results / part, ignore_errors=True)


def main():
    if DEVICE.startswith("cuda") and not torch.cuda.is_available():
        sys.exit(f"error: {DEVICE} is not available: PyTorch finds no CUDA device")
    OUT.mkdir(parents=True, exist_ok=True)
    device()
    global until
    checks = [parity, training, inference, calibration, loader, study, latency]
    for check in checks:
        if check.__name__ in arguments.sections.split(","):
            until = min(END, time.monotonic() + SHARES[check.__name__] * arguments.budget)
            check()
    note("device", DEVICE, "seconds of the budget used", f"{time.monotonic() - START:.0f}", "s", f"of {arguments.budget:.0f}")
    (OUT / "gpu-check.md").write_text(markdown())
    environment = {"torch": torch.__version__, "device": DEVICE, "python": platform.python_version(), "tiny": TINY}
    (OUT / "env.json").write_text(json.dumps({**environment, "built": (FOLDER / "built.txt").read_text()}, indent=2) + "\n")
    failed = sum(FAILED in str(row[-1]) for row in rows)
    print(f"written: {OUT}/gpu-check.md; {failed} figures do not hold")
    sys.exit(1 if failed else 0)


main()
