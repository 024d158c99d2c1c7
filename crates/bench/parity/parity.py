#!/usr/bin/env python3
"""Compares this project with Pillow, torchvision and PyTorch: image preparation, loader, weights in and out.

    python parity.py PROGRAM OUT.csv [IMAGES]

PROGRAM is the built `parity`; IMAGES a folder with JPEG files anywhere below it. Prints a table with a line for
each comparison, and exits with 1 if one does not hold. Run by scripts/parity.sh, with torch, torchvision, pillow, numpy and safetensors.
Pillow is held below 13: up to 12 it resizes along the rows first, as it did when the paper was written; 13 reverses the order
where the height shrinks more than the width (python-pillow/Pillow#9549), which moves single pixels of such an image by
up to 12 of 255 and its mean by 0.2.
"""

import csv
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
import torchvision
from PIL import Image
from safetensors.torch import save_file
from torchvision import transforms

PROGRAM, OUT = sys.argv[1], Path(sys.argv[2])
IMAGES = Path(sys.argv[3]) if len(sys.argv) > 3 else None
READER = Path(__file__).parents[3] / "scripts" / "load_exported.py"
CLASSES = 10
PROTOCOLS = ["caffe-squash", "caffe-short", "torchvision"]
NOT_GIVEN = "not run: give IMAGES=/folder/of/jpegs"
rows = []


def note(name, measured, required, holds):
    rows.append((name, measured, required, holds))
    print(f"{name}: {measured}", file=sys.stderr, flush=True)


def judge(name, required, measure):
    """`measure` returns the measurement and whether it holds; a program that fails does not hold."""
    try:
        measured, holds = measure()
    except ProgramError as error:
        measured, holds = str(error), False
    note(name, measured, required, "yes" if holds else "NO")


def remark(name, about, measure):
    """As `judge`, for what is only reported."""
    try:
        note(name, measure(), about, "")
    except ProgramError as error:
        note(name, str(error), about, "NO")


def print_table():
    header = ("comparison", "measured", "required", "holds")
    widths = [max(len(row[i]) for row in [header, *rows]) for i in range(4)]
    for row in [header, *rows]:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip())


class ProgramError(Exception):
    pass


def program(*arguments):
    done = subprocess.run([PROGRAM, *map(str, arguments)], capture_output=True, text=True)
    if done.returncode != 0:
        raise ProgramError(f"{arguments[0]}: {' '.join(done.stderr.split()) or done.returncode}")
    return json.loads(done.stdout)


def folder_of(files, folder):
    """ImageNet's layout as links: the files spread over classes, the same ones for training and validation."""
    for i, file in enumerate(files):
        wnid = f"n{i % CLASSES:08}"
        for split in ["train", "val"]:
            target = folder / split / wnid / f"{wnid}_{i:05}.JPEG"
            target.parent.mkdir(parents=True, exist_ok=True)
            target.symlink_to(file.resolve())
    return sorted((folder / "val").glob("*/*"))


def prepared(image, protocol):
    if protocol == "caffe-squash":
        image = image.resize((256, 256), Image.Resampling.BICUBIC)
    elif protocol == "caffe-short":
        w, h = image.size
        size = (256, max(256, 256 * h // w)) if w < h else (max(256, 256 * w // h), 256)
        image = image.resize(size, Image.Resampling.BICUBIC)
    else:
        image = transforms.CenterCrop(224)(transforms.Resize(256)(image))
        return np.asarray(image).transpose(2, 0, 1)
    left, top = (image.width - 224) // 2, (image.height - 224) // 2
    return np.asarray(image)[top : top + 224, left : left + 224].transpose(2, 0, 1)


def compare_images(files, work):
    """Decoders enlarge colour planes differently, so the resizing is judged on pixels that Pillow decoded for both."""
    lossless = work / "lossless"
    for kind in ["jpeg", "lossless"]:
        folder = work / f"images-{kind}"
        sources = files
        if kind == "lossless":
            lossless.mkdir()
            sources = []
            for i, file in enumerate(files):
                sources.append(lossless / f"{i:05}.png")
                Image.open(file).convert("RGB").save(sources[-1], compress_level=1)
        listed = folder_of(sources, folder)
        for protocol in PROTOCOLS:
            if kind == "jpeg":
                remark(
                    f"{protocol}: decoded and resized, beside Pillow",
                    "(decoders differ)",
                    lambda: difference(folder, listed, protocol)[0],
                )
            else:
                judge(
                    f"{protocol}: resized, beside Pillow",
                    "mean < 0.5, at most 3",
                    lambda: difference(folder, listed, protocol),
                )


def difference(folder, listed, protocol):
    out = folder.parent / "crops.u8"
    shape = program("crops", folder, CLASSES, protocol, out)
    ours = np.fromfile(out, np.uint8).reshape(shape["images"], 3, 224, 224)
    total, most = 0.0, 0
    for image, file in zip(ours, listed, strict=True):
        off = np.abs(image.astype(int) - prepared(Image.open(file).convert("RGB"), protocol).astype(int))
        total, most = total + off.mean(), max(most, off.max())
    mean = total / len(listed)
    return f"mean {mean:.3f}, at most {most} of 255", mean < 0.5 and most <= 3


def torchvision_speed(folder, seconds):
    steps = [transforms.RandomResizedCrop(224), transforms.RandomHorizontalFlip(), transforms.ToTensor()]
    steps.append(transforms.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]))
    images = torchvision.datasets.ImageFolder(folder / "train", transforms.Compose(steps))
    loader = torch.utils.data.DataLoader(images, batch_size=32, num_workers=1, persistent_workers=True)
    warmed = sum(len(batch) for batch, _ in loader)  # starts the worker
    count, start = 0, time.monotonic()
    while time.monotonic() - start < seconds:
        for batch, _ in loader:
            count += len(batch)
    return count / (time.monotonic() - start), warmed + count


def processor_time():
    """Seconds of this process and its finished children: hardly affected by other work on the machine."""
    spent = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in spent)


def pillow_decoding(files, seconds):
    count, start = 0, time.monotonic()
    while time.monotonic() - start < seconds:
        for file in files:
            Image.open(file).convert("RGB")
        count += len(files)
    return count / (time.monotonic() - start)


def compare_loaders(files, work):
    """Ratios of neighbours in time, so that other work on the machine affects both."""
    folder = work / "loader"
    folder_of(files, folder)

    per_processor = []

    def loading():
        theirs, ours = [], []
        for _ in range(5):
            before = processor_time()
            speed, images = torchvision_speed(folder, 6)
            between = processor_time()
            found = program("loader", folder, CLASSES, 6)
            theirs.append(speed)
            ours.append(found["images_per_second"])
            # Starting the program and its libtorch is counted as ours.
            per_processor.append((found["images"] / (processor_time() - between), images / (between - before)))
        ratio, text = compared(ours, theirs)
        return text, ratio >= 1.5

    def decoding():
        theirs, ours = [], []
        for _ in range(3):
            theirs.append(pillow_decoding(files, 3))
            ours.append(program("decode", folder, CLASSES, 3)["images_per_second"])
        return compared(ours, theirs)[1]

    judge("loader, one thread, beside torchvision's", ">= 1.5", loading)
    if per_processor:
        text = compared(*zip(*per_processor))[1].replace("images/s", "images a second of processor time")
        note("the same by processor time", text, "(told, not judged)", "")
    remark("decoding alone, beside Pillow's", "(part of the loader)", decoding)


def compared(ours, theirs):
    ratio = statistics.median(a / b for a, b in zip(ours, theirs))
    return ratio, f"{ratio:.2f} ({statistics.median(ours):.0f} against {statistics.median(theirs):.0f} images/s)"


def shaken(net):
    """Statistics and scales that differ from their initial values, so that a mix-up shows."""
    for name, tensor in net.state_dict().items():
        if name.endswith("running_var"):
            tensor.uniform_(0.5, 1.5)
        elif name.endswith(("running_mean", "bias")):
            tensor.normal_(0, 0.1)
    return net.eval()


def compare_weights(work):
    images = torch.randn(2, 3, 224, 224, generator=torch.Generator().manual_seed(1))
    for name in ["vgg16", "vgg16_bn", "resnet50"]:
        torch.manual_seed(0)
        net = shaken(getattr(torchvision.models, name)(weights=None))
        state = net.state_dict()
        cases = [("zip", state, {}, "f32"), ("old container", state, {"_use_new_zipfile_serialization": False}, "f32")]
        if name == "resnet50":
            wrapped = {"state_dict": {f"module.{k}": v for k, v in state.items()}, "epoch": 90, "optimizer": {"lr": 0.1}}
            cases.append(("wrapped, module. in front", wrapped, {}, "f32"))
        if name == "vgg16":
            cases.append(("timm's names", timm(state), {}, "f32"))
            half = {k: v.half() for k, v in state.items()}
            cases.append(("fp16", half, {}, "f16"))
        for kind, saved, options, dtype in cases:
            path, golden = work / "weights.pth", work / "golden.safetensors"
            torch.save(saved, path, **options)
            if dtype == "f16":
                net.load_state_dict({k: v.float() for k, v in saved.items()})
            with torch.no_grad():
                save_file({"images": images, "logits": net(images)}, golden)
            judge(
                f"{name}, {kind}: logits beside PyTorch's",
                "<= 1e-4",
                lambda: imported(name.replace("_", "-"), path, golden, dtype),
            )
            path.unlink()


def imported(name, path, golden, dtype):
    found = program("logits", name, path, golden, dtype)
    size = path.stat().st_size / 2**20
    peaks = f"peak {found['import_peak_mib']}, with the forward pass {found['peak_mib']} MiB, file {size:.0f}"
    return f"{found['off']:.1e}, {found['layout']} names, {peaks}", found["off"] <= 1e-4


def timm(state):
    """The state of torchvision's VGG-16 as timm names and shapes it."""
    renamed = {}
    for name, tensor in state.items():
        for theirs, ours, shape in [
            ("classifier.0.", "pre_logits.fc1.", (4096, 512, 7, 7)),
            ("classifier.3.", "pre_logits.fc2.", (4096, 4096, 1, 1)),
            ("classifier.6.", "head.fc.", (1000, 4096)),
        ]:
            if name.startswith(theirs):
                name = name.replace(theirs, ours)
                tensor = tensor.reshape(shape) if name.endswith("weight") else tensor
        renamed[name] = tensor
    return renamed


def compare_exports(work):
    try:
        program("export", work)
    except ProgramError as error:
        return note("export of pruned nets", str(error), "<= 1e-4", "NO")
    for name in ["vgg16", "vgg16_bn", "resnet50"]:
        check = work / f"{name}.check.safetensors"
        command = [sys.executable, str(READER), str(work / f"{name}.safetensors"), "--check", str(check)]
        done = subprocess.run(command, capture_output=True, text=True)
        measured = (done.stdout.strip() or done.stderr.strip() or "nothing").splitlines()[-1]
        judge(f"export of a pruned {name}, read by PyTorch", "<= 1e-4", lambda: (measured, done.returncode == 0))


def main():
    with tempfile.TemporaryDirectory() as work:
        work = Path(work)
        compare_weights(work)
        compare_exports(work)
        if IMAGES is None:
            for name in ["images beside Pillow", "loader beside torchvision's"]:
                note(name, NOT_GIVEN, "", "not run")
        else:
            files = sorted(p for p in IMAGES.rglob("*") if p.suffix.lower() in (".jpg", ".jpeg"))
            if len(files) < CLASSES:
                raise SystemExit(f"{IMAGES} holds {len(files)} JPEG files, {CLASSES} or more are needed")
            compare_images(files, work)
            compare_loaders(files, work)
    OUT.parent.mkdir(parents=True, exist_ok=True)
    with open(OUT, "w", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows([("comparison", "measured", "required", "holds"), *rows])
    print_table()
    failed = sum(holds == "NO" for *_, holds in rows)
    print(f"{len(rows)} comparisons, {failed} do not hold; written: {OUT}")
    sys.exit(1 if failed else 0)


torch.set_num_threads(1)
os.environ["OMP_NUM_THREADS"] = "1"
main()
