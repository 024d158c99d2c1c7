#!/usr/bin/env python3
"""Writes the golden files beside this script: what Pillow decodes and resizes, and a `meta.mat` as scipy writes it.

    python make_images.py        (numpy, pillow and scipy; nothing else)

`cmyk.jpg`, `ycck.jpg`, `grey.jpg`, `exif.jpg` (with broken metadata) and `png-inside.JPEG` each have a `<name>.png` with
the RGB pixels that Pillow decodes. `picture.png` is a generated picture; `<filter>-<height>x<width>.png` are its sizes
by Pillow, `box-<filter>.png` is a part of it, cut out and then resized.
"""

from pathlib import Path

import numpy as np
from PIL import Image
from scipy.io import savemat

HERE = Path(__file__).parent


def picture(height, width):
    """Smooth waves, hard edges and some texture, RGB."""
    y, x = np.mgrid[0:height, 0:width].astype(float)
    waves = [np.sin(x / 9 + y / 23), np.cos(x / 31 - y / 7), np.sin((x * y) / 700)]
    planes = np.stack([127 + 100 * wave for wave in waves], axis=-1)
    planes[height // 3 : height // 2, width // 4 : width // 2] = (250, 20, 120)
    planes += ((x.astype(int) * 7 + y.astype(int) * 13) % 17)[..., None] - 8
    return Image.fromarray(np.clip(planes, 0, 255).astype(np.uint8))


def decoded(name):
    Image.open(HERE / name).convert("RGB").save(HERE / f"{name}.png", optimize=True)


def main():
    small = picture(40, 56)
    small.convert("CMYK").save(HERE / "cmyk.jpg", quality=92)
    # The same data under Adobe's transform 2, which says YCCK. Pillow cannot write it, but every reader obeys the mark.
    data = bytearray((HERE / "cmyk.jpg").read_bytes())
    mark = data.index(b"Adobe")
    assert data[mark + 11] == 0
    data[mark + 11] = 2
    (HERE / "ycck.jpg").write_bytes(data)
    small.convert("L").save(HERE / "grey.jpg", quality=92)
    # A metadata block that is cut off inside.
    small.save(HERE / "exif.jpg", quality=92, exif=b"Exif\x00\x00II*\x00\xff\xff\xff\x7f")
    small.save(HERE / "png-inside.JPEG", format="PNG", optimize=True)
    for name in ["cmyk.jpg", "ycck.jpg", "grey.jpg", "exif.jpg", "png-inside.JPEG"]:
        decoded(name)

    source = picture(75, 110)
    source.save(HERE / "picture.png", optimize=True)
    for name, filter in [("bicubic", Image.Resampling.BICUBIC), ("bilinear", Image.Resampling.BILINEAR)]:
        for height, width in [(32, 32), (32, 46), (96, 140), (75, 60)]:
            source.resize((width, height), filter).save(HERE / f"{name}-{height}x{width}.png", optimize=True)
        source.crop((13, 8, 73, 58)).resize((28, 28), filter).save(HERE / f"box-{name}.png", optimize=True)

    wnids = ["n02119789", "n01440764", "n09999999", "n00001740"]
    fields = [("ILSVRC2012_ID", object), ("WNID", object), ("words", object), ("num_children", object)]
    synsets = np.zeros((len(wnids), 1), dtype=fields)
    for i, wnid in enumerate(wnids):
        synsets[i, 0] = (np.array([[float(i + 1)]]), wnid, f"words of {wnid}", np.array([[0.0]]))
    savemat(HERE / "meta.mat", {"synsets": synsets}, do_compression=True)


main()
