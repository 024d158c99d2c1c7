#!/usr/bin/env python3
"""Loads a file that `thinet export --layout torchvision` wrote into an ordinary PyTorch module of its widths.

    python load_exported.py NET.safetensors [--check FILE]      FILE holds `images` and `logits`
"""

import sys

import torch
from safetensors.torch import load_file
from torch import nn


def conv(state, name, stride=1):
    out, inputs, k, _ = state[f"{name}.weight"].shape
    return nn.Conv2d(inputs, out, k, stride, k // 2, bias=f"{name}.bias" in state)


def linear(state, name):
    return nn.Linear(*reversed(state[f"{name}.weight"].shape))


def vgg16(state):
    bn, layers = any("running_mean" in name for name in state), []
    for convs in (2, 2, 3, 3, 3):
        for _ in range(convs):
            layers.append(conv(state, f"features.{len(layers)}"))
            layers += [nn.BatchNorm2d(layers[-1].out_channels)] if bn else []
            layers.append(nn.ReLU())
        layers.append(nn.MaxPool2d(2))
    fc = [linear(state, f"classifier.{i}") for i in (0, 3, 6)]
    head = nn.Sequential(fc[0], nn.ReLU(), nn.Dropout(), fc[1], nn.ReLU(), nn.Dropout(), fc[2])
    return nn.ModuleDict({"features": nn.Sequential(*layers), "classifier": head})


class Bottleneck(nn.Module):
    def __init__(self, state, name, stride):
        super().__init__()
        for i, s in ((1, 1), (2, stride), (3, 1)):
            setattr(self, f"conv{i}", conv(state, f"{name}.conv{i}", s))
            setattr(self, f"bn{i}", nn.BatchNorm2d(getattr(self, f"conv{i}").out_channels))
        if f"{name}.downsample.0.weight" in state:
            project = conv(state, f"{name}.downsample.0", stride)
            self.downsample = nn.Sequential(project, nn.BatchNorm2d(project.out_channels))

    def forward(self, x):
        y = self.bn2(self.conv2(self.bn1(self.conv1(x)).relu())).relu()
        return (self.bn3(self.conv3(y)) + (self.downsample(x) if hasattr(self, "downsample") else x)).relu()


def resnet50(state):
    stem = conv(state, "conv1", 2)
    net = nn.ModuleDict({"conv1": stem, "bn1": nn.BatchNorm2d(stem.out_channels), "fc": linear(state, "fc")})
    for stage, blocks in enumerate((3, 4, 6, 3), 1):
        parts = [Bottleneck(state, f"layer{stage}.{b}", 2 if b == 0 and stage > 1 else 1) for b in range(blocks)]
        net[f"layer{stage}"] = nn.Sequential(*parts)
    return net


def forward(net, x):
    if "features" in net:
        return net["classifier"](net["features"](x).flatten(1))
    x = nn.functional.max_pool2d(net["bn1"](net["conv1"](x)).relu(), 3, 2, 1)
    for stage in range(1, 5):
        x = net[f"layer{stage}"](x)
    return net["fc"](x.mean((2, 3)))


def main():
    state = load_file(sys.argv[1])
    net = (vgg16 if "features.0.weight" in state else resnet50)(state).eval()
    keys = net.load_state_dict(state, strict=False)
    missing = [name for name in keys.missing_keys if not name.endswith("num_batches_tracked")]
    if missing or keys.unexpected_keys:
        sys.exit(f"does not fit: {missing + keys.unexpected_keys}")
    print(f"{len(state)} tensors loaded")
    if "--check" in sys.argv:
        golden = load_file(sys.argv[sys.argv.index("--check") + 1])
        with torch.no_grad():
            off = (forward(net, golden["images"]) - golden["logits"]).abs().max() / golden["logits"].abs().max()
        print(f"logits differ by {off:.1e}")
        sys.exit(0 if off <= 1e-4 else 1)  # in this order, so that NaN fails


main()
