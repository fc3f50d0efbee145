"""What a machine may lack or forbid: a home folder, writable caches, short temporary folders, direct calls of itself."""

from __future__ import annotations

import fcntl
import math
import os
import shutil
import socket
import stat
import sys
import tempfile
import threading
from collections.abc import Callable, MutableMapping
from contextlib import suppress
from pathlib import Path
from urllib.parse import urlsplit

from sweeps.errors import ClusterError, UserError

LOOPBACK = ("localhost", "127.0.0.1", "127.0.0.0/8", "::1", "[::1]")
"""Names of this machine that no proxy can reach. Programs differ in which forms they understand."""
PROXIES = ("http_proxy", "https_proxy", "all_proxy")
SOCKET_PATH_BYTES = 103 if sys.platform == "darwin" else 107
"""Longest path of a Unix socket."""
PRICE = "SWEEPS_PRICE_PER_HOUR"
"""Environment variable: USD an hour for one node that trains. Clusters set it from `price_per_hour` of clusters.yaml."""
MARK = ".sweeps-process"
"""File in a temporary folder that its process keeps locked."""
CONNECT_S = 8.0
ANSWER_S = 15.0
REMEDY = "`unset RAY_ADDRESS` runs the sweep on this machine, `sweeps submit FILE --on CLUSTER` sends it to a cluster"


def call_loopback_directly(environment: MutableMapping[str, str] = os.environ) -> None:
    """Except this machine from the proxies that the environment names, for this process and those that it starts."""
    if not any(environment.get(name) or environment.get(name.upper()) for name in PROXIES):
        return
    given = {name: environment.get(name) for name in ("no_proxy", "NO_PROXY")}
    for name in given:
        # Programs read one of the two, in different orders: a new one must not hide the user's.
        own = given[name] or given["no_proxy"] or given["NO_PROXY"] or ""
        listed = [entry.strip() for entry in own.split(",") if entry.strip()]
        more = [entry for entry in LOOPBACK if entry not in listed and listed != ["*"]]
        environment[name] = ",".join([*listed, *more])


def ensure_folders() -> str | None:
    """Give libraries a home folder where there is none, and return a sentence about it for the user.

    Ray and MLflow cannot be imported without one. Where it is read-only they work, but matplotlib prints warnings.
    """
    said = None
    try:
        Path.home()
    except RuntimeError:  # as in a container that runs as a number without an entry in the list of users
        os.environ["HOME"] = str(private_folder("home"))
        said = f"HOME is not set, and this user has no home folder: {os.environ['HOME']} is used. Set HOME to a folder of yours"
    config = user_folder("XDG_CONFIG_HOME", ".config")
    if "MPLCONFIGDIR" not in os.environ and not writable(config / "matplotlib"):
        os.environ["MPLCONFIGDIR"] = str(private_folder("matplotlib"))
    return said


def default_store() -> str:
    """Return the store that is used where none is named: SWEEPS_STORE, or the folder `results`."""
    return os.environ.get("SWEEPS_STORE") or "results"


def user_folder(variable: str, below_home: str) -> Path:
    """Return the folder of an XDG variable, or its default below the home folder."""
    given = os.environ.get(variable)
    return Path(given) if given else Path.home() / below_home


def expanded(path: str | Path) -> Path:
    """Return the path with ~ or ~USER replaced by a home folder. Raises UserError where there is no such user."""
    try:
        return Path(path).expanduser()
    except RuntimeError as error:
        raise UserError(f"{str(path)!r} names no home folder that is known here: give the path without ~") from error


def writable(folder: Path) -> bool:
    """Return whether a folder, or the parent in which it can be made, is one that this user may write to."""
    existing = folder.absolute()
    while not os.path.exists(existing) and existing != existing.parent:  # False also where it may not be looked at
        existing = existing.parent
    return os.path.isdir(existing) and os.access(existing, os.W_OK | os.X_OK)


def has_room(folder: Path, num_bytes: int) -> bool:
    """Return whether a file of that size can be written in a folder, or in the parent in which it can be made."""
    existing = folder.absolute()
    while not os.path.isdir(existing) and existing != existing.parent:
        existing = existing.parent
    try:
        with tempfile.TemporaryFile(dir=existing) as file:
            file.write(bytes(num_bytes))
            file.flush()
    except OSError:
        return False
    return True


def private_folder(name: str) -> Path:
    """Return a temporary folder of this user alone: the same at every call, or a new one where another has that name."""
    folder = Path(tempfile.gettempdir()) / f"sweeps-{name}-{os.getuid()}"
    with suppress(OSError):
        folder.mkdir(mode=0o700, exist_ok=True)
        found = folder.lstat()
        if stat.S_ISDIR(found.st_mode) and found.st_uid == os.getuid() and not stat.S_IMODE(found.st_mode) & 0o077:
            return folder
    return Path(tempfile.mkdtemp(prefix=f"sweeps-{name}-"))


_marks: dict[Path, int] = {}
"""Descriptors of this process's marks, by folder."""


def mark_as_ours(folder: Path, prefix: str) -> None:
    """Mark a temporary folder as this process's, and remove those with the same prefix whose process was killed.

    The mark is a lock, which the system releases when the process ends. Unmarked folders are left alone.
    """
    for other in folder.parent.glob(f"{prefix}*"):
        if other != folder and (mark := _lock(other)) is not None:
            shutil.rmtree(other, ignore_errors=True)
            os.close(mark)
    for removed in [one for one in _marks if not os.path.exists(one)]:
        os.close(_marks.pop(removed))
    with suppress(OSError):
        new = folder / f"{MARK}.new"
        mark = os.open(new, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600)
        _marks[folder] = mark
        fcntl.flock(mark, fcntl.LOCK_EX)
        new.rename(folder / MARK)  # under its name it is locked from the first moment


def _lock(folder: Path) -> int | None:
    """Return the descriptor of the locked mark in a folder of this user; None where there is none, or its process lives."""
    with suppress(OSError):
        found = folder.lstat()
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid():
            return None
        mark = os.open(folder / MARK, os.O_RDWR | os.O_NOFOLLOW)
        try:
            fcntl.flock(mark, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return mark
        except OSError:
            os.close(mark)
    return None


def compile_cache() -> tuple[Path, str | None]:
    """Return the folder of compiled code, and a sentence for the user where it is not the one that was to be used.

    That is TORCHINDUCTOR_CACHE_DIR or the user's cache, where it can be written by this user and by nobody else: torch
    executes what it finds there, as do we.
    """
    given = os.environ.get("TORCHINDUCTOR_CACHE_DIR")
    usual = Path(given) if given else user_folder("XDG_CACHE_HOME", ".cache") / "sweeps" / "compiled"
    try:
        usual.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = usual.stat()
        if found.st_uid == os.getuid() and not found.st_mode & stat.S_IWOTH:
            if found.st_mode & stat.S_IWGRP:  # made by torch where new folders are writable for the group
                usual.chmod(0o700)
            tempfile.TemporaryFile(dir=usual).close()
            return usual, None
        why = "is not private to you"
    except OSError as error:
        why = f"cannot be written ({error.strerror})"
    folder = private_folder("cache")
    variable = "TORCHINDUCTOR_CACHE_DIR" if given else "XDG_CACHE_HOME"
    return folder, (
        f"{usual} on {socket.gethostname()} {why}: compiled code is kept in {folder}; {variable} names another place"
    )


def use_compile_cache() -> str | None:
    """Set torch's compile cache for this process; return a sentence for the user where it is not the usual folder.

    Idempotent. Before torch's compiler is imported, which otherwise chooses a folder that others can know in advance.
    """
    folder, why = compile_cache()
    os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(folder)
    return why


def folder_for_sockets(prefix: str, num_bytes: int) -> Path:
    """Make a temporary folder with room for paths of `num_bytes` below it: a Unix socket's path must be short.

    It is in the usual place where that is short enough. Raises ClusterError where there is no such place.
    """
    for parent in dict.fromkeys([tempfile.gettempdir(), "/tmp", "/var/tmp", "/dev/shm"]):
        if len(os.fsencode(os.path.join(parent, prefix))) + 8 + num_bytes <= SOCKET_PATH_BYTES:
            try:
                return Path(tempfile.mkdtemp(prefix=prefix, dir=parent))
            except OSError:
                continue
    raise ClusterError(
        f"Ray needs a temporary folder with a short path, and {tempfile.gettempdir()} is too long, "
        "/tmp not writable: set TMPDIR to a folder with a path of at most 10 letters"
    )


def number_in(variable: str) -> float:
    """Return the number that an environment variable holds, 0 where it is not set. Raises UserError."""
    text = os.environ.get(variable, "").strip()
    try:
        value = float(text or 0)
    except ValueError:
        value = math.nan
    if not math.isfinite(value) or value < 0:
        raise UserError(f"{variable} must be a number, 0 or more, but is {text!r}: set it to one, or unset it")
    return value


def price_here() -> float | None:
    """Return USD an hour for one node, from the environment; None where it is not set. Raises UserError."""
    return number_in(PRICE) if os.environ.get(PRICE, "").strip() else None


def ray_address() -> str | None:
    """Return RAY_ADDRESS: `auto`, HOST:PORT, or None where Ray is to be started here. Raises UserError for any other."""
    given = os.environ.get("RAY_ADDRESS", "").strip()
    if given in ("", "local"):
        return None
    if given == "auto":
        return given
    remedy = "It must be HOST:PORT of a Ray cluster's head (usually port 6379) that this machine is a node of; " + REMEDY
    if "://" in given:
        kind = "Ray Client, with which Ray Tune does not run here" if given.startswith("ray://") else "not an address of Ray"
        raise UserError(f"RAY_ADDRESS is {given!r}, {kind}. {remedy}")
    try:
        parts = urlsplit(f"//{given}")
        right = bool(parts.hostname and parts.port) and parts.netloc == given and parts.username is None
        (parts.hostname or "").encode("idna")
    except ValueError:  # and UnicodeError, which is one
        right = False
    if not right:
        raise UserError(f"RAY_ADDRESS is {given!r}. {remedy}")
    return given


def check_answers(address: str, connect: Callable[[str], object]) -> None:
    """Raise ClusterError unless HOST:PORT accepts connections and `connect(address)` returns, in 15 s.

    Ray itself tries for minutes.
    """
    parts = urlsplit(f"//{address}")
    reached: list[bool] = []
    errors: list[Exception | None] = []

    def call() -> None:
        try:
            socket.create_connection((parts.hostname or "", parts.port or 0), timeout=CONNECT_S).close()
            reached.append(True)
            connect(address)
            errors.append(None)
        except Exception as error:
            errors.append(error)

    # A thread, because Ray's client and the system's resolver have no limit of time.
    thread = threading.Thread(target=call, daemon=True)
    thread.start()
    thread.join(ANSWER_S)
    error = errors[0] if errors else TimeoutError(f"no answer in {ANSWER_S:g} s")
    if error is None:
        return
    why = ((error.strerror if isinstance(error, OSError) else None) or str(error)).partition(". ")[0]
    if reached:
        raise ClusterError(
            f"what listens at RAY_ADDRESS {address} does not answer as a Ray cluster of this version and token: {why}. "
            "Give the port of Ray's head (usually 6379), not of its dashboard, and its token (RAY_AUTH_MODE=token, "
            f"RAY_AUTH_TOKEN_PATH); or {REMEDY}"
        ) from error
    raise ClusterError(f"nothing answers at RAY_ADDRESS {address} ({why}). Start the cluster there; or {REMEDY}") from error
