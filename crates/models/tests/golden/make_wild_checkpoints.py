#!/usr/bin/env python3
"""Adds to the folder `checkpoints` what is found in practice: the weights of `vgg.pth` as other scripts and settings save them.

    python make_wild_checkpoints.py        (torch 2.11; run after make_checkpoints.py)

All files but `vgg-ema.pth`'s average hold the numbers of `vgg.pth`, so its logits are theirs. With the 21 letters of
`names-of-21-letters-x.pth` the first entry of the zip directory is as long as the records behind the directory.
"""

import zipfile
from pathlib import Path

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel

OUT = Path(__file__).parent / "checkpoints"


def save(obj, name, **options):
    torch.save(obj, OUT / name, **options)


def prefixed(state, prefix):
    return {f"{prefix}{name}": tensor for name, tensor in state.items()}


class Holder(nn.Module):
    """A module whose state dict has the names and numbers of `state`."""

    def __init__(self, state):
        super().__init__()
        for name, tensor in state.items():
            *path, last = name.split(".")
            at = self
            for part in path:
                if part not in at._modules:
                    at.add_module(part, nn.Module())
                at = at._modules[part]
            at.register_parameter(last, nn.Parameter(tensor.clone()))


def main():
    state = torch.load(OUT / "vgg.pth", weights_only=True)
    save(state, "names-of-21-letters-x.pth")
    for protocol in (1, 3, 4, 5):
        save(state, f"vgg-old-protocol{protocol}.pth", pickle_protocol=protocol, _use_new_zipfile_serialization=False)
    save(state, "vgg-protocol5.pth", pickle_protocol=5)
    with zipfile.ZipFile(OUT / "vgg.pth") as source:
        with zipfile.ZipFile(OUT / "vgg-deflated.pth", "w", zipfile.ZIP_DEFLATED) as target:
            for name in source.namelist():
                target.writestr(zipfile.ZipInfo(name), source.read(name), zipfile.ZIP_DEFLATED)
    torch.serialization.set_crc32_options(False)
    save(state, "vgg-no-checksums.pth")
    torch.serialization.set_crc32_options(True)
    save({"net": state, "acc": 93.02, "epoch": 199}, "vgg-net.pth")
    save(AveragedModel(Holder(state)).state_dict(), "vgg-averaged.pth")
    save({"state_dict": state, "state_dict_ema": {name: t * 0.5 for name, t in state.items()}}, "vgg-ema.pth")
    lightning = {"epoch": 1, "pytorch-lightning_version": "2.5.0", "state_dict": prefixed(state, "model."), "loops": {}}
    save(lightning, "vgg-lightning.ckpt")
    save({"model": prefixed(state, "_orig_mod.module."), "iteration": 7}, "vgg-compiled.pth")


main()
