"""Sweeps, a unit and names that several tests give to a run or to a cluster."""

from __future__ import annotations

UNIT = '''\
"""A unit of one's own: y = x Wᵀ + b."""

from arith_models.units.activations import Dense, xavier


class Mine(Dense):
    """y = x Wᵀ + b."""

    def activation(self, x):
        return x

    def initial_range(self, num_inputs, num_outputs):
        return xavier(num_inputs, num_outputs)
'''
"""A file of the user's own, my_unit.py."""
LONG = """\
name: long
task: {name: static, operation: sub, input_size: 10}
model: nau
train: {steps: 3_000_000, batch: 16, evaluate_every: 100}
seeds: 6
resources: {slots: 3, checkpoint_s: 0.5}
"""
"""It trains until it is stopped."""
HOSTILE = (
    "a b", "a'b", 'a"b', "a\nb", "$(touch owned)", "`touch owned`", "../up", "a;touch owned", "a,b=c", "-rf",
    "--kubeconfig=x", "é", "",
)  # fmt: skip
"""What no sweep may be called."""


def many(seeds: int, configurations: int, slots: int, steps: int) -> str:
    """Two searches side by side, one of them over `UNIT`: 2 * configurations * seeds lanes."""
    return f"""\
name: many
task: {{name: static, operation: sub, input_size: 10}}
train: {{steps: {steps}, batch: 16, evaluate_every: {steps // 2}}}
compare: {{model: [nau, ./my_unit.py]}}
seeds: {seeds}
resources: {{slots: {slots}, checkpoint_s: 0.2}}
search:
  sampler: {{name: tpe, seed: 0, n_startup_trials: 1}}
  configurations: {configurations}
  parallel: 2
  space:
    train.lr: {{log_uniform: [1e-4, 1e-1]}}
    train.gradient_noise: {{log_uniform: [1e-5, 0.1], or: 0}}
"""
