"""Fuzz every target for a share of the time: ``make fuzz``; prints one line of JSON.

Each target runs in a process of its own. What it finds worth keeping is kept in its folder, so that
the next campaign goes on from there; an input that breaks a promise lies beside it.
"""

import argparse
import json
import re
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

_HERE = Path(__file__).resolve().parent
#: by target, the largest input in bytes: larger ones only make the fuzzer slow
TARGETS = {"feed": 8192, "rows": 8192, "tail": 64, "text": 2048}
#: what one input may cost
_SECONDS, _MEGABYTES = 5, 512
#: seconds that a process may take beyond its share, to start and to end
_GRACE = 60


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of fuzzing one target."""

    target: str
    executions: int
    coverage: int  #: edges of our code and the parsers' that were seen
    features: int  #: edges and how often, as libFuzzer counts
    slowest_ms: float  #: of one input, as instrumented
    peak_mb: int  #: of memory, the fuzzer's own included
    crashes: tuple[str, ...]  #: files with the inputs that broke a promise


def _number(pattern, log):
    found = re.findall(pattern, log)
    return int(found[-1]) if found else 0


def run(target, seconds, folder, seed=0, patience=_SECONDS):
    """Fuzz one target for some seconds and return the outcome; its log is ``log`` in the folder.

    `seed` 0 lets the fuzzer choose; `patience` is in seconds an input. Raises
    subprocess.TimeoutExpired for a fuzzer that doesn't end.
    """
    kept, found = folder / "kept", folder / "found"
    kept.mkdir(parents=True, exist_ok=True)
    found.mkdir(exist_ok=True)
    words = _HERE / f"{target}.dict"
    options = [
        f"-max_total_time={seconds}",
        f"-timeout={patience}",
        f"-rss_limit_mb={_MEGABYTES}",
        f"-max_len={TARGETS[target]}",
        f"-seed={seed}",
        "-len_control=10",
        "-print_final_stats=1",
        f"-artifact_prefix={found}/",
        *([f"-dict={words}"] if words.exists() else []),
    ]
    command = [sys.executable, _HERE / "driver.py", target, folder, *options]
    done = subprocess.run(
        [*command, kept, _HERE / "corpus" / target],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=seconds + _GRACE,
    )
    log = done.stdout.decode(errors="replace")
    (folder / "log").write_text(log)
    crashes = sorted(map(str, found.iterdir()))
    if done.returncode and not crashes:
        raise RuntimeError(f"the fuzzer of {target} ended with {done.returncode}: {log[-2000:]}")
    return Outcome(
        target=target,
        executions=_number(r"stat::number_of_executed_units: (\d+)", log),
        coverage=_number(r"cov: (\d+)", log),
        features=_number(r"ft: (\d+)", log),
        slowest_ms=round(float((folder / "slowest.txt").read_text()) * 1000, 1),
        peak_mb=_number(r"stat::peak_rss_mb:\s+(\d+)", log),
        crashes=tuple(crashes),
    )


def main():
    """Fuzz all targets and print what came of it; return 1 when a promise was broken."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=int, default=600, help="in all (default: 600)")
    parser.add_argument("--folder", type=Path, default=Path("build/fuzz"), help="what is kept")
    given = parser.parse_args()
    share = max(1, given.seconds // len(TARGETS))
    outcomes = [run(target, share, given.folder / target) for target in TARGETS]
    summary = {
        "seconds": share * len(TARGETS),
        "executions": sum(one.executions for one in outcomes),
        "features": sum(one.features for one in outcomes),
        "crashes": sum(len(one.crashes) for one in outcomes),
        "slowest_ms": max(one.slowest_ms for one in outcomes),
        "peak_mb": max(one.peak_mb for one in outcomes),
        "targets": [asdict(one) for one in outcomes],
    }
    print(json.dumps(summary))
    return 1 if summary["crashes"] else 0


if __name__ == "__main__":
    sys.exit(main())
