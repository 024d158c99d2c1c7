"""Run by test-book.sh: runs the `sh` blocks of the pages in docs/, and checks their `toml` and `python` blocks.

Commands run in a scratch copy of the project's specs, one page after the other, as a reader would. What needs cargo, pip or other machines is
tested elsewhere and left out here; the last line counts these blocks.
"""

import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parent.parent
THINET = os.environ["THINET"]
BLOCK = re.compile(r"^```(sh|toml|python)\n(.*?)^```$", re.M | re.S)
# Words of commands that other tests run.
ELSEWHERE = ["cargo ", "pip ", "make "]
# The default study of the selector's page: two seeds, as `compare` needs, and seconds.
SMALL = ROOT / "experiments" / "smoke.toml"
MINIMAL = {
    "name": 'name = "book"\n',
    "dataset": '[dataset]\nkind = "fashion-mnist"\n',
    "input": "[input]\nsize = 32\n",
    "net": '[net]\narch = "cifar-vgg16"\nwidth = 0.125\n',
    "dense": "[dense.train]\nepochs = 1\nlr = 0.05\n",
    "prune": "[prune]\nkeep-rates = [0.5]\n",
    "methods": '[[methods]]\nselector = "random"\n',
}


def pages() -> list[pathlib.Path]:
    """The pages in the order of the summary, each of which is there; no page is forgotten."""
    listed = re.findall(r"\]\(([a-z-]+\.md)\)", (ROOT / "docs" / "SUMMARY.md").read_text())
    there = {path.name for path in (ROOT / "docs").glob("*.md")} - {"SUMMARY.md"}
    if set(listed) != there:
        sys.exit(f"FAILED: docs/SUMMARY.md lists {sorted(listed)}, docs/ has {sorted(there)}")
    return [ROOT / "docs" / name for name in listed]


def prepare(work: pathlib.Path) -> dict[str, str]:
    """Specs, examples and data of the project in `work`; the variables of its commands."""
    shutil.copytree(ROOT / "experiments", work / "experiments")
    shutil.copytree(ROOT / "python", work / "python")
    (work / "data").symlink_to((ROOT / "data").resolve())
    small = SMALL.read_text()
    small = re.sub(r'^name = .*$', 'name = "fashion-mnist-selectors"\nseeds = 2', small, flags=re.M)
    small = re.sub(r'^table = .*$', 'table = "selectors-fashion-mnist"', small, flags=re.M)
    (work / "experiments" / "fashion-mnist-selectors.toml").write_text(small)
    programs = work / "bin"
    programs.mkdir()
    (programs / "thinet").symlink_to(THINET)
    (programs / "python3").write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
    (programs / "python3").chmod(0o755)
    return {**os.environ, "PATH": f"{programs}:{os.environ['PATH']}"}


def run(command: list[str], folder: pathlib.Path, variables: dict[str, str], allowed: tuple[int, ...] = (0,)) -> str | None:
    """Runs a command; the end of its output if it ends with another code than those allowed."""
    ran = subprocess.run(command, cwd=folder, env=variables, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=900)
    return None if ran.returncode in allowed else (ran.stdout + ran.stderr)[-2000:]


def spec_of(block: str) -> str:
    """A block with the required parts of a spec that it lacks."""
    tables = set(re.findall(r"^\[+([a-z-]+)", block, flags=re.M))
    lacking = [text for table, text in MINIMAL.items() if table not in tables and table != "name"]
    return MINIMAL["name"] + "".join(lacking) + block


def main() -> None:
    failed, passed, elsewhere = [], 0, 0
    with tempfile.TemporaryDirectory() as folder:
        work = pathlib.Path(folder)
        variables = prepare(work)
        for page in pages():
            text = page.read_text()
            if page.name == "your-own-selector.md":
                run(["thinet", "run", "experiments/fashion-mnist-selectors.toml"], work, variables)
            for kind, block in BLOCK.findall(text):
                where = f"{page.name}: {block.strip().splitlines()[0]}"
                if kind == "sh" and not any(word in block for word in ELSEWHERE):
                    problem = run(["sh", "-e", "-c", block], work, variables)
                elif kind == "toml" and "command =" not in block:
                    (work / "block.toml").write_text(spec_of(block))
                    # 3: the spec is right, and its data is not here.
                    problem = run(["thinet", "plan", "block.toml"], work, variables, allowed=(0, 3))
                elif kind == "python" and "serve(" not in block:
                    problem = run(["python3", "-c", block], work / "evidence", variables)
                else:
                    elsewhere += 1
                    continue
                if problem is None:
                    passed += 1
                    print(f"ok: {where}", flush=True)
                else:
                    failed.append(where)
                    print(f"FAILED: {where}\n{problem}", flush=True)
    print(f"book: {passed} blocks work, {len(failed)} do not, {elsewhere} are tested elsewhere")
    sys.exit(bool(failed))


main()
