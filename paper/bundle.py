"""Writes Vega, Vega-Lite and Vega-Embed as one script, from the wheel vl-convert-python: what draws the figures of the report.

    .venv-paper/bin/python paper/bundle.py results/report/vega.js
"""

import pathlib
import sys

from render import VEGA_LITE, fail, write


def main() -> None:
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    path = pathlib.Path(sys.argv[1])
    try:
        import vl_convert
    except ImportError as error:
        fail(f"a wheel of paper/requirements.txt cannot be loaded ({error})", "scripts/setup-paper.sh")
    write(path, vl_convert.javascript_bundle(vl_version=VEGA_LITE).encode())


if __name__ == "__main__":
    main()
