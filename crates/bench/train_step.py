"""PyTorch's own eager training step of VGG-16-GAP, timed on request: the reference of the bench.

Written from the network's description alone. Prints `ready VERSION PARAMETERS`, then for every line `go N` on its
input runs N steps and prints the seconds that they took. By hand:

    echo "go 20" | python crates/bench/train_step.py
"""

import argparse
import math
import sys
import time

try:
    import torch
    from torch import nn
except ImportError as error:
    print(f"no torch: {error}", flush=True)
    sys.exit(1)

# Convolutions and their filters, stage by stage (Simonyan & Zisserman 2015, configuration D).
STAGES = [(2, 64), (2, 128), (3, 256), (3, 512), (3, 512)]


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--width", type=float, default=0.125)
    parser.add_argument("--channels", type=int, default=1)
    parser.add_argument("--size", type=int, default=32)
    parser.add_argument("--classes", type=int, default=10)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--lr", type=float, default=1e-4)
    parser.add_argument("--momentum", type=float, default=0.9)
    parser.add_argument("--weight-decay", type=float, default=5e-4)
    parser.add_argument("--threads", type=int, default=1)
    return parser.parse_args()


def vgg16_gap(width, channels, size, classes):
    """Thirteen convolutions, four max pools, an average over what they leave, one linear layer."""
    layers = []
    for stage, (convs, published) in enumerate(STAGES, start=1):
        filters = int(published * width)
        for _ in range(convs):
            layers += [nn.Conv2d(channels, filters, 3, padding=1), nn.ReLU(inplace=True)]
            channels = filters
        if stage < len(STAGES):
            layers.append(nn.MaxPool2d(2))
            size //= 2
    return nn.Sequential(*layers, nn.AvgPool2d(size), nn.Flatten(), nn.Linear(channels, classes))


def initialise(net):
    for layer in net:
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
            nn.init.zeros_(layer.bias)
        elif isinstance(layer, nn.Linear):
            nn.init.normal_(layer.weight, std=0.01)
            nn.init.zeros_(layer.bias)


def main():
    arguments = parse_arguments()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    net = vgg16_gap(arguments.width, arguments.channels, arguments.size, arguments.classes)
    initialise(net)
    net = net.to(memory_format=torch.channels_last)
    images = 2 * torch.rand(arguments.batch, arguments.channels, arguments.size, arguments.size) - 1
    images = images.to(memory_format=torch.channels_last)
    labels = torch.arange(arguments.batch) % arguments.classes
    loss_of = nn.CrossEntropyLoss()
    optimizer = torch.optim.SGD(
        net.parameters(), lr=arguments.lr, momentum=arguments.momentum, weight_decay=arguments.weight_decay
    )

    def step():
        optimizer.zero_grad()
        loss = loss_of(net(images), labels)
        loss.backward()
        optimizer.step()
        return loss.item()

    print("ready", torch.__version__, sum(parameter.numel() for parameter in net.parameters()), flush=True)
    for line in sys.stdin:
        command, count = line.split()
        assert command == "go", line
        start = time.perf_counter()
        for _ in range(int(count)):
            loss = step()
        seconds = time.perf_counter() - start
        assert math.isfinite(loss), f"the loss is {loss}"
        print(f"{seconds:.9f}", flush=True)


if __name__ == "__main__":
    main()
