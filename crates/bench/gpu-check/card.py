"""What nvidia-smi says about a card, if it is there: name, driver, memory, and how busy the card is."""

import os
import shutil
import statistics
import subprocess
import threading
import time

# Seconds after the start of a measurement in which samples, which look back, still show what was before.
LOOKS_BACK = 0.4


def query(device, fields, *options):
    """nvidia-smi's command for this device, or None. CUDA counts the cards of CUDA_VISIBLE_DEVICES, nvidia-smi all."""
    if device is None or shutil.which("nvidia-smi") is None:
        return None
    index = int(device.split(":")[1]) if ":" in device else 0
    visible = [card.strip() for card in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if card.strip()]
    card = visible[index] if index < len(visible) else str(index)
    return ["nvidia-smi", f"--query-gpu={fields}", "--format=csv,noheader,nounits", f"--id={card}", *options]


def facts(device):
    """Name, driver and memory of the card, or None."""
    command = query(device, "name,driver_version,memory.total")
    if command is None:
        return None
    done = subprocess.run(command, capture_output=True, text=True, timeout=20)
    parts = [part.strip() for part in done.stdout.split(",")]
    return parts if done.returncode == 0 and len(parts) == 3 else None


class Watch:
    """Samples how busy the card is ten times a second, until the block ends."""

    def __init__(self, device):
        """Nothing is watched if there is no device or no nvidia-smi."""
        self.command = query(device, "utilization.gpu", "--loop-ms=100")
        self.samples = []
        self.process = None

    def __enter__(self):
        if self.command is None:
            return self
        try:
            # A terminal, as a pipe would get its lines in blocks.
            ours, theirs = os.openpty()
        except OSError:
            return self
        try:
            self.process = subprocess.Popen(self.command, stdin=subprocess.DEVNULL, stdout=theirs, stderr=subprocess.DEVNULL)
        except OSError:
            os.close(ours)
            return self
        finally:
            os.close(theirs)
        threading.Thread(target=self.read, args=[ours], daemon=True).start()
        return self

    def read(self, terminal):
        with os.fdopen(terminal, errors="replace") as lines:
            try:
                for line in lines:
                    if line.strip().isdigit():
                        self.samples.append((time.time(), int(line)))
            except OSError:
                pass  # How the end of a terminal shows.

    def __exit__(self, *_):
        if self.process is not None:
            self.process.kill()
            self.process.wait()

    def note(self, report, section, name, start=None, end=None, remark=""):
        """A row with the share of the time in which a kernel ran."""
        first = start + LOOKS_BACK if start else 0
        found = [busy for at, busy in list(self.samples) if first <= at <= (end or at)]
        if found:
            remark = f"{len(found)} samples{'; ' + remark if remark else ''}"
            report.note(section, name, "time in which the card is busy", f"{statistics.mean(found):.0f}", "%", remark)
