"""A file system that is soon full: a tmpfs in a mount namespace of one's own."""

import subprocess
import sys
from pathlib import Path

import pytest

#: hides a folder below the file system for one Python command
SMALL = 'mount -t tmpfs -o size="$1" tmpfs "$2" && shift 2 && exec "$@"'


def on_a_small_disk(folder: Path, size: str, *words: str) -> str:
    """Run Python with ``folder`` on a file system of ``size``; what it printed."""
    unshare = ("unshare", "-rm", "sh", "-c", SMALL, "sh", size, str(folder))
    try:
        done = subprocess.run(
            [*unshare, sys.executable, *words], capture_output=True, text=True, timeout=120
        )
    except FileNotFoundError:
        pytest.skip("needs unshare")
    if done.returncode and done.stderr.startswith(("unshare:", "mount:")):
        pytest.skip(f"no mounts of its own here: {done.stderr}")
    assert done.returncode == 0, done.stderr
    return done.stdout
