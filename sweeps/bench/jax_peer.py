"""The case of `sweeps bench` in JAX: one seed's step with jax.grad, lanes with vmap, many steps with scan, all in jit.

A program of its own: `python -m sweeps.bench.jax_peer CORE LANES ...` reads a number of lanes from every line of its input
and prints seed-steps a second. JAX is an optional requirement of the bench.
"""

from __future__ import annotations

import os
import sys
import time
from typing import Any

UPDATES = 20_000
"""Of a measurement, all lanes together, and at least 10 steps."""


def main(core: int, sizes: list[int]) -> None:
    """Compile for every number of lanes, then measure on request."""
    if core >= 0 and sys.platform == "linux":
        os.sched_setaffinity(0, {core})
    import jax
    import jax.numpy as jnp

    inputs, batch, hidden = 100, 128, 2

    def initial(key: Any) -> dict[str, Any]:
        first, second = jax.random.split(key)
        r = (6 / (inputs + hidden)) ** 0.5
        return {
            "first": jax.random.uniform(first, (hidden, inputs), minval=-r, maxval=r),
            "second": jax.random.uniform(second, (1, hidden), minval=0.25, maxval=0.75),
        }

    def distance(w: Any) -> Any:
        return jnp.minimum(jnp.abs(w), jnp.abs(1 - jnp.abs(w))).mean()

    def loss(params: dict[str, Any], x: Any, target: Any, step: Any) -> Any:
        h = x @ params["first"].T
        y = jnp.prod(params["second"] * h + 1 - params["second"], axis=1)
        penalty = 10 * jnp.clip((step - 1e6) / 1e6, 0, 1) * (distance(params["first"]) + distance(params["second"]))
        return ((y - target) ** 2).mean() + penalty

    def step(carry: Any, _: Any) -> Any:
        params, first, second, t, key, offset = carry
        x = jax.random.uniform(jax.random.fold_in(key, t), (batch, inputs), minval=1.0, maxval=2.0)
        index = jnp.arange(inputs)
        masks = jnp.stack([(index >= offset) & (index < offset + 25), (index >= offset + 13) & (index < offset + 38)])
        sums = x @ masks.astype(x.dtype).T
        grads = jax.grad(loss)(params, x, sums[:, 0] * sums[:, 1], t.astype(jnp.float32))
        count = (t + 1).astype(jnp.float32)
        first = jax.tree.map(lambda m, g: 0.9 * m + 0.1 * g, first, grads)
        second = jax.tree.map(lambda v, g: 0.999 * v + 0.001 * g * g, second, grads)

        def updated(p: Any, m: Any, v: Any) -> Any:
            return p - 1e-3 * (m / (1 - 0.9**count)) / (jnp.sqrt(v / (1 - 0.999**count)) + 1e-8)

        params = jax.tree.map(updated, params, first, second)
        params = {"first": jnp.clip(params["first"], -1, 1), "second": jnp.clip(params["second"], 0, 1)}
        return (params, first, second, t + 1, key, offset), None

    states, runs, steps = {}, {}, {}
    for size in sizes:
        length = steps[size] = max(10, UPDATES // size)
        runs[size] = run = jax.jit(jax.vmap(lambda carry, n=length: jax.lax.scan(step, carry, None, length=n)[0]))
        keys = jax.random.split(jax.random.PRNGKey(0), size)
        params = jax.vmap(initial)(keys)
        zeros = jax.tree.map(jnp.zeros_like, params)
        start = (params, zeros, zeros, jnp.zeros(size, jnp.int32), keys, jnp.arange(size) % 62)
        states[size] = jax.block_until_ready(run(start))
    for line in sys.stdin:
        size = int(line)
        started = time.perf_counter()
        states[size] = jax.block_until_ready(runs[size](states[size]))
        print(size * steps[size] / (time.perf_counter() - started), flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]), [int(word) for word in sys.argv[2:]])
