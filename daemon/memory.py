"""How much memory a process holds, and which one the kernel takes when there is none left.

No limit is set on the process itself: RLIMIT_AS counts addresses, of which CUDA reserves as many
as there is memory on all devices. Linux only; elsewhere nothing is known and nothing is done.
"""

from __future__ import annotations

import contextlib
from pathlib import Path

#: what can't be dropped: pages read from mapped files can
HELD = ("RssAnon", "RssShmem", "VmSwap")
FIRST_TO_GO = 1000  #: the highest oom_score_adj (proc(5)); to raise it needs no rights


def held_mb(pid: int) -> int | None:
    """Return the MiB that a process holds in memory and swap; None when that can't be told."""
    try:
        text = Path(f"/proc/{pid}/status").read_text("ascii", "replace")
    except OSError:
        return None
    fields = dict(line.split(":", 1) for line in text.splitlines() if ":" in line)
    sizes = [int(fields[name].split()[0]) for name in HELD if name in fields]
    return sum(sizes) // 1024 if sizes else None


def offer_to_the_kernel(pid: int) -> None:
    """Let the kernel kill this process before any other when memory runs out."""
    with contextlib.suppress(OSError):
        Path(f"/proc/{pid}/oom_score_adj").write_text(f"{FIRST_TO_GO}\n")
