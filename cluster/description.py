"""The description of a cluster in `clusters.yaml`: the fields that every kind has, and the types of a field's value.

A type checks one value; its message contains what is allowed. No message repeats a value that may hold a password.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Annotated, Any
from urllib.parse import SplitResult, urlsplit

from annotated_types import Ge, Gt
from pydantic import AfterValidator, BeforeValidator

from sweeps.config.faults import shown, unknown, whole
from sweeps.store.location import masked

_UNITS_S = {"d": 86_400, "h": 3_600, "m": 60, "s": 1}
_WITH_UNITS = re.compile(r"(?:\d+d)?(?:\d+h)?(?:\d+m)?(?:\d+s)?")
_CLOCK = re.compile(r"(?:(\d+)-)?(\d{1,3}):([0-5]\d):([0-5]\d)")
_SECRET_NAME = re.compile(r"(?:TOKEN|PASSWORD|PASSWD|SECRET|CREDENTIALS?|(?:API|ACCESS|PRIVATE)_KEY)$")


@dataclass(frozen=True, kw_only=True)
class Workers:
    """Number of worker nodes: always `min`, and up to `max` while there is work."""

    min: Annotated[int, Ge(0)] = 1
    max: Annotated[int, Ge(1)] = 1


@dataclass(frozen=True, kw_only=True)
class NodeResources:
    """Resources of one node."""

    cpus: Annotated[int, Ge(1)] = 1
    gpus: Annotated[int, Ge(0)] = 0
    memory_gb: Annotated[float, Gt(0)] | None = None


def duration_s(text: str) -> int:
    """Return the seconds of `12h`, `1d12h`, `90m`, `01:30:00` or `2-00:00:00`. Raises ValueError."""
    clock = _CLOCK.fullmatch(text)
    if clock:
        days, hours, minutes, seconds = (int(part or 0) for part in clock.groups())
        found = days * 86_400 + hours * 3_600 + minutes * 60 + seconds
    elif _WITH_UNITS.fullmatch(text):
        found = sum(int(n) * _UNITS_S[unit] for n, unit in re.findall(r"(\d+)([dhms])", text))
    else:
        found = 0
    if not 0 < found <= 366 * 86_400:
        raise ValueError(
            f"must be a time such as 12h, 90m, 1d12h or 01:30:00 (hours:minutes:seconds), at most a year, not {shown(text)}"
        )
    return found


def _duration(value: Any) -> Any:
    if not isinstance(value, str):
        raise ValueError(f"needs a unit: 12h, 90m or 01:30:00, not {shown(value)}")
    return duration_s(value)


def _workers(value: Any) -> Any:
    """Return {min, max} of a count or of `{min: 0, max: 8}`."""
    count = whole(value)
    if count is not None:
        if count < 1:
            raise ValueError(f"must be at least 1, or {{min: 0, max: N}}, not {count}")
        return {"min": count, "max": count}
    if not isinstance(value, dict) or "max" not in value:
        raise ValueError(f"must be a count such as 8, or {{min: 0, max: 8}}, not {shown(value)}")
    for key in value:
        if key not in ("min", "max"):
            raise ValueError(unknown("key", str(key), ("min", "max")))
    low, high = whole(value.get("min", 0)), whole(value["max"])
    if low is None or high is None or not 0 <= low <= high or high < 1:
        raise ValueError(f"must have whole numbers with 0 <= min <= max and max at least 1, not {shown(value)}")
    return {"min": low, "max": high}


def _list(value: Any) -> Any:
    if not isinstance(value, list):
        raise ValueError("must be a list with one line in each item: [module load python, ulimit -n 65536]")
    return tuple(value)


def known_keys(*allowed: str) -> BeforeValidator:
    """Return a validator that refuses a mapping with any other key, for mappings inside a list."""

    def check(value: Any) -> Any:
        for key in value if isinstance(value, dict) else ():
            if key not in allowed:
                raise ValueError(unknown("key", str(key), allowed))
        return value

    return BeforeValidator(check)


def matching(pattern: str, allowed: str) -> AfterValidator:
    """Return a validator for text that the whole pattern must match; its message contains what is `allowed`."""
    compiled = re.compile(pattern)

    def check(text: str) -> str:
        if not compiled.fullmatch(text):
            raise ValueError(f"must be {allowed}, not {shown(masked(text))}")
        return text

    return AfterValidator(check)


_SET_ELSEWHERE = {
    "SWEEPS_STORE": "give `store`",
    "MLFLOW_TRACKING_URI": "give `mlflow`",
    "RAY_ADDRESS": "Ray sets it",
    "RAY_AUTH_MODE": "authentication by token is always on",
    "RAY_AUTH_TOKEN_PATH": "the token is written to Ray's default path",
    "SWEEPS_PRICE_PER_HOUR": "give `price_per_hour`",
}


def _environment(variables: dict[str, str]) -> dict[str, str]:
    for name, value in variables.items():
        if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name):
            raise ValueError(f"{shown(name)} cannot be a variable's name: letters, digits and _, no digit first")
        if name in _SET_ELSEWHERE:
            raise ValueError(f"{name} is not set here: {_SET_ELSEWHERE[name]}")
        if _SECRET_NAME.search(name.upper()):
            raise ValueError(
                f"{name} looks like a secret, and this file is no place for one: on Kubernetes name a Secret in "
                "`secrets`, elsewhere let a line of `setup` read it from a file that only you can read"
            )
        if masked(value) != value:
            raise ValueError(f"the value of {name} is a URL with a user name or password: let a line of `setup` read it")
        if re.search(r"[\x00-\x1f\x7f]", value):
            raise ValueError(f"the value of {name} has a line break or a control character in it")
    return variables


def _values_as_text(value: Any) -> Any:
    """Turn numbers into text: the value of an environment variable is always text."""
    if not isinstance(value, dict):
        return value
    return {
        key: str(item) if isinstance(item, int | float) and not isinstance(item, bool) else item for key, item in value.items()
    }


def _http_url(text: str) -> str:
    parts = _split(text)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError(f"must be an address such as http://host:8265, not {shown(masked(text))}")
    if "@" in parts.netloc:
        raise ValueError(
            "has a user name or password in it: this file is no place for one. For MLflow export "
            "MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, for Ray give a token_file"
        )
    return text.rstrip("/")


def _store(text: str) -> str:
    if "://" not in text:
        if not re.fullmatch(r"[^\x00-\x1f\x7f?#%]+", text):
            raise ValueError(f"must be a folder, or a postgresql:// URL, not {shown(text)}")
        return text
    parts = _split(text)
    if parts.scheme not in ("postgresql", "postgresql+psycopg", "postgresql+psycopg2") or not parts.hostname:
        raise ValueError(f"must be a folder, or a URL such as postgresql://host/sweeps, not {shown(masked(text))}")
    return text


def _split(text: str) -> SplitResult:
    if re.search(r"[\x00-\x20\x7f'\"\\`$]", text):
        raise ValueError("has a space, a quote or a control character in it, which no URL has")
    try:
        parts = urlsplit(text)
        _ = parts.port
    except ValueError as error:
        raise ValueError(f"is not a URL: {error}") from error
    return parts


def _token_file(text: str) -> str:
    if re.fullmatch(r"[A-Za-z0-9+/=_-]{32,}", text) and not text.startswith(("/", "~")):
        raise ValueError(
            "looks like a token itself: write the token into a file that only you can read (chmod 600), and give "
            "the file's path here"
        )
    return text


LINE = r"[^\x00-\x1f\x7f]*\S[^\x00-\x1f\x7f]*"
Duration = Annotated[int, BeforeValidator(_duration)]
"""Seconds, once read; `12h` or `01:30:00` in the file."""
WorkerCount = Annotated[Workers, BeforeValidator(_workers)]
ShellLines = Annotated[tuple[Annotated[str, matching(LINE, "one line of shell")], ...], BeforeValidator(_list)]
Environment = Annotated[dict[str, str], BeforeValidator(_values_as_text), AfterValidator(_environment)]
HttpUrl = Annotated[str, AfterValidator(_http_url)]
StoreLocation = Annotated[str, AfterValidator(_store)]
Path = Annotated[str, matching(LINE, "a path")]
TokenFile = Annotated[str, matching(LINE, "a path"), AfterValidator(_token_file)]
VariableName = Annotated[str, matching(r"[A-Z_][A-Z0-9_]{0,63}", "the NAME of an environment variable, such as LAB_RAY_TOKEN")]
Word = Annotated[str, matching(r"[A-Za-z0-9][A-Za-z0-9._,+-]*", "a word of letters, digits and . _ - , +, such as gpu")]
Reference = Annotated[
    str,
    matching(r"(?!.*://)[A-Za-z0-9][A-Za-z0-9._/:@+-]*",
             "a word of letters, digits and . _ - / : @ +, such as projects/ml/global/images/family/gpu"),
]  # fmt: skip
Image = Annotated[str, matching(r"[A-Za-z0-9][A-Za-z0-9._/:@-]{0,254}", "a container image such as registry/sweeps:1.0")]


@dataclass(frozen=True, kw_only=True)
class Cluster:
    """The fields that every kind of cluster has. A backend's schema subclasses it and adds its own."""

    name: str
    workers: WorkerCount = field(default_factory=Workers)
    """Worker nodes: a count, or {min: 0, max: 8}."""
    resources: NodeResources = field(default_factory=NodeResources)
    """Resources of one worker node: {cpus: 8, gpus: 1, memory_gb: 32}."""
    setup: ShellLines = ()
    """Lines of shell, run once on each node before Ray starts there."""
    environment: Environment = field(default_factory=dict)
    """Variables for driver and workers. No secrets."""
    mlflow: HttpUrl | None = None
    """Address of the MLflow server, as the head reaches it."""
    store: StoreLocation = field(default="results", repr=False)  # may hold a password
    """Where the driver keeps the records: a folder, or a postgresql:// URL."""
    time_limit: Duration | None = None
    """How long the head and the driver may live. What is done is kept; submitting again continues."""
    price_per_hour: Annotated[float, Ge(0)] | None = None
    """USD an hour for one worker node, for `sweeps plan` and `budget.cost_usd`."""

    def conflicts(self) -> Iterator[tuple[str, str]]:
        """Yield (field, message) for values that are valid alone and not together. Called after each has been checked."""
        yield from ()

    @property
    def size(self) -> str:
        """Number and size of the worker nodes, for people."""
        count = str(self.workers.max)
        if self.workers.min != self.workers.max:
            count = f"{self.workers.min} to {count}"
        node = f"{self.resources.cpus} CPUs" if self.resources.cpus > 1 else "1 CPU"
        if self.resources.gpus:
            node += f" and {self.resources.gpus} GPU{'s' if self.resources.gpus > 1 else ''}"
        return f"{count} worker node{'' if count == '1' else 's'} of {node}"

    @property
    def driver_environment(self) -> dict[str, str]:
        """`environment`, the price of a node, and where MLflow is. The store is not in it: its URL may hold a password."""
        mlflow = {} if self.mlflow is None else {"MLFLOW_TRACKING_URI": self.mlflow}
        return {**self.environment_with_price, **mlflow}

    @property
    def environment_with_price(self) -> dict[str, str]:
        """`environment`, and the price of a node for `budget.cost_usd`."""
        price = {} if self.price_per_hour is None else {"SWEEPS_PRICE_PER_HOUR": f"{self.price_per_hour:g}"}
        return {**self.environment, **price}
