#!/usr/bin/env python3
"""Writes the folder `checkpoints` beside this script: weight files as PyTorch and the libraries around it write them.

    python make_checkpoints.py        (torch 2.11 and safetensors; nothing else)

Narrow nets, so that the files are small. Each `<net>.logits.safetensors` holds images and the logits that PyTorch computes
for the net in float32; all files of a net hold the same numbers (`half-*`: rounded to 16 bits, with logits of their own).
`calls-system.pth` would run a command if it were unpickled.
"""

import os
from collections import OrderedDict
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import nn

OUT = Path(__file__).parent / "checkpoints"
STAGES = [(2, 4), (2, 4), (3, 6), (3, 6), (3, 8)]
HIDDEN = 10
CLASSES = 7


def vgg(bn):
    """torchvision's module tree for VGG-16, narrow, for 32x32 images."""
    layers, channels = [], 3
    for convs, filters in STAGES:
        for _ in range(convs):
            layers.append(nn.Conv2d(channels, filters, 3, padding=1))
            layers += [nn.BatchNorm2d(filters)] if bn else []
            layers.append(nn.ReLU())
            channels = filters
        layers.append(nn.MaxPool2d(2))
    # Twice the side of what is left, so that the first linear layer reads more than one place of a channel.
    net = nn.Module()
    net.features = nn.Sequential(*layers)
    linear = [nn.Linear(channels * 4, HIDDEN), nn.ReLU(), nn.Dropout(), nn.Linear(HIDDEN, HIDDEN), nn.ReLU(), nn.Dropout()]
    net.classifier = nn.Sequential(*linear, nn.Linear(HIDDEN, CLASSES))
    net.forward = lambda x: net.classifier(net.features(x).flatten(1))
    return net


class Bottleneck(nn.Module):
    def __init__(self, inputs, inner, stride, project):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(inputs, inner, 1, bias=False), nn.BatchNorm2d(inner)
        self.conv2, self.bn2 = nn.Conv2d(inner, inner, 3, stride, 1, bias=False), nn.BatchNorm2d(inner)
        self.conv3, self.bn3 = nn.Conv2d(inner, 4 * inner, 1, bias=False), nn.BatchNorm2d(4 * inner)
        if project:
            conv = nn.Conv2d(inputs, 4 * inner, 1, stride, bias=False)
            self.downsample = nn.Sequential(conv, nn.BatchNorm2d(4 * inner))

    def forward(self, x):
        y = self.bn1(self.conv1(x)).relu()
        y = self.bn3(self.conv3(self.bn2(self.conv2(y)).relu()))
        return (y + (self.downsample(x) if hasattr(self, "downsample") else x)).relu()


class ResNet(nn.Module):
    """torchvision's names for ResNet-50, at 1/32 of the width, for 64x64 images."""

    def __init__(self):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 2, 7, 2, 3, bias=False), nn.BatchNorm2d(2)
        self.maxpool, channels = nn.MaxPool2d(3, 2, 1), 2
        for stage, (blocks, inner) in enumerate([(3, 2), (4, 4), (6, 8), (3, 16)], 1):
            parts = []
            for b in range(blocks):
                parts.append(Bottleneck(channels, inner, 2 if b == 0 and stage > 1 else 1, b == 0))
                channels = 4 * inner
            setattr(self, f"layer{stage}", nn.Sequential(*parts))
        self.fc = nn.Linear(channels, CLASSES)

    def forward(self, x):
        x = self.maxpool(self.bn1(self.conv1(x)).relu())
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return self.fc(x.mean((2, 3)))


def shake(net):
    """Statistics and scales that are not at their start, so that a mix-up shows."""
    for name, tensor in net.state_dict().items():
        if name.endswith("running_var"):
            tensor.uniform_(0.5, 1.5)
        elif name.endswith(("running_mean", "bias")):
            tensor.normal_(0, 0.1)
        elif tensor.dim() == 1 and tensor.is_floating_point():
            tensor.uniform_(0.5, 1.5)
        elif tensor.dim() > 1:
            tensor.mul_(2)


def logits(net, size):
    net.eval()
    images = torch.randn(1, 3, size, size)
    return {"images": images, "logits": net(images).detach()}


def save(obj, name, old=False):
    torch.save(obj, OUT / name, _use_new_zipfile_serialization=not old)


class CallsSystem:
    def __reduce__(self):
        return os.system, ("touch /tmp/a-pickle-was-run",)


def main():
    torch.manual_seed(0)
    OUT.mkdir(exist_ok=True)
    for name, net, size in [("vgg", vgg(False), 64), ("vgg-bn", vgg(True), 64), ("resnet", ResNet(), 64)]:
        shake(net)
        state = net.state_dict()
        save_file(logits(net, size), OUT / f"{name}.logits.safetensors")
        save(state, f"{name}.pth")
        save(state, f"{name}-old.pth", old=True)
        if name == "resnet":
            optimiser = torch.optim.SGD(net.parameters(), 0.1, momentum=0.9)
            net(torch.randn(2, 3, size, size)).sum().backward()
            wrapped = {"epoch": 3, "arch": "resnet50", "state_dict": OrderedDict((f"module.{k}", v) for k, v in state.items())}
            save({**wrapped, "optimizer": optimiser.state_dict(), "best": torch.tensor(1.5)}, "resnet-wrapped.pth.tar")
        if name == "vgg":
            parts = {k.replace("features.", "features.module."): v for k, v in state.items()}
            save({"state_dict": parts}, "vgg-parts.pth", old=True)
            mixed = {k if "features.0" in k else k.replace("features.", "features.module."): v for k, v in state.items()}
            save(mixed, "vgg-mixed.pth")
            save({"model": state, "args": None, "losses": [1.0, 0.5]}, "vgg-model.pth")
            save({"model": state, "state_dict": state}, "vgg-twice.pth")
            save_file(dict(state), OUT / "vgg.safetensors")
            timm = {k: v for k, v in state.items() if k.startswith("features.")}
            for i, other in [(0, "pre_logits.fc1"), (3, "pre_logits.fc2"), (6, "head.fc")]:
                weight = state[f"classifier.{i}.weight"]
                shape = {0: (HIDDEN, STAGES[-1][1], 2, 2), 3: (HIDDEN, HIDDEN, 1, 1), 6: (CLASSES, HIDDEN)}[i]
                timm[f"{other}.weight"] = weight.reshape(shape).contiguous()
                timm[f"{other}.bias"] = state[f"classifier.{i}.bias"]
            save_file(timm, OUT / "vgg-timm.safetensors")
            # Tensors that are views: turned, shared and in the middle of a storage.
            turned = dict(state)
            turned["classifier.3.weight"] = state["classifier.3.weight"].t().contiguous().t()
            both = torch.cat([state["classifier.6.bias"], state["classifier.0.bias"]])
            turned["classifier.6.bias"], turned["classifier.0.bias"] = both[:CLASSES], both[CLASSES:]
            save(turned, "vgg-views.pth")
            save(turned, "vgg-views-old.pth", old=True)
            half = {k: v.half() for k, v in state.items()}
            save(half, "half-vgg.pth")
            net.load_state_dict({k: v.float() for k, v in half.items()})
            save_file(logits(net, size), OUT / "half-vgg.logits.safetensors")
    save({"state_dict": CallsSystem()}, "calls-system.pth")
    save(CallsSystem(), "calls-system-old.pth", old=True)


main()
