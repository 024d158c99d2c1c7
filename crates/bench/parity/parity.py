#!/usr/bin/env python3
"""Compares this project with Pillow, torchvision and PyTorch: image preparation, loader, weights in and out.

    python parity.py PROGRAM OUT.csv [IMAGES]

PROGRAM is the built `parity`; IMAGES a folder with JPEG files anywhere below it. Prints a line for each comparison and
ends with 1 if one does not hold. Run by scripts/parity.sh, with torch, torchvision, pillow, numpy and safetensors.
Pillow is held at 11.3: it resizes along the rows first, as it did when the paper was written; later versions turn the
order round for some tall images, which moves single pixels by up to 11 of 255 and the mean by 0.2.
"""

import csv
import json
import os
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
NOT_GIVEN = "not run: give IMAGES=/folder/of/jpegs"
rows = []


def note(name, measured, required, holds):
    rows.append((name, measured, required, holds))
    print(f"{name:<58} {measured:>28}  required {required:<22} {holds}", flush=True)


def judge(name, measured, text, required, holds):
    note(name, text.format(measured), required, "yes" if holds else "NO")


def program(*arguments):
    done = subprocess.run([PROGRAM, *map(str, arguments)], capture_output=True, text=True)
    if done.returncode != 0:
        raise SystemExit(f"{PROGRAM} {' '.join(map(str, arguments))}: {done.stderr.strip()}")
    return json.loads(done.stdout)


def folder_of(files, folder):
    """ImageNet's layout made of links: the files dealt out to classes, the same ones for training and validation."""
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
        for protocol in ["caffe-squash", "caffe-short", "torchvision"]:
            out = work / "crops.u8"
            shape = program("crops", folder, CLASSES, protocol, out)
            ours = np.fromfile(out, np.uint8).reshape(shape["images"], 3, 224, 224)
            total, most = 0.0, 0
            for image, file in zip(ours, listed, strict=True):
                theirs = prepared(Image.open(file).convert("RGB"), protocol)
                off = np.abs(image.astype(int) - theirs.astype(int))
                total, most = total + off.mean(), max(most, off.max())
            mean = total / len(listed)
            text = f"mean {mean:.3f}, at most {most} of 255"
            if kind == "jpeg":
                note(f"{protocol}: decoded and resized, beside Pillow", text, "(decoders differ)", "")
            else:
                judge(f"{protocol}: resized, beside Pillow", text, "{}", "mean < 0.5, at most 3", mean < 0.5 and most <= 3)


def torchvision_speed(folder, seconds):
    torch.set_num_threads(1)
    steps = [transforms.RandomResizedCrop(224), transforms.RandomHorizontalFlip(), transforms.ToTensor()]
    steps.append(transforms.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]))
    images = torchvision.datasets.ImageFolder(folder / "train", transforms.Compose(steps))
    loader = torch.utils.data.DataLoader(images, batch_size=32, num_workers=1, persistent_workers=True)
    for _ in loader:  # starts the worker
        pass
    count, start = 0, time.monotonic()
    while time.monotonic() - start < seconds:
        for batch, _ in loader:
            count += len(batch)
    return count / (time.monotonic() - start)


def compare_loaders(files, work):
    folder = work / "loader"
    folder_of(files, folder)
    ours, theirs = [], []
    for _ in range(5):
        theirs.append(torchvision_speed(folder, 6))
        ours.append(program("loader", folder, CLASSES, 6)["images_per_second"])
    ratio = statistics.median(a / b for a, b in zip(ours, theirs))
    speeds = f"{statistics.median(ours):.0f} against {statistics.median(theirs):.0f} images/s"
    judge("loader, one thread, beside torchvision's", f"{ratio:.2f} ({speeds})", "{}", ">= 1.5", ratio >= 1.5)


def shaken(net):
    """Statistics and scales that are not at their start, so that a mix-up shows."""
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
            half = {k: v.half() for k, v in state.items()}
            cases.append(("fp16", half, {}, "f16"))
        for kind, saved, options, dtype in cases:
            path, golden = work / "weights.pth", work / "golden.safetensors"
            torch.save(saved, path, **options)
            if dtype == "f16":
                net.load_state_dict({k: v.float() for k, v in saved.items()})
            with torch.no_grad():
                save_file({"images": images, "logits": net(images)}, golden)
            found = program("logits", name.replace("_", "-"), path, golden, dtype)
            size = path.stat().st_size / 2**20
            text = f"{found['off']:.1e}, peak {found['import_peak_mib']} MiB of {size:.0f}"
            judge(f"{name}, {kind}: logits beside PyTorch's", text, "{}", "<= 1e-4", found["off"] <= 1e-4)
            path.unlink()


def compare_exports(work):
    program("export", work)
    for name in ["vgg16", "resnet50"]:
        check = work / f"{name}.check.safetensors"
        command = [sys.executable, str(READER), str(work / f"{name}.safetensors"), "--check", str(check)]
        done = subprocess.run(command, capture_output=True, text=True)
        measured = (done.stdout.strip() or done.stderr.strip()).splitlines()[-1]
        judge(f"export of a pruned {name}, read by PyTorch", measured, "{}", "<= 1e-4", done.returncode == 0)


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
        csv.writer(file).writerows([("comparison", "measured", "required", "holds"), *rows])
    failed = sum(holds == "NO" for *_, holds in rows)
    print(f"{len(rows)} comparisons, {failed} do not hold; written: {OUT}")
    sys.exit(1 if failed else 0)


os.environ["OMP_NUM_THREADS"] = "1"
main()
