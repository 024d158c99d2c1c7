"""The report: rows that are written as they come, the time that is left, and the program's own commands."""

import csv
import importlib.metadata
import json
import platform
import subprocess
import threading
import time
from pathlib import Path

# A difference from the CPU may be so many times the noise: what another memory format, or images that differ by
# one rounding, change on the CPU alone.
TIMES_NOISE = 10
LEAST_NOISE = 1e-6
FAILED = "DOES NOT HOLD"
OUT_OF_TIME = "out of time"
COLUMNS = ("section", "name", "metric", "value", "unit", "note")


class OutOfTime(Exception):
    pass


def in_a_line(error):
    text = " ".join(str(error).split())
    return text if type(error) is RuntimeError else f"{type(error).__name__}: {text}".rstrip(": ")


class Report:
    def __init__(self, folder, program, out, device, tiny, started, budget):
        self.folder, self.program, self.out, self.device, self.tiny = folder, program, out, device, tiny
        self.budget = budget
        # Of the monotonic clock; the command may have been started before this program.
        self.start = time.monotonic() - max(0.0, time.time() - started if started else 0.0)
        self.until = self.start + budget
        self.rows = []

    @property
    def is_gpu(self):
        return self.device.startswith("cuda")

    def left(self):
        """Seconds that the section at work may still take."""
        left = self.until - time.monotonic()
        if left <= 0:
            raise OutOfTime
        return left

    def note(self, section, name, metric, value, unit="", remark=""):
        self.rows.append((section, name, metric, value, unit, remark))
        with open(self.out / "gpu-check.csv", "w" if len(self.rows) == 1 else "a", newline="") as file:
            csv.writer(file).writerows([COLUMNS, self.rows[-1]] if len(self.rows) == 1 else [self.rows[-1]])
        print(f"{section:<12} {name:<28} {metric:<58} {value} {unit} {remark}", flush=True)

    def not_run(self, section, name, metric, error):
        remark = OUT_OF_TIME if isinstance(error, OutOfTime) else f"{FAILED}: {in_a_line(error)}"
        self.note(section, name, metric, "not run", "", remark)

    def attempt(self, section, name, metric, work):
        """What the work returns. Whatever goes wrong is a row, and nothing is returned."""
        try:
            self.left()
            return work()
        except Exception as error:
            self.not_run(section, name, metric, error)
            return None

    def failed(self):
        return sum(FAILED in str(row[-1]) for row in self.rows)

    def printed(self, *words):
        """The lines that a command of the program prints, as they come."""
        command = [str(word) for word in (self.program, *words)]
        with open(self.out / "errors.txt", "w+", errors="replace") as errors:
            left = self.left()
            process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True, errors="replace")
            is_late = threading.Event()
            timer = threading.Timer(left, lambda: (is_late.set(), process.kill()))
            timer.start()
            try:
                yield from process.stdout
                code = process.wait()
            finally:
                timer.cancel()
                process.kill()
                process.wait()
                process.stdout.close()
            if is_late.is_set():
                raise OutOfTime
            if code != 0:
                errors.seek(0)
                said = errors.read().strip().splitlines()
                raise RuntimeError(said[-1] if said else f"the program ended with status {code}")

    def call(self, *words):
        """The object that a command of the program prints."""
        return parsed("".join(self.printed(*words)))

    def judge(self, found_rows):
        """Rows of the program: with a bound or a noise a number has to be small, and what is true or false has to be true."""
        for found in found_rows:
            value, remark = found["value"], found["note"]
            if value is None or value is False:
                remark = f"{FAILED}: {remark}" if remark else FAILED
            elif isinstance(value, float):
                noise = found.get("noise", LEAST_NOISE)
                bound = found.get("bound") or (TIMES_NOISE * noise if noise is not None else None)
                verdict = "holds" if bound is not None and value <= bound else FAILED
                allowed = f"at most {bound:.1e} allowed" if bound is not None else "the CPU's own noise is not finite"
                remark = f"{verdict}: {allowed}" + (f"; {remark}" if remark else "")
                value = f"{value:.2e}"
            where = "parity" if self.is_gpu else "self-test"
            self.note(where, found["name"], found["metric"], value, "", remark)

    def write(self):
        """gpu-check.md and env.json."""
        (self.out / "errors.txt").unlink(missing_ok=True)
        (self.out / "gpu-check.md").write_text(self.markdown())
        built = self.folder / "built.txt"
        environment = {
            "torch": version_of("torch"),
            "device": self.device,
            "python": platform.python_version(),
            "tiny": self.tiny,
            "budget": self.budget,
            "built": built.read_text() if built.exists() else "unknown",
        }
        Path(self.out / "env.json").write_text(json.dumps(environment, indent=2) + "\n")

    def markdown(self):
        text = [f"# What {self.device} computes, and how fast\n"]
        for section in dict.fromkeys(row[0] for row in self.rows):
            text.append(f"\n## {section}\n\n| name | metric | value | unit | note |\n| --- | --- | ---: | --- | --- |")
            for row in (row for row in self.rows if row[0] == section):
                text.append("| " + " | ".join(str(part).replace("|", "\\|") for part in row[1:]) + " |")
        text.append("\nParity: 32-bit floats without TF32, deterministic algorithms, random weights, the same images on both. Allowed is")
        text.append(f"{TIMES_NOISE} times what another memory format, or images that differ by one rounding, change on the CPU alone, and for")
        text.append("SGD, TF32 and bf16 a fixed bound. Training and inference: bf16 by autocast, channels last and TF32, in both programs.")
        text.append("A card is busy while at least one kernel runs on it (nvidia-smi's utilization.gpu).")
        return "\n".join(text) + "\n"


def parsed(text):
    """An object as JSON."""
    try:
        found = json.loads(text)
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise RuntimeError(f"the program printed {text.strip()[:80]!r} and no result")
    return found


def version_of(package):
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"
