"""Logs of pods, as `following` wants them: the driver's, which its submitter's pod prints, and a single pod's."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from cluster import following
from cluster.following import Look
from cluster.kubectl import Kubectl, NotThere, ServerAway
from cluster.kubernetes_state import created, ended, name_of, status_of, trouble
from sweeps.runner.progress_log import RAY_LINE

Values = dict[str, Any]


class PodLog:
    """The log of one pod, to its end."""

    def __init__(self, kubectl: Kubectl, pod: str) -> None:
        self._kubectl, self._pod = kubectl, pod
        self.phase, self.trouble = "", ""
        """As `look` found them last."""

    def look(self) -> Look:
        pod = _reached(lambda: self._kubectl.objects("pods", f"sweeps/pod={self._pod}"))
        self.phase = str((pod[0].get("status") or {}).get("phase", "")) if pod else "Gone"
        self.trouble = trouble(pod)
        return Look(self._pod, self.phase in ("Succeeded", "Failed", "Gone"))

    def whole(self) -> str:
        return _reached(lambda: whole_log(self._kubectl, self._pod))

    def tail(self) -> Iterator[str]:
        yield from pod_tail(self._kubectl, self._pod)


class DriverLog:
    """The driver's words, out of the submitter's log. Each of the submitter's pods prints them from the beginning.

    A job that the operator begins anew gets another id of Ray's, and so is another text.
    """

    def __init__(self, kubectl: Kubectl, job: Callable[[], Values]) -> None:
        self._kubectl, self._job = kubectl, job
        self._name = ""

    def look(self) -> Look:
        job = _reached(self._job)
        self._name = name_of(job)
        return Look(status_of(job, "jobId") or self._name, ended(job))

    def whole(self) -> str:
        pod = self._newest()
        told = _reached(lambda: whole_log(self._kubectl, pod)) if pod else ""
        return "".join(drivers_part([told])) or told  # without a driver, what the submitter complains of

    def tail(self) -> Iterator[str]:
        pod = self._newest()
        if pod:
            yield from drivers_part(pod_tail(self._kubectl, pod))

    def _newest(self) -> str | None:
        pods = _reached(lambda: self._kubectl.objects("pods", f"job-name={self._name}"))
        return name_of(sorted(pods, key=created)[-1]) if pods else None


def drivers_part(chunks: Iterator[str] | list[str]) -> Iterator[str]:
    """What follows the submitter's own words, which differ from pod to pod."""
    held, found = "", False
    for chunk in chunks:
        if found:
            yield chunk
            continue
        held += chunk
        place = 0
        for line in held.splitlines(keepends=True):
            if line.endswith("\n") and RAY_LINE.match(line):
                found = True
                yield held[place:]
                break
            place += len(line)


def whole_log(kubectl: Kubectl, pod: str) -> str:
    try:
        return kubectl.ask("logs", pod)
    except NotThere:
        return ""


def pod_tail(kubectl: Kubectl, pod: str) -> Iterator[str]:
    try:
        yield from kubectl.streamed("logs", pod, "--follow", silence_s=following.SILENCE_S)
    except NotThere:
        return
    except ServerAway as error:
        raise ConnectionError(str(error)) from error


def _reached(ask: Callable[[], Any]) -> Any:
    """What was asked for. A server that is away is waited for, as a lost connection."""
    try:
        return ask()
    except ServerAway as error:
        raise ConnectionError(str(error)) from error
