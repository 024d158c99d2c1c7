"""Studies on Fashion-MNIST: whether a small one has the same bytes again and when it is killed, and cells of the default study."""

import json
import os
import re
import shutil
import signal
import subprocess
import time

import card
from report import FAILED, OutOfTime

# A dense net near chance ends a study; what is checked here does not depend on its accuracy.
GOES_ON = (r"^\[dense.train\]", "[dense]\nallow-chance = true\n[dense.train]")
FIRST_METHOD = (r"(?s)(\[\[methods\]\].*?)\[\[methods\]\].*\Z", r"\1")
# A study of seconds on a CPU.
TINY_CHANGES = [
    (r"^\[dataset\]\nkind = .*$", '[dataset]\nkind = "fashion-mnist"\ntrain-limit = 300\ntest-limit = 100'),
    (r"^(train|test)-limit = [12]000\n", ""), (r"^epochs = .*$", "epochs = 1"), (r"^steps = .*$", "steps = 2"),
    (r"^width = .*$", "width = 0.0625"), (r"^keep-rates = .*$", "keep-rates = [0.5]"),
    (r"^layers = \[(.|\n)*?\]$", 'layers = ["conv1_1", "conv2_1"]'), FIRST_METHOD,
]  # fmt: skip
# smoke's net has batch normalisation, this one has dropout.
DROPOUT_CHANGES = [(r"^arch = .*$", 'arch = "vgg16"'), (r"^width = .*$", "width = 0.0625"), FIRST_METHOD]
CHECKPOINT = re.compile(r"(train.*)-0*(\d+)-[0-9a-f]{16}\.safetensors")
# Exit codes of `thinet run` after which there are results: all of them, some of them, those until it was stopped.
USABLE = (0, 1, 130)


class Studies:
    def __init__(self, report):
        self.report, self.out = report, report.out

    def data(self):
        data = self.report.folder / "data" / "fashion-mnist"
        if not data.is_dir():
            raise RuntimeError("the folder holds no data")
        return data

    def spec(self, name, changes, called=None):
        """A spec of the folder with other values, and deterministic algorithms."""
        text = (self.report.folder / "experiments" / f"{name}.toml").read_text()
        for pattern, value in [GOES_ON, *changes, *(TINY_CHANGES if self.report.tiny else [])]:
            text = re.sub(pattern, value, text, flags=re.MULTILINE)
        table = "[compute]" if "[compute]" in text else "[net]"
        text = text.replace(table, "[compute]\ndeterministic = true\n" + ("\n[net]" if table == "[net]" else ""), 1)
        path = self.out / "specs" / f"{called or name}.toml"
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
        return path

    def command(self, word, spec, results, *options):
        place = ["--device", self.report.device, "--data", self.data(), "--results", self.out / results]
        return [str(part) for part in [self.report.program, word, *place, *options, spec]]

    def start(self, spec, results, *options):
        command = self.command("run", spec, results, "--preflight", "never", *options)
        (self.out / results).mkdir(exist_ok=True)
        with open(self.out / results / "log.txt", "ab") as log:
            return subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)

    def last_line(self, results):
        lines = (self.out / results / "log.txt").read_text(errors="replace").strip().splitlines()
        return lines[-1] if lines else "no output"

    def run(self, spec, results, *options, limit=None):
        """Runs a study, to its end or for so many seconds. Returns the exit code; one without results is an error."""
        left = self.report.left()
        study = self.start(spec, results, *options)
        try:
            code = study.wait(min(left, limit or left))
        except subprocess.TimeoutExpired:
            if limit is None:
                raise OutOfTime from None
            # It saves the states of its trainings.
            os.killpg(study.pid, signal.SIGINT)
            try:
                code = study.wait(15)
            except subprocess.TimeoutExpired:
                code = 130
        finally:
            kill(study)
        if code not in USABLE:
            raise RuntimeError(f"status {code}: {self.last_line(results)}")
        return code

    def checkpoints(self, results, stage):
        """Stage, kind and step of the trainings in progress that are stored."""
        found = []
        for path in (self.out / results / "store").glob(f"{stage}-*/train*.safetensors"):
            name = CHECKPOINT.fullmatch(path.name)
            if name:
                found.append(f"{path.parent.name}: {name[1]}, step {name[2]}")
        return found

    def kill_in(self, stage, spec, results):
        """Starts the study and kills it once a training of such a stage has a checkpoint. Returns the checkpoint it left. A stage can end
        between the two, and then its checkpoint is gone: it is tried again in a later one."""
        end = time.monotonic() + self.report.left()
        for _ in range(3):
            study = self.start(spec, results, "--jobs", 1, "--checkpoint-every", 0)
            try:
                while study.poll() is None and not self.checkpoints(results, stage):
                    if time.monotonic() > end:
                        raise OutOfTime
                    time.sleep(0.002)
            finally:
                kill(study)
            found = self.checkpoints(results, stage)
            if found:
                return found[0]
        raise RuntimeError(f"no checkpoint of a {stage} stage was there to kill at: {self.last_line(results)}")

    def smoke(self):
        for name, check in [("smoke (batch norm)", self.same_bytes), ("smoke (dropout)", self.same_with_dropout)]:
            self.report.attempt("study", name, "the rest", lambda: check(name))  # noqa: B023
        self.clean("smoke-1")
        # Copies of these, which only had to be compared.
        self.clean("smoke-2", "smoke-3", "dropout-1", "dropout-2", also="tables")

    def same_bytes(self, name):
        spec = self.spec("smoke", [])
        started = time.monotonic()
        self.whole(spec, "smoke-1")
        seconds = time.monotonic() - started
        self.report.note("study", name, "seconds", f"{seconds:.1f}", "s", f"{len(self.stages('smoke-1'))} stages")
        # Killed and resumed first: it says more than a second run.
        self.same_when_killed(name, spec, "smoke-1", "smoke-3", ["dense", "cell"])
        self.whole(spec, "smoke-2")
        self.compare(name, "the same bytes in a second run", "smoke-1", "smoke-2", "")

    def same_with_dropout(self, name):
        spec = self.spec("smoke", DROPOUT_CHANGES, "smoke-dropout")
        self.whole(spec, "dropout-1")
        self.same_when_killed(name, spec, "dropout-1", "dropout-2", ["dense"])

    def whole(self, spec, results):
        if self.run(spec, results, "--jobs", 1) != 0 or not self.stages(results):
            raise RuntimeError(f"it is not whole: {self.last_line(results)}")

    def same_when_killed(self, name, spec, first, results, stages):
        left = [self.kill_in(stage, spec, results) for stage in stages]
        self.whole(spec, results)
        self.compare(name, "the same bytes when killed and resumed", first, results, "resumed from " + "; ".join(left))

    def compare(self, name, metric, first, second, remark):
        ours, theirs = self.outcome(first), self.outcome(second)
        same = bool(ours) and ours == theirs
        differ = [path for path in {**ours, **theirs} if ours.get(path) != theirs.get(path)]
        said = f"{len(ours)} files" if same else f"{FAILED}: {', '.join(differ[:3]) or 'no files'}"
        self.report.note("study", name, metric, same, "", f"{said}; {remark}" if remark else said)

    def outcome(self, results):
        """The bytes of the tables and of all weights of a results folder."""
        tables = sorted((self.out / results / "tables").glob("*.csv"))
        weights = sorted((self.out / results / "store").glob("*/weights.safetensors"))
        kept = [path for path in [*tables, *weights] if not path.name.endswith(".seconds.csv")]
        return {str(path.relative_to(self.out / results)): path.read_bytes() for path in kept}

    def stages(self, results):
        return [json.loads(path.read_text()) for path in sorted((self.out / results / "store").glob("*/result.json"))]

    def default(self, end):
        """As many cells as fit before `end` seconds are left, with four processes on one device, as one of its nets does not fill it."""
        name = "default study at full width"
        self.report.attempt("study", name, "the rest", lambda: self.cells(name, end))
        self.clean("default")

    def cells(self, name, end):
        spec = self.spec("fashion-mnist-selectors", [(r"^width = .*$", "width = 1.0")])
        limit = self.report.left() - end
        if limit < 5:
            raise OutOfTime
        started = time.monotonic()
        with card.Watch(self.report.device if self.report.is_gpu else None) as watch:
            code = self.run(spec, "default", "--seeds", 1, "--jobs", 2 if self.report.tiny else 4, limit=limit)
        seconds = time.monotonic() - started
        done = [stage for stage in self.stages("default") if stage["id"].startswith("cell-")]
        ended = {0: "all of them", 1: f"some failed: {self.last_line('default')}", 130: "then out of time"}[code]
        self.report.note("study", name, "cells", len(done), "", f"one seed, in {seconds:.0f} s; {ended}")
        watch.note(self.report, "study", name, remark="its start and end included")
        if not done:
            self.report.note("study", name, "tables written", False, "", "no cell was done")
            return
        written = subprocess.run(
            self.command("table", spec, "default", "--seeds", 1), capture_output=True, text=True, errors="replace", timeout=30
        )
        remark = "OUT/default/tables" if written.returncode == 0 else f"{FAILED}: {written.stderr.strip()[-200:]}"
        self.report.note("study", name, "tables written", written.returncode == 0, "", remark)

    def clean(self, *folders, also=None):
        """Weights, checkpoints and curves go, tables and logs stay."""
        for results in folders:
            for part in ["store", "crops", "runs", *([also] if also else [])]:
                shutil.rmtree(self.out / results / part, ignore_errors=True)


def kill(study):
    """Also its workers."""
    try:
        os.killpg(study.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
    study.wait()
