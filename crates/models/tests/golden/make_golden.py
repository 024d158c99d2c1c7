#!/usr/bin/env python3
"""Writes the golden files beside this script: what plain PyTorch computes for every network of the models crate.

    python make_golden.py        (torch 2.11 and safetensors; nothing else)

The networks are written here again as ordinary modules, without torchvision, so that a mistake in a builder or in
the executor of the Rust crate cannot hide. No weights are stored: both sides fill every tensor by `pattern`, a
formula. PyTorch computes in float64, so the comparison measures the error of the 32-bit side.

Per case `<case>.safetensors` holds, for the modes `eval` and `train`: logits, loss, the gradient of the first
convolution, and for every trainable tensor (metadata `parameters`) the norm of its gradient and the gradient's
product with a unit vector; after the training pass the same two numbers of every running statistic (metadata
`buffers`). `sgd-*.safetensors` holds losses and final tensors of four steps of `torch.optim.SGD`;
`schedules.safetensors` holds learning rates of torch's schedulers.
"""

import json
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import nn
from torch.nn import functional as F

HERE = Path(__file__).parent
BATCH = 4


def pattern(name, count):
    """count values in (-1, 1): sin(p + 0.7 i + 0.013 i^2), p the sum of the name's bytes."""
    i = torch.arange(count, dtype=torch.float64)
    return torch.sin(float(sum(name.encode())) + 0.7 * i + 0.013 * i * i)


def fill(net):
    """Sets every tensor from its name and shape."""
    with torch.no_grad():
        for name, tensor in list(net.named_parameters()) + list(net.named_buffers()):
            if name.endswith("num_batches_tracked"):
                continue
            values = pattern(name, tensor.numel())
            if tensor.dim() > 1:
                values = values * 2 / (tensor.numel() // tensor.shape[0]) ** 0.5
            elif name.endswith("running_var"):
                values = 1 + 0.5 * values
            elif name.endswith("bn3.weight"):
                values = 0.3 + 0.06 * values  # see `check_conditioning`
            elif name.endswith("weight"):
                values = 1 + 0.2 * values
            else:
                values = 0.1 * values
            tensor.copy_(values.view(tensor.shape))


def batch(input_shape, classes):
    images = pattern("images", BATCH * torch.Size(input_shape).numel()).view(BATCH, *input_shape)
    return images, torch.arange(BATCH) % classes


def scaled(channels, width):
    return int(channels * width + 1e-9)


class Vgg(nn.Module):
    """VGG-16. head: `4096` (the original), `gap` (global average for pool5), `cifar` (five pools, then average)."""

    def __init__(self, width, channels, size, classes, head, bn):
        super().__init__()
        self.head, self.bn = head, bn
        for stage, (convs, filters) in enumerate([(2, 64), (2, 128), (3, 256), (3, 512), (3, 512)], 1):
            filters = scaled(filters, width)
            for i in range(1, convs + 1):
                setattr(self, f"conv{stage}_{i}", nn.Conv2d(channels, filters, 3, padding=1, bias=not bn))
                if bn:
                    setattr(self, f"bn{stage}_{i}", nn.BatchNorm2d(filters))
                channels = filters
        if head == "4096":
            hidden = scaled(4096, width)
            self.fc6 = nn.Linear(channels * (size // 32) ** 2, hidden)
            self.fc7 = nn.Linear(hidden, hidden)
            self.fc8 = nn.Linear(hidden, classes)
        else:
            self.fc = nn.Linear(channels, classes)

    def forward(self, x):
        for stage, convs in enumerate([2, 2, 3, 3, 3], 1):
            for i in range(1, convs + 1):
                x = getattr(self, f"conv{stage}_{i}")(x)
                if self.bn:
                    x = getattr(self, f"bn{stage}_{i}")(x)
                x = F.relu(x)
            if stage < 5 or self.head != "gap":
                x = F.max_pool2d(x, 2)
        if self.head == "4096":
            x = x.flatten(1)
            return self.fc8(F.relu(self.fc7(F.relu(self.fc6(x)))))
        return self.fc(x.mean((2, 3)))


def projection(channels, filters, stride):
    return nn.Sequential(nn.Conv2d(channels, filters, 1, stride, bias=False), nn.BatchNorm2d(filters))


class Bottleneck(nn.Module):
    def __init__(self, channels, inner, filters, stride, stride_in_first, project):
        super().__init__()
        first, middle = (stride, 1) if stride_in_first else (1, stride)
        self.conv1 = nn.Conv2d(channels, inner, 1, first, bias=False)
        self.bn1 = nn.BatchNorm2d(inner)
        self.conv2 = nn.Conv2d(inner, inner, 3, middle, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(inner)
        self.conv3 = nn.Conv2d(inner, filters, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(filters)
        self.downsample = projection(channels, filters, stride) if project else nn.Identity()

    def forward(self, x):
        y = F.relu(self.bn1(self.conv1(x)))
        y = F.relu(self.bn2(self.conv2(y)))
        return F.relu(self.bn3(self.conv3(y)) + self.downsample(x))


class ResNet50(nn.Module):
    def __init__(self, width, channels, classes, stride_in_first):
        super().__init__()
        stem = scaled(64, width)
        self.conv1 = nn.Conv2d(channels, stem, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(stem)
        channels = stem
        for stage, (blocks, inner) in enumerate([(3, 64), (4, 128), (6, 256), (3, 512)], 1):
            layers, filters = [], scaled(4 * inner, width)
            for b in range(blocks):
                stride = 2 if stage > 1 and b == 0 else 1
                layers.append(
                    Bottleneck(channels, scaled(inner, width), filters, stride, stride_in_first, b == 0))
                channels = filters
            setattr(self, f"layer{stage}", nn.Sequential(*layers))
        self.fc = nn.Linear(channels, classes)

    def forward(self, x):
        x = F.max_pool2d(F.relu(self.bn1(self.conv1(x))), 3, 2, 1)
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return self.fc(x.mean((2, 3)))


class Basic(nn.Module):
    def __init__(self, channels, filters, stride):
        super().__init__()
        self.conv1 = nn.Conv2d(channels, filters, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(filters)
        self.conv2 = nn.Conv2d(filters, filters, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(filters)
        self.downsample = projection(channels, filters, stride) if stride > 1 else nn.Identity()

    def forward(self, x):
        y = F.relu(self.bn1(self.conv1(x)))
        return F.relu(self.bn2(self.conv2(y)) + self.downsample(x))


class CifarResNet(nn.Module):
    def __init__(self, blocks, width, channels, classes):
        super().__init__()
        stem = scaled(16, width)
        self.conv1 = nn.Conv2d(channels, stem, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(stem)
        channels = stem
        for stage, filters in enumerate([16, 32, 64], 1):
            layers, filters = [], scaled(filters, width)
            for b in range(blocks):
                layers.append(Basic(channels, filters, 2 if stage > 1 and b == 0 else 1))
                channels = filters
            setattr(self, f"layer{stage}", nn.Sequential(*layers))
        self.fc = nn.Linear(channels, classes)

    def forward(self, x):
        x = F.relu(self.bn1(self.conv1(x)))
        return self.fc(self.layer3(self.layer2(self.layer1(x))).mean((2, 3)))


class Tiny(nn.Module):
    def __init__(self, channels, size, classes, bn):
        super().__init__()
        self.bn = bn
        for i, filters in enumerate([8, 12, 16], 1):
            setattr(self, f"conv{i}", nn.Conv2d(channels, filters, 3, padding=1, bias=not bn))
            if bn:
                setattr(self, f"bn{i}", nn.BatchNorm2d(filters))
            channels = filters
        self.fc = nn.Linear(channels * (size // 2) ** 2, classes)

    def forward(self, x):
        for i in (1, 2, 3):
            x = getattr(self, f"conv{i}")(x)
            if self.bn:
                x = getattr(self, f"bn{i}")(x)
            x = F.relu(x)
            if i == 1:
                x = F.max_pool2d(x, 2)
        return self.fc(x.flatten(1))


# case: spec as the Rust side reads it, input shape, classes, module
CASES = {
    "vgg16": (
        {"arch": "vgg16", "width": 0.0625, "dropout": 0.0}, [3, 64, 64], 5,
        lambda: Vgg(0.0625, 3, 64, 5, "4096", False)),
    "vgg16-gap": (
        {"arch": "vgg16-gap", "width": 0.125}, [1, 32, 32], 10, lambda: Vgg(0.125, 1, 32, 10, "gap", False)),
    "cifar-vgg16": (
        {"arch": "cifar-vgg16", "width": 0.125}, [3, 32, 32], 10,
        lambda: Vgg(0.125, 3, 32, 10, "cifar", True)),
    "cifar-vgg16-no-bn": (
        {"arch": "cifar-vgg16", "width": 0.125, "batch-norm": False}, [3, 32, 32], 10,
        lambda: Vgg(0.125, 3, 32, 10, "cifar", False)),
    "resnet50-1x1": (
        {"arch": "resnet50", "width": 0.0625, "stride": "1x1"}, [3, 64, 64], 6,
        lambda: ResNet50(0.0625, 3, 6, True)),
    "resnet50-3x3": (
        {"arch": "resnet50", "width": 0.0625, "stride": "3x3"}, [3, 64, 64], 6,
        lambda: ResNet50(0.0625, 3, 6, False)),
    "cifar-resnet20": (
        {"arch": "cifar-resnet20", "width": 0.5}, [3, 16, 16], 10, lambda: CifarResNet(3, 0.5, 3, 10)),
    "cifar-resnet56": (
        {"arch": "cifar-resnet56", "width": 0.25}, [3, 16, 16], 10, lambda: CifarResNet(9, 0.25, 3, 10)),
    "tiny": ({"arch": "tiny"}, [3, 8, 8], 4, lambda: Tiny(3, 8, 4, True)),
    "tiny-no-bn": ({"arch": "tiny", "batch-norm": False}, [1, 8, 8], 4, lambda: Tiny(1, 8, 4, False)),
}


def made(build):
    net = build().double()
    fill(net)
    return net


def summary(tensor):
    """Norm, and product with the unit vector along `pattern("probe")`."""
    flat = tensor.detach().flatten().double()
    probe = pattern("probe", flat.numel())
    return torch.stack([flat.norm(), flat @ probe / probe.norm()])


def statistics(net):
    return {name: b for name, b in net.named_buffers() if not name.endswith("num_batches_tracked")}


def write(name, tensors, metadata):
    tensors = {key: value.contiguous() for key, value in tensors.items()}
    save_file(tensors, HERE / f"{name}.safetensors", {"golden": json.dumps(metadata, sort_keys=True)})


def gradients(build, images, labels, mode, kind):
    net = made(build).to(kind).train(mode == "train")
    F.cross_entropy(net(images.to(kind)), labels).backward()
    return [p.grad.double() for p in net.parameters()]


def check_conditioning(case):
    """PyTorch's own float32 must agree with its float64, or the case says nothing about another program.

    It does not where rounding flips a ReLU, or where a deep net amplifies it: with residual branches of full size the
    gradients of the ResNet-50s differed by 1e-2 in training mode, which is why `fill` makes the last scale of a branch small.
    """
    _, input_shape, classes, build = CASES[case]
    images, labels = batch(input_shape, classes)
    for mode in ("eval", "train"):
        double, single = (gradients(build, images, labels, mode, kind) for kind in (torch.float64, torch.float32))
        worst = max(((a - b).norm() / a.norm()).item() for a, b in zip(double, single))
        if worst > 5e-5:
            raise SystemExit(f"{case}, {mode}: float32 differs by {worst:.1e} in PyTorch itself; change the case")


def golden_case(case):
    check_conditioning(case)
    spec, input_shape, classes, build = CASES[case]
    images, labels = batch(input_shape, classes)
    tensors = {}
    for mode in ("eval", "train"):
        net = made(build).train(mode == "train")
        logits = net(images)
        loss = F.cross_entropy(logits, labels)
        loss.backward()
        tensors[f"{mode}.logits"] = logits.detach()
        tensors[f"{mode}.loss"] = loss.detach()
        tensors[f"{mode}.first"] = next(net.parameters()).grad.float()
        tensors[f"{mode}.gradients"] = torch.stack([summary(p.grad) for p in net.parameters()])
    buffers = statistics(net)
    if buffers:
        tensors["train.buffers"] = torch.stack([summary(b) for b in buffers.values()])
    write(case, tensors, {
        "spec": spec, "input": input_shape, "classes": classes,
        "parameters": [name for name, _ in net.named_parameters()], "buffers": list(buffers)})


def golden_sgd(name, bias_lr, bias_decay, nesterov=False):
    spec, input_shape, classes, build = CASES["tiny"]
    lr, momentum, decay = 0.05, 0.9, 5e-2
    net = made(build)
    named = dict(net.named_parameters())
    groups = [
        {"params": [p for n, p in named.items() if n.endswith("weight")]},
        {"params": [p for n, p in named.items() if n.endswith("bias")],
         "lr": lr * bias_lr, "weight_decay": decay * bias_decay},
    ]
    optimizer = torch.optim.SGD(groups, lr=lr, momentum=momentum, weight_decay=decay, nesterov=nesterov)
    images, labels = batch(input_shape, classes)
    losses = []
    for _ in range(4):
        optimizer.zero_grad()
        loss = F.cross_entropy(net(images), labels)
        loss.backward()
        optimizer.step()
        losses.append(loss.detach())
    buffers = statistics(net)
    tensors = {**named, **buffers}
    case = {
        "spec": spec, "input": input_shape, "classes": classes, "tensors": list(tensors),
        "lr": lr, "momentum": momentum, "weight-decay": decay, "bias-lr": bias_lr, "bias-decay": bias_decay}
    if nesterov:
        case["nesterov"] = True
    write(f"sgd-{name}", {
        "losses": torch.stack(losses), "tensors": torch.stack([summary(t) for t in tensors.values()])}, case)


def golden_schedules():
    base, total = 0.2, 12

    def rates(scheduler):
        optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=base)
        schedule = scheduler(optimizer)
        values = []
        for _ in range(total):
            values.append(optimizer.param_groups[0]["lr"])
            optimizer.step()
            schedule.step()
        return torch.tensor(values, dtype=torch.float64)

    step = lambda optimizer: torch.optim.lr_scheduler.MultiStepLR(optimizer, [4, 8], 0.1)
    cosine = lambda optimizer: torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, total)
    write("schedules", {"step": rates(step), "cosine": rates(cosine)}, {"base": base, "total": total})
    # Three steps an epoch; from the second epoch on, and from the third on.
    exponential = lambda optimizer: torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.95)
    epochs = rates(exponential)[:4]
    late = torch.cat([epochs[:1], epochs[:3]])
    write("exponential", {
        "from-1": epochs.repeat_interleave(3), "from-2": late.repeat_interleave(3)
    }, {"base": base, "total": total})


if __name__ == "__main__":
    torch.set_num_threads(1)
    for case in CASES:
        golden_case(case)
    golden_sgd("torch", 1.0, 1.0)
    golden_sgd("caffe", 2.0, 0.0)
    golden_sgd("nesterov", 1.0, 1.0, nesterov=True)
    golden_schedules()
