"""Checks that every number of the paper comes from the tables: no digits in its prose, and every printed number is what its cell rounds to.

    .venv-paper/bin/python paper/check.py

The findings in README.md and docs/findings.md are checked as well, against the cells that the comment after each names.
"""

import csv
import decimal
import json
import pathlib
import re
import sys
import tomllib

import pictures
import typst

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent
TABLES = ROOT / "results" / "tables"
MAIN = HERE / "thinet-rs.typ"

# Columns by whose values cells are chosen.
KEYS = ["variant", "method", "keep_rate", "seed", "images_per_class", "positions_per_image", "stage", "against", "verdict", "model", "convention"]

# A keep rate in a finding.
KEEP_RATE = r"\b0\.\d+\b"

# Names of nets, measures and layers that hold digits.
NAMES = re.compile(r"\b(?:VGG-16|ResNet-50|ResNet-20|ThiNet-[357]0|CUB-200|CIFAR-10|bfloat16|[Tt]op-[15]|95 %|64-bit)")


def prose(text: str) -> str:
    """The text of a section without code, formulas, comments, references and raw text."""
    text = re.sub(r"^\s*//.*$", "", text, flags=re.M)
    text = re.sub(r"`[^`]*`", "", text)
    text = re.sub(r"\$[^$]*\$", "", text)
    text = re.sub(r"<[a-z-]+>|@[a-z-]+", "", text)
    kept, at = [], 0
    while at < len(text):
        if text[at] != "#":
            kept.append(text[at])
            at += 1
            continue
        at = skip_code(text, at + 1, kept)
    return "".join(kept)


def skip_code(text: str, at: int, kept: list[str]) -> int:
    """Steps over what begins after `#`: a name with its arguments, a block `{…}`, or a statement to the end of its line. The
    content blocks in it are prose again."""
    is_statement = re.compile(r"(?:let|import|include|set|show)\b").match(text, at)
    while at < len(text):
        if text[at] in "({":
            at = skip_brackets(text, at, kept)
        elif text[at] == "[":
            at = skip_content(text, at, kept)
        elif text[at] == '"' and is_statement:
            at = text.index('"', at + 1) + 1
        elif text[at].isalnum() or text[at] in "-_" or is_statement and text[at] != "\n":
            at += 1
        elif text[at] == "." and text[at + 1 : at + 2].isalpha():
            at += 1
        else:
            return at
    return at


def skip_brackets(text: str, at: int, kept: list[str]) -> int:
    """Steps over `(…)` or `{…}`."""
    end = {"(": ")", "{": "}"}[text[at]]
    at += 1
    while text[at] != end:
        if text[at] == '"':
            at = text.index('"', at + 1) + 1
        elif text[at] in "({":
            at = skip_brackets(text, at, kept)
        elif text[at] == "[":
            at = skip_content(text, at, kept)
        else:
            at += 1
    return at + 1


def skip_content(text: str, at: int, kept: list[str]) -> int:
    """Steps over `[…]`, keeping its prose."""
    end = closing(text, at)
    kept.append(prose(text[at + 1 : end]) + " ")
    return end + 1


def closing(text: str, at: int) -> int:
    """The `]` that closes the `[` at this place."""
    depth = 0
    for place in range(at, len(text)):
        depth += {"[": 1, "]": -1}.get(text[place], 0)
        if depth == 0:
            return place
    raise ValueError(f"no ] closes {text[at : at + 40]!r}")


def typed_digits() -> list[str]:
    """Words with digits in the prose; formulas and raw text with digits; strings of code that no table knows as a name or a key."""
    found = []
    known = names_of_tables()
    for path in sorted([MAIN, HERE / "study.typ", *HERE.glob("sections/*.typ")]):
        text = re.sub(r"(^|(?<=\s))//.*$", "", path.read_text(), flags=re.M)
        typed = re.findall(r"\S*\d\S*", NAMES.sub("", prose(text)))
        typed += [raw for raw in re.findall(r"`[^`]*`", text) if re.search(r"\d", raw)]
        # Squares, sums from one and the two of a derivative are no results.
        typed += [formula for formula in re.findall(r"\$[^$]*\$", text) if re.search(r"[3-9]|\d[\d.]", formula)]
        in_code = [string for string in re.findall(r'"([^"\n]*)"', outside_content(text)) if re.search(r"\d", string)]
        typed += [string for string in in_code if string not in known]
        found += [f"{path.relative_to(ROOT)}: {word!r} is typed; take it from a table with lookup.typ" for word in typed]
    return found


def outside_content(text: str) -> str:
    """The text without page settings, and without formulas and raw text, whose quotes are not those of strings."""
    text = re.sub(r"^#(set|show) .*$", "", text, flags=re.M)
    return re.sub(r"`[^`]*`|\$[^$]*\$", "", text)


def names_of_tables() -> set[str]:
    """Names of tables, their columns, and their cells that are names or keys, not measurements."""
    known = set()
    for path in TABLES.glob("*.csv"):
        known.add(path.stem)
        with open(path, newline="") as file:
            for row in csv.DictReader(file):
                known.update(row)
                known.update(row[key] for key in KEYS if key in row)
    stems = {re.sub(r"_(mean|std)$", "", name) for name in known}
    return known | stems


def query(label: str) -> list[dict]:
    try:
        found = typst.query(str(MAIN), label, field="value", root=str(ROOT), ignore_system_fonts=True)
    except (RuntimeError, typst.TypstError) as error:
        sys.exit(f"error: the paper cannot be typeset: {error}")
    return json.loads(found)


def shown(value: str, scale: float, digits: int) -> str:
    """A cell as the paper must print it, computed from its text in decimal arithmetic."""
    exact = decimal.Decimal(repr(float(value) * scale))
    rounded = exact.quantize(decimal.Decimal(1).scaleb(-digits), rounding=decimal.ROUND_HALF_UP)
    return f"{rounded:,}".replace("-", "−") if rounded else f"{abs(rounded):,}"


def wrong_numbers() -> tuple[int, list[str]]:
    wrong, numbers = [], query("<number>")
    for number in numbers:
        rows = [row for row in rows_of(number["table"]) if all(row[k] == v for k, v in number["where"].items())]
        expected = [shown(row[number["column"]], number["scale"], number["digits"]) for row in rows]
        if expected != [number["shown"]]:
            wrong.append(f"{number['table']}.csv {number['column']} {number['where']}: {number['shown']} instead of {expected}")
    settings = query("<setting>")
    for setting in settings:
        found = tomllib.loads((TABLES / f"{setting['table']}.resolved.toml").read_text())
        for key in setting["setting"].split("."):
            found = found[key]
        if str(found) != setting["shown"].replace(",", ""):
            wrong.append(f"{setting['table']}.resolved.toml {setting['setting']}: {setting['shown']} instead of {found}")
    hours = query("<hours>")
    for sum_of in hours:
        seconds = {}
        for table in sum_of["tables"]:
            for row in rows_of(f"{table}.seconds"):
                seconds[row["stage"]] = max(float(row["seconds"]), seconds.get(row["stage"], 0.0))
        expected = shown(str(sum(seconds.values()) / 3600), 1.0, 1)
        if sum_of["shown"] != expected:
            wrong.append(f"hours of {sum_of['tables']}: {sum_of['shown']} instead of {expected}")
    return len(numbers) + len(settings) + len(hours), wrong


def printed_cells(table: str, keys: list[str], listed: str) -> list[str]:
    """Cells as a finding must print them, in its order."""
    column, shared = keys[0], dict(pair.split("=") for pair in keys[1:])
    rows, cells = rows_of(table), []
    for method, _, place in (name.partition(" @ ") for name in listed.split(" | ")):
        # A variant, or the values of other columns; `column` is that of the number.
        own = dict(pair.split("=") for pair in place.split(", ")) if "=" in place else {"variant": place} if place else {}
        of = own.pop("column", column)
        wanted = {"method": method} | shared | own
        cells += [row[of] for row in rows if all(row[key] == value for key, value in wanted.items())]
    return [shown(cell, 1.0, 1) for cell in cells]


def wrong_verdicts(table: str, keys: list[str], listed: str) -> list[str]:
    """Compares the keep rates of each verdict with those of the table. A method, and the one it is compared with, can name its variant."""
    stage, rows, wrong = keys[0], rows_of(table), []
    against, _, against_variant = " ".join(keys[1:]).partition(" @ ")
    for claim in listed.split("; "):
        method, _, variant, verdict, rates = re.fullmatch(r"(.*?)( @ (.*))? (above|below) at (.*)", claim).groups()
        wanted = {"stage": stage, "method": method, "against": against}
        # In a study of variants each claim is of one of them.
        if variant or against_variant or "variant" in rows[0]:
            wanted |= {"variant": variant, "against_variant": against_variant}
        compared = [row for row in rows if all(row.get(key) == value for key, value in wanted.items())]
        found = [row["keep_rate"] for row in compared if row["verdict"] == verdict]
        if not compared:
            wrong.append(f"{claim!r} is of no row of {table}.csv")
        elif (", ".join(found) or "none") != rates:
            wrong.append(f"{claim!r}, but {table}.csv says {verdict} at {found}")
    return wrong


def rows_of(table: str) -> list[dict]:
    with open(TABLES / f"{table}.csv", newline="") as file:
        return list(csv.DictReader(file))


def wrong_findings(page: str) -> list[str]:
    """Compares the numbers of a page's findings with the cells that comments name, and the verdicts in these comments with their tables."""
    wrong = []
    text = (ROOT / page).read_text()
    bullets = [bullet for bullet in re.split(r"^(?=- |\n)", text, flags=re.M) if bullet.startswith("- **")]
    for bullet in bullets:
        comments = re.findall(r"<!-- (cells|verdicts) (.*?): (.*?) -->", bullet, flags=re.S)
        # Without the addresses of links.
        words = re.sub(r"\]\([^)]*\)", "]", bullet.split("<!--")[0])
        # Keep rates, which are named in the prose as well, begin with a zero.
        printed, named = re.findall(r"(?<![\d.])[1-9]\d?\.\d\b", words), re.findall(KEEP_RATE, words)
        expected, of_cells, of_verdicts = [], [], []
        for kind, where, listed in comments:
            table, *keys = where.split()
            if kind == "cells":
                expected += printed_cells(table, keys, listed)
                of_cells += [key.removeprefix("keep_rate=") for key in keys if key.startswith("keep_rate=")]
            else:
                wrong += [f"{page}: {problem}" for problem in wrong_verdicts(table, keys, listed)]
                of_verdicts += re.findall(KEEP_RATE, listed)
        if printed != expected:
            wrong.append(f"{page}: {printed} instead of {expected} in: {bullet.splitlines()[0]}")
        if not comments or len(comments) != bullet.count("<!--"):
            wrong.append(f"{page}: a finding without a comment, or with one of another form: {bullet.splitlines()[0]}")
        if re.search(r"\b(shows?|shown)\b", words) and not any(kind == "verdicts" for kind, *_ in comments):
            wrong.append(f"{page}: a finding that says what is shown, without verdicts: {bullet.splitlines()[0]}")
        if of_cells and named and named[0] not in of_cells:
            wrong.append(f"{page}: keep rate {named[0]} beside cells at {', '.join(of_cells)}: {bullet.splitlines()[0]}")
        wrong += [f"{page}: keep rate {rate} is of no cell and no verdict" for rate in named if rate not in of_cells + of_verdicts]
    if not bullets:
        wrong.append(f"{page}: no finding was found")
    return wrong


def main() -> None:
    pictures.render()
    typed = typed_digits()
    count, wrong = wrong_numbers()
    for page in ("README.md", "docs/findings.md"):
        wrong += wrong_findings(page)
    if typed or wrong or not count:
        sys.exit("\n".join(["error: the paper has numbers that are not from the tables", *typed, *wrong]))
    print(f"paper: {count} numbers equal their cells, no digit is typed")


if __name__ == "__main__":
    main()
