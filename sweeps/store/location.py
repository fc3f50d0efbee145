"""URLs as they may be shown: without the passwords that may stand in them."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path

import psutil

_CREDENTIALS = re.compile(r"(?<=://)\S*@")  # to the last @: a password may have one
_PARAMETERS = re.compile(r"([?&](?:password|passwd|passfile|sslpassword)=)[^&\s'\"]+", re.IGNORECASE)


def masked(text: str) -> str:
    """The text with user names and passwords in URLs replaced, fit to be printed."""
    return parameters_masked(_CREDENTIALS.sub("***@", text))


def parameters_masked(text: str) -> str:
    """The text with the values of parameters such as ?password= replaced."""
    return _PARAMETERS.sub(r"\1***", text)


ALLOW = "SWEEPS_NETWORK_DISK"
"""Set to 1: the user knows that only one machine uses the store, and that the file system keeps POSIX locks."""
NETWORK = {
    "9p", "acfs", "afp", "afs", "beegfs", "ceph", "cifs", "coda", "davfs", "fhgfs", "gfs", "gfs2", "glusterfs", "gpfs",
    "lustre", "ncpfs", "nfs", "nfs3", "nfs4", "ocfs2", "orangefs", "panfs", "prl_fs", "pvfs2", "smb2", "smb3", "smbfs",
    "wekafs",
    *(f"fuse.{name}" for name in (
        "ceph", "gcsfuse", "glusterfs", "goofys", "juicefs", "lizardfs", "moosefs", "rclone", "s3fs", "sshfs",
    )),
}  # fmt: skip


def network_file_system(folder: Path) -> str | None:
    """The kind of network file system that a folder lies on (`nfs4`), or None. The folder need not be there yet."""
    path = folder.absolute()
    while not path.exists():
        path = path.parent
    real = path.resolve()
    mounts = [m for m in psutil.disk_partitions(all=True) if real.is_relative_to(m.mountpoint)]
    if not mounts:
        return None
    kind = max(mounts, key=lambda m: len(Path(m.mountpoint).parts)).fstype.lower()
    return kind if kind in NETWORK else None


def allowed(environment: Mapping[str, str] = os.environ) -> bool:
    """Whether the user takes the risk."""
    return environment.get(ALLOW, "") not in ("", "0")


def way_out(kind: str) -> str:
    """What to do about it, to follow the name of the folder."""
    return (
        f"lies on a network file system ({kind}), where SQLite may lose data. Give a folder on a local disk with --store, or "
        f"postgresql://USER@HOST/DATABASE. Where the file system keeps POSIX locks and one machine at a time uses this store, "
        f"{ALLOW}=1 permits it, without the write-ahead log"
    )
