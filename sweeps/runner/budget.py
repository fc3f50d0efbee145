"""What a sweep has used of its budget (hours, seed-steps, money), when that stops it, and how it goes on then."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from sweeps.config.sweep_file import Budget
from sweeps.errors import UserError
from sweeps.machine import PRICE, price_here
from sweeps.results.numbers import steps


@dataclass(frozen=True)
class Stop:
    """Why a sweep stops, and what a user does to continue it."""

    reason: str
    how_to_continue: str


class Spending:
    """What all runs of one sweep together have used of its budget.

    Seed-steps are optimiser updates, all lanes together: those of lanes that were in the store when this run needed them,
    and those of this run. Money is wall time times the nodes that train times the price of a node (`PRICE`): earlier runs
    count with the number of nodes that this run begins with. `clock` returns seconds.

    Raises UserError where `cost_usd` is limited and no price is known.
    """

    def __init__(self, budget: Budget, seconds_before: float, clock: Callable[[], float] = time.monotonic) -> None:
        self.budget, self._clock = budget, clock
        self.price_per_hour = price_here()
        if budget.cost_usd is not None and self.price_per_hour is None:
            raise UserError(
                f"budget.cost_usd is {budget.cost_usd:g}, and the price of this machine is not known. Set {PRICE} to USD an "
                "hour for one node, give `price_per_hour` in the cluster's entry of clusters.yaml and submit there, or use "
                "budget.hours"
            )
        self._seconds_before = seconds_before
        self._started_s = self._counted_s = clock()
        self._nodes: int | None = None
        self._node_seconds = 0.0
        self.steps_of_run = 0
        self._steps_before: dict[str, int] = {}  # by lane, in the store before this run trained it
        self._steps_before_total = 0
        self._begun: set[str] = set()  # lanes that this run trains

    @property
    def seconds(self) -> float:
        """Wall time of all runs."""
        return self._seconds_before + self._clock() - self._started_s

    @property
    def seed_steps(self) -> int:
        """Optimiser updates of all lanes and runs."""
        return self._steps_before_total + self.steps_of_run

    @property
    def cost_usd(self) -> float | None:
        """USD of all runs; None where no price is known."""
        if self.price_per_hour is None:
            return None
        now = self._node_seconds + (self._nodes or 0) * (self._clock() - self._counted_s)
        return now / 3600 * self.price_per_hour

    def set_nodes(self, nodes: int) -> None:
        """Count time from now on with so many nodes that train."""
        if self._nodes is None:
            self._node_seconds = nodes * (self._seconds_before + self._clock() - self._started_s)
        else:
            self._node_seconds += self._nodes * (self._clock() - self._counted_s)
        self._nodes, self._counted_s = nodes, self._clock()

    def count_stored(self, key: str, steps: int) -> None:
        """Count the steps of a lane that the store has, unless this run has made them. May be called again for a lane."""
        before = self._steps_before.get(key, 0)
        if key not in self._begun and steps > before:
            self._steps_before[key] = steps
            self._steps_before_total += steps - before

    def begin_lane(self, key: str, steps: int) -> None:
        """Count a lane that this run trains from a checkpoint after so many steps; 0: from the beginning."""
        self.count_stored(key, steps)
        self._begun.add(key)

    def used_up(self) -> Stop | None:
        """Return why the sweep has to stop, or None."""
        limits = self.budget
        if limits.hours is not None and self.seconds >= limits.hours * 3600:
            return _stop(f"the budget of {limits.hours:g} hours is used up", "hours", limits.hours)
        if limits.seed_steps is not None and self.seed_steps >= limits.seed_steps:
            reason = f"the budget of {steps(limits.seed_steps)} seed-steps is used up"
            return _stop(reason, "seed_steps", limits.seed_steps)
        cost = self.cost_usd
        if limits.cost_usd is not None and cost is not None and cost >= limits.cost_usd:
            return _stop(f"the budget of {limits.cost_usd:g} USD is used up", "cost_usd", limits.cost_usd)
        return None

    def seconds_left(self) -> float | None:
        """Return how long this run may go on at its present speed until something is used up; None: without a limit."""
        limits, left = self.budget, []
        if limits.hours is not None:
            left.append(limits.hours * 3600 - self.seconds)
        if limits.seed_steps is not None and self.steps_of_run:
            speed = self.steps_of_run / max(1e-9, self._clock() - self._started_s)
            left.append((limits.seed_steps - self.seed_steps) / speed)
        cost = self.cost_usd
        if limits.cost_usd is not None and cost is not None and self._nodes and self.price_per_hour:
            left.append((limits.cost_usd - cost) / (self._nodes * self.price_per_hour) * 3600)
        return max(0.0, min(left)) if left else None


def _stop(reason: str, key: str, value: float) -> Stop:
    more = f"{2 * value:d}" if isinstance(value, int) else f"{2 * value:g}"
    return Stop(reason, f"the same command with a larger budget, such as `budget.{key}={more}`, continues")
