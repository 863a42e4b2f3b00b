"""What a daemon costs that has nothing to do: ``python -m bench.idle``.

A real process on a fresh state folder. The last line is one JSON object: its resident memory, and
the share of a core that it took.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from daemon.state import init

READY_SECONDS = 60.0


def _cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text("utf-8").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _resident_mb(pid: int) -> float:
    pages = int(Path(f"/proc/{pid}/statm").read_text("utf-8").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def measure(seconds: float) -> dict[str, float]:
    """Let a daemon idle for so long."""
    with tempfile.TemporaryDirectory() as folder:
        state = init(Path(folder) / "state", datetime.now(UTC))
        command = [sys.executable, "-m", "daemon.cli", "--state", str(state.folder), "run"]
        daemon = subprocess.Popen(command, stderr=subprocess.DEVNULL)
        try:
            log, until = state.logs / "wised.jsonl", time.monotonic() + READY_SECONDS
            while not log.exists() or "daemon.ready" not in log.read_text("utf-8"):
                assert time.monotonic() < until, "it was never ready"
                time.sleep(0.05)
            time.sleep(2)
            began, before = time.monotonic(), _cpu_seconds(daemon.pid)
            time.sleep(seconds)
            took = (_cpu_seconds(daemon.pid) - before) / (time.monotonic() - began)
            return {"rss_mb": round(_resident_mb(daemon.pid), 1), "core": round(took, 5)}
        finally:
            daemon.terminate()
            daemon.wait()


def main(words: Sequence[str] | None = None) -> None:
    """Print what was measured."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0)
    print(json.dumps(measure(parser.parse_args(words).seconds)))


if __name__ == "__main__":
    main()
