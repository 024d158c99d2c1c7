"""Speeds of ours beside PyTorch's eager loop, which is run in this process: training, inference; calibration; loaders."""

import gc
import os
import statistics
import time

import torch
from torch import nn
from torch.nn import functional as F

import card
from report import OutOfTime

FREE_RUNS = 20  # between two waits for the device, as in speed.rs
# Net and batch, most wanted first.
CONFIGURATIONS = [("vgg16", 64), ("resnet50", 64), ("cifar-resnet56", 128), ("resnet50", 256), ("vgg16", 256)]
# The one that a CPU can do in seconds.
SMALL = [("cifar-resnet56", 128)]
PRECISION = "bf16"


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


NETS = {"vgg16": vgg16, "resnet50": resnet50, "cifar-resnet56": cifar_resnet56}


def wait(device):
    if device.startswith("cuda"):
        torch.cuda.synchronize(device)


def speed(once, batch, seconds, device):
    for _ in range(3):
        once()
    wait(device)
    count, start = 0, time.monotonic()
    while time.monotonic() - start < seconds:
        once()
        count += 1
        if count % FREE_RUNS == 0:
            wait(device)
    wait(device)
    return count * batch / (time.monotonic() - start)


def prepared(name, batch, device):
    """Net and images in channels last, with TF32 as in our program."""
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    net = NETS[name]().to(device, memory_format=torch.channels_last)
    side, classes = (32, 10) if name.startswith("cifar-") else (224, 1000)
    images = torch.randn(batch, 3, side, side, device=device).to(memory_format=torch.channels_last)
    return net, images, classes


def torch_training(name, batch, seconds, device):
    net, images, classes = prepared(name, batch, device)
    sgd = torch.optim.SGD(net.parameters(), 1e-4, momentum=0.9, weight_decay=5e-4)
    labels = torch.arange(batch, device=device) % classes

    def once():
        sgd.zero_grad(set_to_none=True)
        with torch.autocast(device.split(":")[0], torch.bfloat16):
            logits = net(images)
        loss = F.cross_entropy(logits.float(), labels)
        loss.backward()
        sgd.step()

    return speed(once, batch, seconds, device)


def torch_forward(name, batch, seconds, device):
    net, images, _ = prepared(name, batch, device)
    net.eval()
    with torch.no_grad(), torch.autocast(device.split(":")[0], torch.bfloat16):
        return speed(lambda: net(images), batch, seconds, device)


class Speeds:
    def __init__(self, report, rounds):
        self.report, self.rounds = report, 1 if report.tiny else rounds
        self.seconds = 0.5 if report.tiny else 2
        self.batch = 2 if report.tiny else 64

    def training(self):
        self.beside_torch("training", "train", torch_training, SMALL if self.report.tiny else CONFIGURATIONS)

    def inference(self):
        self.beside_torch("inference", "infer", torch_forward, SMALL if self.report.tiny else CONFIGURATIONS)

    def beside_torch(self, section, word, theirs, configurations):
        """All configurations once, then all again: if the time ends, the first round of the most wanted ones is there. In a round ours
        and PyTorch's follow each other, so that a change of the machine's clock hits both."""
        ratios = {}
        try:
            for number in range(1, self.rounds + 1):
                for net, batch in configurations:
                    batch = min(batch, self.batch) if self.report.tiny else batch
                    name = f"{net}, {PRECISION}, batch {batch}"
                    try:
                        ratio = self.pair(section, name, word, theirs, net, batch, number)
                    except OutOfTime as error:
                        if number > 1:
                            return
                        self.report.not_run(section, name, "images a second", error)
                    except Exception as error:
                        self.report.not_run(section, name, "images a second", error)
                    else:
                        ratios.setdefault(name, []).append(ratio)
        finally:
            for name, found in ratios.items():
                if len(found) > 1:
                    median = f"{statistics.median(found):.3f}"
                    self.report.note(section, name, "ours over PyTorch, median", median, "", f"{len(found)} rounds")

    def pair(self, section, name, word, theirs, net, batch, number):
        report, device = self.report, self.report.device
        with watching(report) as watch:
            ours = report.call(word, net, PRECISION, batch, self.seconds, device)
        if number == 1:
            report.note(section, name, "ours", f"{ours['images_per_second']:.1f}", "images/s")
            watch.note(report, section, name, ours["from"], ours["to"])
            if word == "train" and report.is_gpu:
                report.note(section, name, "peak memory of ours", ours["peak_mib"], "MiB")
        report.left()
        problem = None
        try:
            found = theirs(net, batch, self.seconds, device)
        except Exception as error:
            problem = f"PyTorch: {type(error).__name__}: {error}"
        # After the error, which holds what did not fit.
        gc.collect()
        if report.is_gpu:
            torch.cuda.empty_cache()
        if problem:
            raise RuntimeError(problem)
        ratio = ours["images_per_second"] / found
        if number == 1:
            report.note(section, name, "PyTorch eager", f"{found:.1f}", "images/s")
            report.note(section, name, "ours over PyTorch", f"{ratio:.3f}")
        return ratio

    def calibration(self):
        for net in ["vgg16-gap", "resnet50"]:
            self.report.attempt("calibration", net, "images a second", lambda: self.calibrate(net))  # noqa: B023

    def calibrate(self, net):
        found = self.report.call("calibrate", net, self.batch, self.seconds, self.report.device)
        name = f"{net}, up to {found['layer']}"
        self.report.note("calibration", name, "ours", f"{found['images_per_second']:.1f}", "images/s")
        self.report.note("calibration", name, "bare pass over the same layers", f"{found['bare']:.1f}", "images/s")
        self.report.note("calibration", name, "ours over the bare pass", f"{found['images_per_second'] / found['bare']:.3f}")

    def loader(self):
        """Training on photographs from a prepared file; then photographs a second that reach the device as bytes, decoded and from such
        a file, by one thread and by all cores."""
        self.report.attempt("loader", "training fed from a file", "images a second", self.fed)
        images, cores = (8, 2) if self.report.tiny else (64, os.cpu_count())
        for way, threads in [("prepared", cores), ("decoding", 1), ("prepared", 1)]:
            name = f"{way}, {threads} loader thread{'s' if threads > 1 else ''}"
            words = ["load", way, images, self.seconds, threads, self.report.device]
            found = self.report.attempt("loader", name, "images a second", lambda: self.report.call(*words))  # noqa: B023
            if found is not None:
                self.report.note("loader", name, "ours", f"{found['images_per_second']:.1f}", "images/s", found["source"])

    def fed(self):
        net, report = "resnet50", self.report
        with watching(report) as watch:
            found = report.call("fed", net, self.batch, self.seconds, report.device)
        name = f"{net}, {PRECISION}, batch {self.batch}, fed"
        report.note("loader", name, "from a prepared file", f"{found['images_per_second']:.1f}", "images/s", found["source"])
        report.note("loader", name, "the same batch again and again", f"{found['fixed']:.1f}", "images/s")
        lost = 100 * (1 - found["images_per_second"] / found["fixed"])
        report.note("loader", name, "what feeding costs", f"{lost:.1f}", "%", "of the images a second")
        watch.note(report, "loader", name, found["from"], found["to"])


def watching(report):
    """Watches the card; on a CPU only where the checks themselves are checked."""
    return card.Watch(report.device if report.is_gpu or report.tiny else None)
