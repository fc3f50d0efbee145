"""A command or URL that is called when a sweep ends: `sweeps run --on-end`, or the environment variable SWEEPS_ON_END.

A command is started without a shell, with a JSON object on its standard input; an http or https URL receives the same object
as POST. A failure is a warning: the sweep has ended, and its exit status stays.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import signal
import subprocess
import tempfile
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from sweeps.errors import UserError
from sweeps.results.export import best_configuration
from sweeps.results.report import report
from sweeps.store import Store
from sweeps.store.location import masked

VARIABLE = "SWEEPS_ON_END"
COMMAND_S = 60.0
"""Seconds that a command may take; then it is killed, with what it started."""
URL_S = 15.0
"""Seconds that a server may take to connect, and again to answer; together at most twice as long, however slowly it sends."""
_LAST_LINE = 300
"""Characters of a command's output that a warning has."""


@dataclass(frozen=True)
class OnEnd:
    """What is called, and how it may be named in a message: a URL may hold a secret in its path too."""

    command: tuple[str, ...] = ()
    url: str | None = None

    @property
    def shown(self) -> str:
        if self.url is None:
            return f"the command {self.command[0]}"
        parts = urlsplit(self.url)
        host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname
        return f"{parts.scheme}://{host}{f':{parts.port}' if parts.port else ''}"

    def call(self, event: dict[str, Any], warn: Callable[[str], object]) -> None:
        """Call it with an event. Raises nothing: `warn` receives the reason why it failed."""
        try:
            text = json.dumps(event, ensure_ascii=False, allow_nan=False)
            reason = self._post(text) if self.url is not None else self._run(text)
        except Exception as error:  # it must not change how the sweep ended
            reason = f"{type(error).__name__}: {masked(str(error))}"
        if reason is not None:
            warn(f"on end, {self.shown} failed: {reason}. The sweep is not affected")

    def _run(self, text: str) -> str | None:
        with tempfile.TemporaryFile() as output:  # no pipe, which a process that it leaves behind would keep open
            try:
                process = subprocess.Popen(
                    self.command, stdin=subprocess.PIPE, stdout=output, stderr=output, start_new_session=True
                )
            except OSError as error:
                return str(error.strerror)
            try:
                process.communicate((text + "\n").encode(), timeout=COMMAND_S)
            except subprocess.TimeoutExpired:
                return f"it took longer than {COMMAND_S:g} s"
            finally:
                if process.poll() is None:
                    with suppress(ProcessLookupError):
                        os.killpg(process.pid, signal.SIGKILL)
                    process.wait()
            if not process.returncode:
                return None
            output.seek(0)
            lines = output.read().decode("utf-8", "replace").strip().splitlines()
        return f"exit status {process.returncode}" + (f", {masked(lines[-1][:_LAST_LINE])}" if lines else "")

    def _post(self, text: str) -> str | None:
        found: list[str | None] = []
        # `requests` limits the time between two bytes alone. A daemon keeps no process from ending.
        thread = threading.Thread(target=lambda: found.append(self._answer(text)), daemon=True)
        thread.start()
        thread.join(2 * URL_S)
        return found[0] if found else f"no answer within {2 * URL_S:g} s"

    def _answer(self, text: str) -> str | None:
        import requests

        assert self.url is not None
        try:
            answer = requests.post(
                self.url, data=text.encode(errors="backslashreplace"), headers={"Content-Type": "application/json"},
                timeout=URL_S, stream=True, allow_redirects=False,
            )  # fmt: skip
        except requests.Timeout:
            return f"no answer within {URL_S:g} s"
        except Exception as error:
            return type(error).__name__  # its text may have the whole URL
        with answer:  # its body is not read
            if 300 <= answer.status_code < 400:
                return f"status {answer.status_code}, redirected; give the final URL"
            return None if answer.ok else f"status {answer.status_code}"


def parse(given: str | None, warn: Callable[[str], object]) -> OnEnd | None:
    """Return what --on-end or else SWEEPS_ON_END names, None where neither does. Raises UserError for what is neither form."""
    name = VARIABLE if given is None else "--on-end"
    text = (os.environ.get(VARIABLE, "") if given is None else given).strip()
    if not text:
        return None
    if "://" in text.split(maxsplit=1)[0]:
        try:
            parts = urlsplit(text)
            sound = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port or 1) > 0
        except ValueError:
            sound = False
        if not sound or len(text.split()) > 1:
            raise UserError(f"{name} is a command, or one URL that begins with http:// or https://, with a host")
        return OnEnd(url=text)
    try:
        words = tuple(shlex.split(text))
    except ValueError as error:
        raise UserError(f"{name} cannot be split into words ({error}): quote it as for a shell, which is not used") from error
    if not words:
        return None
    if shutil.which(words[0]) is None:
        warn(f"{name}: there is no program {words[0]!r} on this machine now, so that it will fail when the sweep ends")
    return OnEnd(words)


def event(store: Store, name: str, state: str, reason: str | None, store_flag: str = "") -> dict[str, Any]:
    """Return the object that is sent. `store_flag` is the option that a further command needs to find the store, or "".

    Raises nothing: of a store that cannot be read, or a report that fails, it has the state and the reason.
    """
    counts: dict[str, int] = {}
    best = row = None
    with suppress(Exception):
        row = store.sweep(name)
        found = report(store, name)
        counts = {key: value for key, value in found.totals(timing=False).items() if isinstance(value, int)}
        one = best_configuration(store, name)  # raises where no configuration is complete
        best = {
            "cell": dict(one.configuration.labels), "number": one.configuration.number, "parameters": one.parameters,
            **found.figures_of(one),
        }  # fmt: skip
    return {
        "event": "end",
        "sweep": name,
        "question": str(row.document.get("question") or "") if row is not None else "",
        "state": state,
        "reason": reason,
        "store": store.location,
        "seconds": row.seconds if row is not None else None,
        "counts": counts,
        "best": best,
        "report": f"sweeps report {name}{store_flag}",
    }
