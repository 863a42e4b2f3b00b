"""Whether a folder lies on another machine's disk, where neither locks nor SQLite's WAL hold."""

from __future__ import annotations

import os
import re
from pathlib import Path

MOUNTS = Path("/proc/self/mountinfo")  #: of Linux; elsewhere nothing is known
#: file systems shared by several machines, as the kernel names them; FUSE ones with their program
NETWORK = frozenset(
    {"9p", "afs", "beegfs", "ceph", "cifs", "coda", "gfs2", "glusterfs", "gpfs", "lustre", "ncpfs"}
    | {"nfs", "nfs4", "ocfs2", "orangefs", "smb3", "smbfs", "fuse.ceph", "fuse.ceph-fuse"}
    | {"fuse.gcsfuse", "fuse.glusterfs", "fuse.juicefs", "fuse.mount-s3", "fuse.rclone"}
    | {"fuse.s3fs", "fuse.seaweedfs", "fuse.sshfs"}
)


def network_kind(folder: Path, mounts: Path = MOUNTS) -> str | None:
    """Return the kind of network file system that a folder lies on; None: on none that is known."""
    device = os.stat(folder).st_dev
    wanted = f"{os.major(device)}:{os.minor(device)}"
    try:
        lines = mounts.read_text("utf-8", "replace").splitlines()
    except OSError:
        return None
    for line in lines:
        # 36 35 98:0 /root /mount/point options optional... - kind source superoptions
        found = re.match(r"\d+ \d+ (\d+:\d+) .* - (\S+) ", line)
        if found and found[1] == wanted and found[2] in NETWORK:
            return found[2]
    return None
