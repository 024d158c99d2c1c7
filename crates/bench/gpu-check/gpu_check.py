#!/usr/bin/env python3
"""Runs on a CUDA machine with PyTorch 2.11 alone: parity of CPU and GPU, speed beside PyTorch's eager loop, studies, latencies.

    python gpu_check.py FOLDER PROGRAM OUT DEVICE [--tiny] [--budget SECONDS] [--rounds N] [--sections LIST]

FOLDER holds experiments, and Fashion-MNIST in data/ for the studies; PROGRAM is that of FOLDER. Writes OUT/gpu-check.csv, a row at a
time, and gpu-check.md and env.json at the end; tables of the studies lie in OUT/<study>/tables. Started by run.sh, which unpacks the
program and sets the library path. --tiny: a few seconds of everything, to check that the folder works. --budget: ends within this
time (default 400 s); what no longer fits is a row "not run". --rounds: of each speed beside PyTorch (default 1). --sections: those
that are wanted (default: all).
"""

import argparse
import os
import signal
import sys
import time
from contextlib import closing
from pathlib import Path

import card
from report import OutOfTime, Report, parsed, version_of
from studies import Studies

# In this order, and the part of the budget that has passed when each has to end: what one leaves is the next one's.
ENDS = {
    "parity": 0.24, "training": 0.39, "smoke": 0.52, "inference": 0.62, "calibration": 0.66, "loader": 0.73, "study": 0.95,
    "latency": 1.0,
}  # fmt: skip
# What is compared with the CPU: images and steps first, then the nets of the paper, then evidence.
FEEDING = ["bytes", "set", "sgd", "dropout"]
MODELS = ["vgg16", "resnet50", "thinet-conv", "thinet-gap", "thinet-tiny", "thinet-70", "thinet-50", "thinet-30"]

parser = argparse.ArgumentParser()
for place in ["folder", "program", "out"]:
    parser.add_argument(place, type=lambda path: Path(path).resolve())
parser.add_argument("device")
parser.add_argument("--tiny", action="store_true")
parser.add_argument("--budget", type=float, default=400)
parser.add_argument("--sections", default=",".join(ENDS))
parser.add_argument("--rounds", type=int, default=1)
parser.add_argument("--started", type=float, default=0, help="seconds since 1970 when the command was started")


def device(report):
    found = card.facts(report.device) if report.is_gpu else None
    if found:
        name, driver, memory = found
        report.note("device", report.device, "name", name, "", f"driver {driver}, {memory} MiB")
    elif report.is_gpu:
        report.note("device", report.device, "name", "unknown", "", "nvidia-smi is not there, or does not know it")
    report.note("device", report.device, "PyTorch", version_of("torch"))
    report.note("device", report.device, "cores", os.cpu_count())


def parity(report):
    """All in one process, which prints a line for each; after a failure, which can leave a GPU unusable, the rest in another one."""
    if not report.is_gpu:
        report.note("parity", "all nets", "CPU against GPU", "not run", "", "needs a CUDA device")
        if not report.tiny:
            return
    batch = 1 if report.tiny else 4
    left = [*FEEDING, *MODELS[:2], "evidence", *MODELS[2:]]
    if report.tiny:
        left = [*FEEDING, "thinet-tiny", "thinet-30", "evidence"]
    metric = "CPU against GPU"
    while left:
        try:
            with closing(report.printed("parity", report.device, batch, *left)) as lines:
                for line in map(parsed, lines):
                    if line["name"] != left[0]:
                        raise RuntimeError("the program does not answer in order")
                    if "error" in line:
                        raise RuntimeError(line["error"])
                    report.judge(line["rows"])
                    left.pop(0)
            if left:
                raise RuntimeError("the program said nothing of it")
        except OutOfTime as error:
            for name in left:
                report.not_run("parity", name, metric, error)
            return
        except Exception as error:
            report.not_run("parity", left.pop(0) if left else "the end", metric, error)


def speeds(report, rounds):
    """Loaded when it is wanted: torch takes up to half a minute, and parity needs none of it."""
    from speed import Speeds

    return Speeds(report, rounds)


def latency(report):
    words = ["latency", "--device", report.device, "--results", report.out / "latency", "--json"]
    if report.tiny:
        words += ["--models", "thinet-tiny", "--batch", 1, "--repeats", 1]
    table = report.call(*words)
    for line in table["rows"]:
        for metric in ["forward_ms", "both_ms"]:
            if line.get(metric) is not None:
                report.note("latency", line["model"], metric, f"{line[metric]:.2f}", "ms", f"batch of {line.get('batch', 32)}")


def check(report, sections, rounds):
    studies = Studies(report)
    # Seconds at the end of the default study for saving its state and writing its tables.
    end = 0 if report.tiny else 0.05 * report.budget
    works = {
        "parity": lambda: parity(report),
        "training": lambda: speeds(report, rounds).training(),
        "smoke": studies.smoke,
        "inference": lambda: speeds(report, rounds).inference(),
        "calibration": lambda: speeds(report, rounds).calibration(),
        "loader": lambda: speeds(report, rounds).loader(),
        "study": lambda: studies.default(end),
        "latency": lambda: latency(report),
    }
    report.attempt("device", report.device, "name", lambda: device(report))
    for section, share in ENDS.items():
        if section in sections:
            # A machine that is only tried can be as slow as it likes.
            report.until = report.start + (1 if report.tiny else share) * report.budget
            report.attempt("study" if section == "smoke" else section, "all", section, works[section])


def main():
    arguments = parser.parse_args()
    sections = arguments.sections.split(",")
    unknown = [section for section in sections if section not in ENDS]
    if unknown:
        parser.error(f"there is no section {unknown[0]}; sections: {', '.join(ENDS)}")
    arguments.out.mkdir(parents=True, exist_ok=True)
    report = Report(
        arguments.folder, arguments.program, arguments.out, arguments.device, arguments.tiny, arguments.started, arguments.budget
    )
    # So that a stop from outside writes the report, too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        check(report, sections, arguments.rounds)
    finally:
        seconds = time.monotonic() - report.start
        report.note("device", report.device, "seconds of the budget used", f"{seconds:.0f}", "s", f"of {report.budget:.0f}")
        report.write()
    failed = report.failed()
    print(f"written: {report.out}/gpu-check.md; {failed} figures do not hold")
    sys.exit(1 if failed else 0)


main()
