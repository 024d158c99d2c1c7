"""Renders the paper's pictures from figure specifications (results/figures/*.vl.json) to SVG in paper/pictures/.

The same figures as in results/figures, for print: no title, as the caption under the picture has what it says; the paper's own font, which
typst ships; and panels of a size at which their text is not smaller than seven points.
"""

import json
import pathlib
import re

from render import VEGA_LITE, check_font, converter, fail, write

HERE = pathlib.Path(__file__).resolve().parent
FIGURES = HERE.parent / "results" / "figures"
PICTURES = HERE / "pictures"
FONT_OF_PAPER = "New Computer Modern"

# Pixels of an entry in the list of colours and marks, of a line of it, and between two panels with their axes.
ENTRY, LINE, BETWEEN = 188, 20, 60

# For each picture the panels that are drawn (all if None), how many of them stand in a row, and the size of one in pixels.
PICTURES_OF_PAPER = {
    "seeds-fashion-mnist-accuracy-flops": (None, 1, 330, 210),
    "seeds-fashion-mnist-reconstruction": ([1], 1, 340, 150),
    "cifar10-jpeg-vgg16-selection-accuracy-flops": (None, 1, 330, 170),
    "selectors-fashion-mnist-accuracy-flops": ([1, 2, 3], 3, 255, 190),
    "selectors-fashion-mnist-differences": ([0, 1, 2], 3, 185, 130),
    "cifar10-jpeg-vgg16-gap-selection-accuracy-flops": (None, 1, 330, 170),
    "ablation-tuning-fashion-mnist-differences": ([0, 1, 4, 5], 2, 130, 110),
    "ablation-calibration-fashion-mnist-samples": ([0, 1, 2], 3, 262, 160),
    "cifar10-jpeg-vgg16-calibration-draws": ([0, 3], 1, 330, 66),
    "seeds-fashion-mnist-agreement": ([0], 1, 250, 250),
    "latency-flops": ([0, 2], 1, 330, 170),
}


def is_key(panel: dict) -> bool:
    return "title" not in panel and "layer" in panel


def panels_of(spec: dict) -> tuple[dict, str]:
    """The part of a specification that lists its panels, and the key of the list."""
    for key in ("concat", "hconcat", "vconcat"):
        if key in spec:
            first = spec[key][0]
            return panels_of(first) if any(k in first for k in ("concat", "hconcat", "vconcat")) else (spec, key)
    raise ValueError("a figure without panels")


def arrange(key: dict, width: int) -> None:
    """Places the entries of a list of colours and marks in rows of this width, in their order."""
    entries = key["data"]["values"]
    columns = round(width / ENTRY)
    first, step = dict(entries[0]), ENTRY
    width = max(width, columns * ENTRY)
    for index, entry in enumerate(entries):
        moved = index % columns * step - (entry["middle"] - first["middle"])
        for place in ("from", "middle", "text", "to"):
            if place in entry:
                entry[place] += moved
        entry["y"] = index // columns * LINE
    rows = -(-len(entries) // columns)
    key["width"], key["height"] = width, rows * LINE
    key["encoding"]["y"]["scale"]["domain"] = [-LINE / 2, (rows - 0.5) * LINE]
    for layer in key["layer"]:
        layer["encoding"]["x"]["scale"]["domain"] = [0, width]


def for_print(spec: dict, wanted: list[int] | None, in_a_row: int, width: int, height: int) -> dict:
    spec.pop("title")
    # Letters of the paper's font are larger than those that the size of the picture is computed for.
    spec["padding"] = {"left": 16, "right": 4, "top": 12, "bottom": 4}
    owner, key = panels_of(spec)
    # Panels have titles; the one that lists colours and marks has none.
    panels = [panel for panel in owner[key] if "title" in panel]
    lists = [owner[key]] if owner is spec else [owner[key], spec["vconcat"]]
    keys = [panel for part in lists for panel in part if is_key(panel)]
    kept = [panels[index] for index in (wanted if wanted is not None else range(len(panels)))]
    for panel, letter in zip(kept, "abcdef"):
        panel["width"], panel["height"] = width, height
        # Panels of accuracy have letters, in the order in which they are drawn here.
        title = re.sub(r"^[a-f]\s+", "", panel["title"]["text"])
        is_lettered = title != panel["title"]["text"] and len(kept) > 1
        panel["title"]["text"] = f"{letter}\u2002{title}" if is_lettered else title
        x = panel.get("encoding", {}).get("x", {})
        if x.get("field") == "layer":
            x["axis"]["labelAngle"] = -50
    for key_of_colours in keys:
        arrange(key_of_colours, in_a_row * width + (in_a_row - 1) * BETWEEN)
    for list_of_parts in ("concat", "hconcat", "vconcat", "columns"):
        spec.pop(list_of_parts, None)
    spec["vconcat"] = [{"concat": kept, "columns": in_a_row}, *keys]
    return spec


def render() -> None:
    """Writes every picture; exits with an error where a specification is missing."""
    PICTURES.mkdir(exist_ok=True)
    with converter() as vl_convert:
        for name, layout in PICTURES_OF_PAPER.items():
            path = FIGURES / f"{name}.vl.json"
            if not path.exists():
                fail(f"the paper shows {path}, which is missing", "make figures")
            spec = for_print(json.loads(path.read_text()), *layout)
            fonts = spec["config"]["font"]
            check_font(path, fonts)
            svg = vl_convert.vegalite_to_svg(json.dumps(spec), vl_version=VEGA_LITE)
            write(PICTURES / f"{name}.svg", svg.replace(fonts, FONT_OF_PAPER).encode())


if __name__ == "__main__":
    render()
