"""Locations of stores: URLs without the passwords in them, and folders on network file systems."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path

import psutil

_CREDENTIALS = re.compile(r"(?<=://)\S*@")  # to the last @: a password may have one
_PARAMETERS = re.compile(r"([?&](?:password|passwd|passfile|sslpassword)=)[^&\s'\"]+", re.IGNORECASE)


def masked(text: str) -> str:
    """Return the text with user names and passwords in URLs replaced, so that it may be printed."""
    return parameters_masked(_CREDENTIALS.sub("***@", text))


def parameters_masked(text: str) -> str:
    """Return the text with the values of parameters such as ?password= replaced."""
    return _PARAMETERS.sub(r"\1***", text)


ALLOW = "SWEEPS_NETWORK_DISK"
"""Environment variable. With 1 a store may be on a network disk: one machine uses it, and POSIX locks work there."""
NETWORK = {
    "9p", "acfs", "afp", "afs", "beegfs", "ceph", "cifs", "coda", "davfs", "fhgfs", "gfs", "gfs2", "glusterfs", "gpfs",
    "lustre", "ncpfs", "nfs", "nfs3", "nfs4", "ocfs2", "orangefs", "panfs", "prl_fs", "pvfs2", "smb2", "smb3", "smbfs",
    "wekafs",
    *(f"fuse.{name}" for name in (
        "ceph", "gcsfuse", "glusterfs", "goofys", "juicefs", "lizardfs", "moosefs", "rclone", "s3fs", "sshfs",
    )),
}  # fmt: skip


def network_file_system(folder: Path) -> str | None:
    """Return the kind of network file system of a folder, such as `nfs4`, or None. The folder need not exist yet."""
    path = folder.absolute()
    while not path.exists():
        path = path.parent
    real = path.resolve()
    mounts = [m for m in psutil.disk_partitions(all=True) if real.is_relative_to(m.mountpoint)]
    if not mounts:
        return None
    kind = max(mounts, key=lambda m: len(Path(m.mountpoint).parts)).fstype.lower()
    return kind if kind in NETWORK else None


def network_disk_permitted(environment: Mapping[str, str] = os.environ) -> bool:
    """Return whether SWEEPS_NETWORK_DISK permits a store on a network disk."""
    return environment.get(ALLOW, "") not in ("", "0")


def network_disk_advice(kind: str) -> str:
    """Return why a folder is refused and what to do about it; the text follows the name of the folder."""
    return (
        f"lies on a network file system ({kind}), where SQLite may lose data. Give a folder on a local disk with --store, or "
        f"postgresql://USER@HOST/DATABASE. Where the file system keeps POSIX locks and one machine at a time uses this store, "
        f"{ALLOW}=1 permits it, without the write-ahead log"
    )
