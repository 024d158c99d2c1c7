"""Typesets paper/thinet-rs.typ to paper/thinet-rs.pdf; with the fonts of the wheel alone and no date, so that the bytes are the same everywhere.

    .venv-paper/bin/python paper/build.py [OUTPUT.pdf]

The pictures are rendered first, from results/figures.
"""

import pathlib
import sys

import pictures
import typst
from render import write

HERE = pathlib.Path(__file__).resolve().parent


def main() -> None:
    output = pathlib.Path(sys.argv[1]) if len(sys.argv) > 1 else HERE / "thinet-rs.pdf"
    pictures.render()
    try:
        pdf = typst.compile(
            str(HERE / "thinet-rs.typ"), root=str(HERE.parent), format="pdf", ignore_system_fonts=True, timestamp=0
        )
    except typst.TypstError as error:
        sys.exit(f"error: the paper cannot be typeset: {error}")
    write(output, pdf)
    print(f"written: {output}")


if __name__ == "__main__":
    main()
