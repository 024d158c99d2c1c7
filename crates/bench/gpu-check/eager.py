"""PyTorch's own eager loop on the nets of `gpu-check`: what our training and calibration are held against.

Written from the networks' description alone; needs torch and nothing else. Prints lines of JSON: `ready` when it stands,
then a `block` for every line `go SECONDS` on its input. By hand:

    echo "go 2" | python eager.py train --net resnet50 --precision bf16 --device cuda:0
"""

import argparse
import json
import math
import platform
import sys
import time

try:
    import torch
    from torch import nn
    from torch.nn import functional as F
except ImportError as missing:
    print(json.dumps({"error": f"no torch: {missing}"}), flush=True)
    sys.exit(1)

CLASSES = 1000
# Convolutions and their filters, stage by stage (Simonyan & Zisserman 2015, configuration D).
VGG_STAGES = [(2, 64), (2, 128), (3, 256), (3, 512), (3, 512)]
# Blocks and inner filters, stage by stage (He et al. 2016).
RESNET_STAGES = [(3, 64), (4, 128), (6, 256), (3, 512)]
# As in speed.rs.
LR, MOMENTUM, WEIGHT_DECAY = 1e-4, 0.9, 5e-4


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("work", choices=["facts", "train", "forward"])
    parser.add_argument("--net", choices=["vgg16", "resnet50"], default="resnet50")
    parser.add_argument("--precision", choices=["f32", "bf16"], default="f32")
    parser.add_argument("--device", default="cuda:0")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--width", type=float, default=1.0)
    parser.add_argument("--warm-up", type=int, default=5)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    return parser.parse_args()


def say(**message):
    print(json.dumps(message), flush=True)


class Bottleneck(nn.Module):
    """1x1, 3x3, 1x1, added to the input; strides in the first 1x1, as the paper's net."""

    def __init__(self, channels, inner, outer, stride, project):
        super().__init__()
        self.branch = nn.Sequential(
            nn.Conv2d(channels, inner, 1, stride, bias=False),
            nn.BatchNorm2d(inner),
            nn.ReLU(inplace=True),
            nn.Conv2d(inner, inner, 3, padding=1, bias=False),
            nn.BatchNorm2d(inner),
            nn.ReLU(inplace=True),
            nn.Conv2d(inner, outer, 1, bias=False),
            nn.BatchNorm2d(outer),
        )
        side = [nn.Conv2d(channels, outer, 1, stride, bias=False), nn.BatchNorm2d(outer)] if project else []
        self.side = nn.Sequential(*side)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x):
        return self.relu(self.branch(x) + self.side(x))


def vgg16(width, size):
    """The net, and its layers up to the activation behind conv3_2."""
    layers, channels = [], 3
    for convs, filters in VGG_STAGES:
        filters = math.floor(filters * width)
        for _ in range(convs):
            layers += [nn.Conv2d(channels, filters, 3, padding=1), nn.ReLU(inplace=True)]
            channels = filters
        layers.append(nn.MaxPool2d(2))
        size //= 2
    prefix = nn.Sequential(*layers[:14])
    layers.append(nn.Flatten())
    channels, hidden = channels * size * size, math.floor(4096 * width)
    for _ in range(2):
        layers += [nn.Linear(channels, hidden), nn.ReLU(inplace=True), nn.Dropout()]
        channels = hidden
    return nn.Sequential(*layers, nn.Linear(channels, CLASSES)), prefix


def resnet50(width, _size):
    """The net, and its layers up to the activation behind layer3.0.conv2."""
    channels = math.floor(64 * width)
    layers = [nn.Conv2d(3, channels, 7, 2, 3, bias=False), nn.BatchNorm2d(channels), nn.ReLU(inplace=True)]
    layers.append(nn.MaxPool2d(3, 2, 1))
    prefix = None
    for stage, (blocks, filters) in enumerate(RESNET_STAGES, start=1):
        inner, outer = math.floor(filters * width), math.floor(4 * filters * width)
        for block in range(blocks):
            first = block == 0
            bottleneck = Bottleneck(channels, inner, outer, 2 if first and stage > 1 else 1, project=first)
            if (stage, block) == (3, 0):
                prefix = nn.Sequential(*layers, *bottleneck.branch[:6])
            layers.append(bottleneck)
            channels = outer
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, CLASSES)), prefix


def initialise(net):
    for layer in net.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
        elif isinstance(layer, nn.Linear):
            nn.init.normal_(layer.weight, std=0.01)
            nn.init.zeros_(layer.bias)


def facts(device):
    found = {"python": platform.python_version(), "torch": torch.__version__}
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        found["gpu"] = properties.name
        found["compute capability"] = f"{properties.major}.{properties.minor}"
        found["gpu memory, MiB"] = str(properties.total_memory >> 20)
        found["cuda, of torch"] = str(torch.version.cuda)
        found["cudnn"] = str(torch.backends.cudnn.version())
    say(facts=found)


def training(arguments, net, images):
    labels = torch.tensor([image * 37 % CLASSES for image in range(arguments.batch)], device=images.device)
    sgd = torch.optim.SGD(net.parameters(), lr=LR, momentum=MOMENTUM, weight_decay=WEIGHT_DECAY)
    bf16 = arguments.precision == "bf16"

    def once():
        sgd.zero_grad()
        with torch.autocast(images.device.type, torch.bfloat16, enabled=bf16):
            logits = net(images)
        loss = F.cross_entropy(logits.float(), labels)
        loss.backward()
        sgd.step()
        value = loss.item()
        if not math.isfinite(value):
            raise ValueError(f"the loss is {value}")

    return once, list(images.shape)


def inference(prefix, images):
    prefix.eval()

    def once():
        with torch.no_grad():
            return prefix(images)

    return once, list(once().shape)


def serve(arguments, device):
    bf16 = arguments.precision == "bf16"
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = bf16
    torch.backends.cudnn.benchmark = False
    layout = torch.channels_last if bf16 else torch.contiguous_format
    net, prefix = {"vgg16": vgg16, "resnet50": resnet50}[arguments.net](arguments.width, arguments.size)
    initialise(net)
    # The prefix shares its layers with the net, so it moves with it.
    net.to(device, memory_format=layout)
    images = 2 * torch.rand(arguments.batch, 3, arguments.size, arguments.size, device=device) - 1
    images = images.to(memory_format=layout)
    parameters = sum(parameter.numel() for parameter in net.parameters())
    is_cuda = device.type == "cuda"
    if is_cuda:
        torch.cuda.reset_peak_memory_stats(device)
    once, shape = training(arguments, net, images) if arguments.work == "train" else inference(prefix, images)

    def wait():
        if is_cuda:
            torch.cuda.synchronize(device)

    for _ in range(arguments.warm_up):
        once()
    wait()
    say(ready={"parameters": parameters, "shape": shape})
    for line in sys.stdin:
        command, seconds = line.split()
        if command != "go":
            raise ValueError(f"{line!r} is not understood")
        count, start = 0, time.perf_counter()
        while count == 0 or time.perf_counter() - start < float(seconds):
            once()
            wait()
            count += 1
        taken = time.perf_counter() - start
        peak = torch.cuda.max_memory_allocated(device) if is_cuda else None
        say(block={"images": count * arguments.batch, "seconds": taken, "peak": peak})


def main():
    arguments = parse_arguments()
    device = torch.device(arguments.device)
    try:
        if device.type == "cuda" and not torch.cuda.is_available():
            raise RuntimeError(f"{arguments.device} was asked for and PyTorch finds no CUDA device")
        torch.set_num_threads(arguments.threads)
        torch.manual_seed(0)
        if arguments.work == "facts":
            facts(device)
        else:
            serve(arguments, device)
    except (RuntimeError, ValueError) as error:
        say(error=str(error).strip().splitlines()[0])
        sys.exit(1)


if __name__ == "__main__":
    main()
