"""Fuzz one target with atheris: ``python tests/fuzz/driver.py TARGET NOTES [libFuzzer's options]``.

NOTES is a folder that gets ``slowest``, the input that took longest, and its time in seconds as
``slowest.txt``. A broken promise ends the process, and libFuzzer writes the input down.
"""

import importlib
import os
import sys
import time
from pathlib import Path

_HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(_HERE), str(_HERE.parents[1])]
#: what libFuzzer watches; of the parsers only Python's own code can be seen
_WATCHED = ["ingest", "feedparser", "sgmllib", "html", "_markupbase", "urllib"]


def _noting_the_slowest(check, notes):
    slowest = 0.0

    def timed(data):
        nonlocal slowest
        start = time.perf_counter()
        try:
            check(data)
        finally:
            took = time.perf_counter() - start
            if took > slowest:
                slowest = took
                (notes / "slowest").write_bytes(data)
                (notes / "slowest.txt").write_text(f"{took:.4f}")

    return timed


def main():
    # A process begins with the peak of memory of the one that started it, and the fuzzer would
    # take that for its own; what is forked begins anew.
    if child := os.fork():
        os._exit(min(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) % 256, 255))
    import atheris

    target, notes, *options = sys.argv[1:]
    with atheris.instrument_imports(include=_WATCHED):
        check = importlib.import_module(f"fuzz_{target}").check
    atheris.Setup([sys.argv[0], *options], _noting_the_slowest(check, Path(notes)))
    atheris.Fuzz()


if __name__ == "__main__":
    main()
