"""Drives the report in headless Chromium over the DevTools protocol and checks that a reader can use it.

    python3 scripts/test_report.py CHROMIUM results/report/index.html [SCREENSHOTS]

Standard library only: the protocol runs over two pipes, so it needs no client and no port. Prints a line a check; the exit status is 1 if
one failed. With a third argument it also writes pictures of the page there.
"""

import base64
import json
import os
import pathlib
import select
import subprocess
import sys
import tempfile
import time

SECONDS = 60


class Browser:
    """A Chromium and its one page."""

    def __init__(self, program: str, profile: str) -> None:
        to_browser, self.send_end = os.pipe()
        self.receive_end, from_browser = os.pipe()

        def place() -> None:
            # Chromium reads from 3 and writes to 4; away first, as one may lie where the other must go.
            reads, writes = os.dup(to_browser), os.dup(from_browser)
            os.dup2(reads, 3)
            os.dup2(writes, 4)

        self.process = subprocess.Popen(
            [program, "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run", "--hide-scrollbars",
             "--remote-debugging-pipe", f"--user-data-dir={profile}", "about:blank"],
            close_fds=False, preexec_fn=place, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )
        os.close(to_browser)
        os.close(from_browser)
        self.buffer, self.count, self.events, self.session = b"", 0, [], None
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self.session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def receive(self, until: float) -> dict:
        while b"\0" not in self.buffer:
            if not select.select([self.receive_end], [], [], max(0.0, until - time.monotonic()))[0]:
                raise TimeoutError("the browser does not answer")
            part = os.read(self.receive_end, 1 << 20)
            if not part:
                raise EOFError("the browser has ended")
            self.buffer += part
        message, self.buffer = self.buffer.split(b"\0", 1)
        return json.loads(message)

    def call(self, method: str, **params: object) -> dict:
        self.count += 1
        message = {"id": self.count, "method": method, "params": params} | ({"sessionId": self.session} if self.session else {})
        os.write(self.send_end, json.dumps(message).encode() + b"\0")
        until = time.monotonic() + SECONDS
        while True:
            answer = self.receive(until)
            if answer.get("id") == self.count:
                if "error" in answer:
                    raise RuntimeError(f"{method}: {answer['error']}")
                return answer["result"]
            self.events.append(answer)

    def run(self, script: str) -> object:
        """The value of an expression on the page; promises are awaited."""
        answer = self.call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in answer:
            raise RuntimeError(f"{script}: {answer['exceptionDetails']}")
        return answer["result"].get("value")

    def wait(self, script: str) -> bool:
        """Whether an expression is true within the time."""
        until = time.monotonic() + SECONDS
        while time.monotonic() < until:
            if self.run(script):
                return True
            time.sleep(0.1)
        return False

    def key(self, key: str, shift: bool = False) -> None:
        codes = {"Tab": 9, "Enter": 13, "Escape": 27, " ": 32, "ArrowDown": 40}
        text = {"Enter": "\r", " ": " "}.get(key, "")
        common = {"key": key, "code": {" ": "Space"}.get(key, key), "windowsVirtualKeyCode": codes[key], "modifiers": 8 if shift else 0}
        self.call("Input.dispatchKeyEvent", type="keyDown" if text else "rawKeyDown", text=text, **common)
        self.call("Input.dispatchKeyEvent", type="keyUp", **common)

    def size(self, width: int, height: int) -> None:
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 500)

    def scheme(self, scheme: str) -> None:
        self.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])

    def open(self, address: str) -> None:
        self.call("Page.navigate", url="about:blank")
        self.call("Page.navigate", url=address)
        if not self.wait("document.documentElement?.dataset.ready === ''"):
            raise TimeoutError(f"{address} is not ready")

    def problems(self) -> list[str]:
        """Messages of the console, and addresses that are not on the disk."""
        found = []
        for event in self.events:
            method, params = event.get("method"), event.get("params", {})
            if method == "Runtime.exceptionThrown":
                found.append(str(params["exceptionDetails"]))
            elif method == "Runtime.consoleAPICalled" and params["type"] in ("error", "warning"):
                found.append(str(params["args"]))
            elif method == "Log.entryAdded" and params["entry"]["level"] in ("error", "warning"):
                found.append(str(params["entry"]))
            elif method == "Network.requestWillBeSent":
                address = params["request"]["url"]
                if not address.startswith(("file:", "data:", "about:", "blob:")):
                    found.append(f"asks the network for {address}")
        return found

    def picture(self, path: pathlib.Path) -> None:
        path.write_bytes(base64.b64decode(self.call("Page.captureScreenshot", format="png")["data"]))

    def close(self) -> None:
        try:
            self.call("Browser.close")
        except (OSError, EOFError, TimeoutError):
            self.process.kill()
        self.process.wait()


# Draws every figure: those far below are drawn when they come near.
DRAW_ALL = """(async () => {
  for (const place of document.querySelectorAll('.plot')) {
    const closed = place.closest('details:not([open])'); if (closed) closed.open = true;
    place.scrollIntoView();
    for (let i = 0; i < 400 && place.dataset.drawn === undefined; i++) await new Promise((done) => setTimeout(done, 25));
  }
  return [...document.querySelectorAll('.plot')].filter((place) => !place.querySelector('svg')).length;
})()"""

# The biggest table of a study: its cells.
OPEN_CELLS = """(() => {
  const table = document.querySelector('section.study details.tables:last-of-type table');
  table.closest('details').open = true; window.cellTable = table; return table.rows.length;
})()"""

SHOWN = "[...cellTable.tBodies[0].rows].filter((row) => !row.hidden)"


def column(name: str) -> str:
    return f"[...cellTable.tHead.rows[0].cells].findIndex((cell) => cell.textContent === {name!r})"


def sorting(browser: Browser, check) -> None:
    check("the table of cells has rows", browser.run(OPEN_CELLS) > 6)
    check("it can be sorted once it is open", browser.wait("!!cellTable.tHead.querySelector('button')"))
    values = f"{SHOWN}.map((row) => Number(row.cells[{column('params')}].dataset.sort))"
    press = f"cellTable.tHead.rows[0].cells[{column('params')}].querySelector('button').click()"
    before = browser.run(values)
    browser.run(press)
    check("the first press sorts upwards", browser.run(values) == sorted(before) != before)
    browser.run(press)
    check("the second press sorts downwards", browser.run(values) == sorted(before, reverse=True))
    check("a screen reader is told", browser.run(f"cellTable.tHead.rows[0].cells[{column('params')}].getAttribute('aria-sort')") == "descending")
    browser.run(press)
    check("the third press brings the file's order back", browser.run(values) == before)


def filtering(browser: Browser, check) -> None:
    bar = "cellTable.closest('.table').querySelector('.filter')"
    browser.run(f"(() => {{ const input = {bar}.querySelector('input'); input.value = 'random'; input.dispatchEvent(new Event('input')); }})()")
    names = browser.run(f"{SHOWN}.map((row) => row.querySelector('th').textContent)")
    check("a word leaves the rows that have it", len(names) > 0 and set(names) == {"Random"})
    count = browser.run(f"{bar}.querySelector('output').textContent")
    check("their number is shown", count.startswith(f"{len(names)} of "))
    browser.run(f"(() => {{ const input = {bar}.querySelector('input'); input.value = ''; input.dispatchEvent(new Event('input')); }})()")
    browser.run(f"(() => {{ const select = {bar}.querySelector('select'); select.value = select.options[1].value; select.dispatchEvent(new Event('change')); }})()")
    shown, every = browser.run(f"{SHOWN}.length"), browser.run("cellTable.tBodies[0].rows.length")
    check("a choice leaves its rows", 0 < shown < every)
    browser.run(f"(() => {{ const select = {bar}.querySelector('select'); select.value = ''; select.dispatchEvent(new Event('change')); }})()")


def cells(browser: Browser, check) -> None:
    browser.run(f"{SHOWN}.find((row) => !row.cells[0].textContent.startsWith('dense')).querySelector('a').click()")
    opened = "document.querySelector('#cell').open && document.querySelectorAll('#cell .strip').length > 0"
    check("a row leads to its cell with its kept channels", browser.wait(opened))
    parts = browser.run("document.querySelector('#cell-body').textContent")
    for part in ("Pruned layers", "Spec, with every default filled in", "Environment", "images-per-class"):
        check(f"the cell shows: {part}", part in parts)
    check("the layers have rows", browser.run("document.querySelectorAll('#cell-body tbody tr').length") > 0)
    first = browser.run("location.hash")
    browser.run("document.querySelector('#cell .around a').click()")
    check("from a cell to its neighbour", browser.wait(f"location.hash !== {first!r} && !!document.querySelector('#cell .strip')"))
    browser.key("Escape")
    check("Escape closes it", browser.wait("!document.querySelector('#cell').open && location.hash === ''"))


def chart(browser: Browser, check) -> None:
    marks = "document.querySelector('.explorer').querySelectorAll('svg .mark-symbol path').length"
    browser.run("document.querySelector('.explorer').scrollIntoView()")
    check("the chart has points", browser.wait(f"{marks} > 10"))
    before = browser.run(marks)
    browser.run("document.querySelector('.legend button').click()")
    check("a press on a method hides it", browser.wait(f"{marks} < {before} && {marks} > 0"))
    check("its button says so", browser.run("document.querySelector('.legend button').getAttribute('aria-pressed')") == "false")
    browser.run("document.querySelector('.legend .all').click()")
    check("and all are shown again", browser.wait(f"{marks} === {before}"))
    axes = "[...document.querySelector('.explorer').querySelectorAll('svg .role-axis-title text')].map((text) => text.textContent).join('|')"
    for name, value, words in (("x", "params", "parameters kept"), ("x", "keep_rate", "keep rate"), ("measure", "loss", "loss"), ("measure", "top1", "top-1")):
        browser.run(f"(() => {{ const select = document.querySelector('.explorer [data-choose={name}]'); select.value = {value!r}; select.dispatchEvent(new Event('change')); }})()")
        check(f"the axis changes to {words}", browser.wait(f"({axes}).includes({words!r})"))
    point = "[...document.querySelector('.explorer').querySelectorAll('svg .mark-symbol path')].at(-1).getBoundingClientRect()"
    browser.run("document.querySelector('.explorer .plot').scrollIntoView({ block: 'center' })")
    x, y = browser.run(f"(() => {{ const box = {point}; return [box.x + box.width / 2, box.y + box.height / 2]; }})()")
    browser.call("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y)
    check("a point tells mean and deviation", browser.wait("(document.querySelector('#vg-tooltip-element.visible')?.textContent || '').includes('mean ± sd')"))
    for kind in ("mousePressed", "mouseReleased"):
        browser.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)
    check("a point leads to its cell", browser.wait("document.querySelector('#cell').open && location.hash.startsWith('#cell/')"))
    browser.run("document.querySelector('#cell-close').click()")
    check("the button closes it", browser.wait("!document.querySelector('#cell').open"))


def keyboard(browser: Browser, check, address: str) -> None:
    browser.open(address)
    browser.key("Tab")
    check("the first stop skips to the content", browser.run("document.activeElement.className") == "skip")
    browser.key("Enter")
    browser.key("Tab")
    check("from there on the keys move in the content", browser.run("document.querySelector('main').contains(document.activeElement)"))
    browser.wait("!!document.querySelector('.legend button')")
    browser.run("document.querySelector('.legend button').focus()")
    browser.key(" ")
    check("the space bar hides a method and stays on it", browser.run("document.activeElement.getAttribute('aria-pressed')") == "false")
    browser.key(" ")
    browser.run("(() => { const table = document.querySelector('section.study details.tables'); table.querySelector('summary').focus(); })()")
    browser.key("Enter")
    check("Enter opens a table", browser.wait("document.querySelector('section.study details.tables').open && !!document.querySelector('section.study details.tables th button')"))
    browser.run("document.querySelector('section.study details.tables th button').focus()")
    browser.key("Enter")
    check("Enter sorts", browser.run("document.querySelector('section.study details.tables th').getAttribute('aria-sort')") == "ascending")
    browser.run("document.querySelector('section.study details.tables tbody a').focus()")
    browser.key("Enter")
    check("Enter opens a cell, which has the focus", browser.wait("document.querySelector('#cell').open && document.activeElement.id === 'cell-title'"))
    browser.key("Escape")
    check("and Escape brings the focus back", browser.wait("document.activeElement.closest('tbody') !== null"))


def looks(browser: Browser, check, address: str) -> None:
    for width, height in ((1280, 900), (390, 844)):
        for scheme in ("light", "dark"):
            browser.size(width, height)
            browser.scheme(scheme)
            browser.open(address)
            check(f"every figure is drawn, {width} px, {scheme}", browser.run(DRAW_ALL) == 0)
            wide = browser.run("document.documentElement.scrollWidth")
            check(f"nothing is wider than {width} px, {scheme}", wide <= width)
    browser.scheme("dark")
    background = "getComputedStyle(document.body).backgroundColor"
    dark = browser.run(background)
    browser.run("(() => { const select = document.querySelector('#theme'); select.value = 'light'; select.dispatchEvent(new Event('change')); })()")
    check("the page's colours can be chosen against the system's", browser.run(background) != dark)
    browser.run("(() => { const select = document.querySelector('#theme'); select.value = 'auto'; select.dispatchEvent(new Event('change')); })()")
    check("and left to the system again", browser.run(background) == dark)
    browser.size(1280, 900)
    browser.scheme("light")


def pictures(browser: Browser, address: str, folder: pathlib.Path) -> None:
    """The page in screens of its window, and a cell; each width light and dark."""
    folder.mkdir(parents=True, exist_ok=True)
    for width, height in ((1280, 1600), (390, 1600)):
        for scheme in ("light", "dark"):
            browser.size(width, height)
            browser.scheme(scheme)
            browser.open(address)
            browser.run(DRAW_ALL)
            total = browser.run("document.documentElement.scrollHeight")
            for at, top in enumerate(range(0, total, height - 100)):
                browser.run(f"window.scrollTo(0, {top})")
                browser.picture(folder / f"{width}-{scheme}-{at:02}.png")
            browser.run("document.querySelector('table.result td a').click()")
            browser.wait("!!document.querySelector('#cell .strip')")
            browser.picture(folder / f"{width}-{scheme}-cell.png")


def main() -> None:
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    address = pathlib.Path(sys.argv[2]).resolve().as_uri()
    failed = 0

    def check(what: str, holds: object) -> None:
        nonlocal failed
        failed += not holds
        print(f"{'ok' if holds else 'FAILED'}: {what}", flush=True)

    with tempfile.TemporaryDirectory() as profile:
        browser = Browser(sys.argv[1], profile)
        try:
            if len(sys.argv) > 3:
                pictures(browser, address, pathlib.Path(sys.argv[3]))
                return
            browser.size(1280, 900)
            browser.scheme("light")
            browser.open(address)
            check("every figure is drawn", browser.run(DRAW_ALL) == 0)
            sorting(browser, check)
            filtering(browser, check)
            cells(browser, check)
            chart(browser, check)
            keyboard(browser, check, address)
            looks(browser, check, address)
            problems = browser.problems()
            for problem in problems:
                print(problem)
            check("no console errors, nothing from a network", not problems)
        finally:
            browser.close()
    sys.exit(failed > 0)


if __name__ == "__main__":
    main()
