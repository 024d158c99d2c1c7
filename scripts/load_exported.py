#!/usr/bin/env python3
"""Loads a net that `thinet export` wrote into an ordinary PyTorch module. Needs torch and nothing else.

    python load_exported.py NET.safetensors [--check FILE]

prints the module and how its images are prepared; with FILE, a safetensors file of `images` and `logits`, it compares. In a
program:

    from load_exported import load, preprocess
    net, preprocessing = load("net.safetensors")
    logits = net(preprocess(images, preprocessing))         # images: bytes [n, c, h, w], RGB or grey

The module is a torch.fx.GraphModule in evaluation mode: it can be trained, traced, saved and scripted like any other, and
`net.code` shows what it computes. Its state dict has the names of the file.
"""

import json
import operator
import sys

import torch
from torch import fx, nn

DTYPES = {"F32": torch.float32, "F64": torch.float64, "I64": torch.int64}


def read(path):
    """The tensors and the metadata of a safetensors file."""
    with open(path, "rb") as file:
        header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
        data = bytearray(file.read())
    metadata = header.pop("__metadata__", {})
    tensors = {}
    for name, info in header.items():
        start, end = info["data_offsets"]
        dtype = DTYPES[info["dtype"]]
        count = (end - start) // dtype.itemsize
        tensors[name] = torch.frombuffer(data, dtype=dtype, count=count, offset=start).reshape(info["shape"]).clone()
    return tensors, metadata


def module(op, has_bias):
    """The module of a node; a convolution in front of a batch normalisation may have a bias in the file only."""
    kind = op["kind"]
    if kind == "conv":
        sizes = op["in_channels"], op["out_channels"], op["kernel"], op["stride"], op["padding"]
        return nn.Conv2d(*sizes, bias=has_bias)
    if kind == "batch-norm":
        return nn.BatchNorm2d(op["channels"], op["eps"], op["momentum"])
    if kind == "relu":
        return nn.ReLU()
    if kind == "max-pool":
        return nn.MaxPool2d(op["kernel"], op["stride"], op["padding"])
    if kind == "avg-pool":
        return nn.AvgPool2d(op["kernel"], op["stride"])
    if kind == "flatten":
        return nn.Flatten()
    if kind == "linear":
        return nn.Linear(op["in_features"], op["out_features"])
    if kind == "dropout":
        return nn.Dropout(op["p"])
    raise ValueError(f"a node of kind {kind!r} is not known; is load_exported.py older than the file?")


def attach(root, path, child):
    """Adds a module under a name with dots."""
    *folders, last = path.split(".")
    for folder in folders:
        if folder not in root._modules:
            root.add_module(folder, nn.Module())
        root = root._modules[folder]
    root.add_module(last, child)


def build(graph, names, tensors):
    """The module of a graph: nodes in order, each reading earlier ones; the last is the output."""
    root, traced, values = nn.Module(), fx.Graph(), []
    taken = set(names.values())
    for node in graph["nodes"]:
        op, inputs = node["op"], tuple(values[i] for i in node["inputs"])
        if op["kind"] == "input":
            values.append(traced.placeholder("images"))
        elif op["kind"] == "add":
            values.append(traced.call_function(operator.add, inputs))
        else:
            path = names.get(node["name"], node["name"])
            if path == node["name"] and path in taken:
                raise ValueError(f"the name {path!r} stands for two nodes")
            attach(root, path, module(op, f"{path}.bias" in tensors))
            values.append(traced.call_module(path, inputs))
    traced.output(values[-1])
    return fx.GraphModule(root, traced, graph["name"].replace("-", "_"))


def load(path):
    """The net in evaluation mode, and how its images are prepared (`None` if the file does not say)."""
    tensors, metadata = read(path)
    if "graph" not in metadata:
        raise ValueError(f"{path} holds no graph: it is not a file of thinet")
    if "names" not in metadata and metadata.get("layout", "own") != "own":
        raise ValueError(f"{path} was written by an older version, which did not record its names: export the net again")
    net = build(json.loads(metadata["graph"]), json.loads(metadata.get("names", "{}")), tensors)
    state = net.state_dict()
    for name, tensor in tensors.items():
        # timm stores VGG's first two linear layers as convolutions.
        if name in state and tensor.numel() == state[name].numel():
            tensors[name] = tensor.reshape(state[name].shape)
    keys = net.load_state_dict(tensors, strict=False)
    missing = [name for name in keys.missing_keys if not name.endswith("num_batches_tracked")]
    if missing or keys.unexpected_keys:
        raise ValueError(f"{path} does not fit its graph: {missing + keys.unexpected_keys}")
    preprocessing = metadata.get("preprocessing")
    return net.eval(), preprocessing and json.loads(preprocessing)


def preprocess(images, how):
    """Bytes [n, c, h, w], grey or RGB and resized already, to inputs: cut or padded, and only then normalised."""
    if images.dtype != torch.uint8 or images.dim() != 4:
        raise ValueError("images are bytes [n, c, h, w]")
    for axis, size in zip((2, 3), how["size"]):
        have = images.shape[axis]
        if have > size:
            images = images.narrow(axis, (have - size) // 2, size)
        before, after = max(0, size - have) // 2, (max(0, size - have) + 1) // 2
        images = nn.functional.pad(images, (0, 0) * (3 - axis) + (before, after))
    if how["channels"] == "bgr":
        images = images.flip(1)
    mean, std = (torch.tensor(how[key], dtype=torch.float32).reshape(1, -1, 1, 1) for key in ("mean", "std"))
    return (images.float() / (255 / how["range"]) - mean) / std


def main():
    net, preprocessing = load(sys.argv[1])
    print(net)
    print(f"preprocessing: {json.dumps(preprocessing) if preprocessing else 'not known, the file does not say'}")
    print(f"{sum(tensor.numel() for tensor in net.parameters())} parameters loaded")
    if "--check" in sys.argv:
        golden, _ = read(sys.argv[sys.argv.index("--check") + 1])
        with torch.no_grad():
            off = (net(golden["images"]) - golden["logits"]).abs().max() / golden["logits"].abs().max()
        print(f"logits differ by {off:.1e}")
        sys.exit(0 if off <= 1e-4 else 1)  # in this order, so that NaN fails


if __name__ == "__main__":
    if len(sys.argv) < 2 or sys.argv[1].startswith("-"):
        sys.exit(__doc__.strip())
    main()
