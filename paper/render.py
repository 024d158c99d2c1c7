"""Turns figure specifications (results/figures/*.vl.json) into SVG and PNG beside them.

    .venv-paper/bin/python paper/render.py results/figures [NAME ...]

One font, Liberation Sans, which the wheel vl-convert-python ships: system fonts are hidden, and a specification that names another
font first is refused, so that every machine writes the same bytes. Pictures whose specification no longer exists are not touched.
"""

import contextlib
import json
import os
import pathlib
import sys
import tempfile

FONT = "Liberation Sans"
VEGA_LITE = "6.4"
SCALE = 2

HIDE_FONTS = """<?xml version="1.0"?>
<!DOCTYPE fontconfig SYSTEM "fonts.dtd">
<fontconfig><dir>{folder}</dir></fontconfig>
"""


def fail(what: str, fix: str) -> None:
    sys.exit(f"error: {what} — fix: {fix}")


def write(path: pathlib.Path, data: bytes) -> None:
    """Under a temporary name first, so that no half-written picture is left."""
    with tempfile.NamedTemporaryFile(dir=path.parent, suffix=".tmp", delete=False) as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    os.chmod(file.name, 0o644)
    os.replace(file.name, path)


def not_loaded(error: ImportError) -> None:
    fail(f"a wheel of paper/requirements.txt cannot be loaded ({error})", "scripts/setup-paper.sh")


@contextlib.contextmanager
def converter():
    """The module vl_convert, which finds no font but its own; exits with an error where it cannot be loaded."""
    with tempfile.TemporaryDirectory() as empty:
        # Read when the converter starts, so before it is imported.
        config = pathlib.Path(empty) / "fonts.conf"
        config.write_text(HIDE_FONTS.format(folder=pathlib.Path(empty) / "none"))
        os.environ["FONTCONFIG_FILE"] = str(config)
        try:
            import vl_convert
        except ImportError as error:
            not_loaded(error)
        yield vl_convert


def check_font(path: pathlib.Path, fonts: str) -> None:
    """Exits with an error unless a specification asks for the font of the wheel first."""
    if fonts.split(",")[0] != FONT:
        fail(f"{path} asks for the font {fonts}, not {FONT}", "thinet figures")


def main() -> None:
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    folder, names = pathlib.Path(sys.argv[1]), sys.argv[2:]
    specs = sorted(folder.glob("*.vl.json"))
    if names:
        specs = [spec for spec in specs if spec.name.removesuffix(".vl.json") in names]
    with converter() as vl_convert:
        try:
            import zopfli.png
        except ImportError as error:
            not_loaded(error)
        for path in specs:
            text = path.read_text()
            check_font(path, json.loads(text)["config"]["font"])
            name = path.name.removesuffix(".vl.json")
            svg = vl_convert.vegalite_to_svg(text, vl_version=VEGA_LITE)
            write(folder / f"{name}.svg", (svg + "\n").encode())
            png = vl_convert.svg_to_png(svg, scale=SCALE)
            # A quarter of the size; the slow search that gave the library its name would save a little more.
            png = zopfli.png.optimize(png, use_zopfli=False, filter_strategies="m")
            write(folder / f"{name}.png", png)
    print(f"rendered: {len(specs)} figures as SVG and PNG in {folder}")


if __name__ == "__main__":
    main()
