"""Time of one compiled optimizer step against AdamW's, in one process."""

import functools
import time

import jax
import jax.numpy as jnp
import optax

import lion
from expkit import claims
from expkit.claims import Context, Finding

NUM_LEAVES = 40


def check_step_time(num_params: int, context: Context, *, in_place: bool) -> Finding:
    """Step time of Lion divided by that of AdamW, both with donated state."""
    rounds = 20 if context.full else 10
    repetitions = context.seeds(quick=3, full=8)
    ratios = [_ratio(num_params, rounds, in_place) for _ in repetitions]
    mean, interval = claims.mean_interval(ratios)
    return Finding(
        mean,
        claims.decide(interval, at_most=1.0),
        interval,
        None,
        f"{len(ratios)} repetitions of the least of {rounds} interleaved rounds, "
        f"{num_params:,} parameters in {NUM_LEAVES} arrays, donated, "
        f"in_place={in_place}.",
    )


def _ratio(num_params: int, rounds: int, in_place: bool) -> float:
    params = {f"w{i}": jnp.ones(num_params // NUM_LEAVES) for i in range(NUM_LEAVES)}
    grads = jax.tree.map(lambda p: 0.1 * p, params)
    steps = [_stepper(lion.lion(1e-4, in_place=in_place), params, grads)]
    steps += [_stepper(optax.adamw(1e-3), params, grads)]
    least = [float("inf")] * len(steps)
    for _ in range(rounds):
        for i, step in enumerate(steps):
            start = time.perf_counter()
            step()
            least[i] = min(least[i], time.perf_counter() - start)
    return least[0] / least[1]


def _stepper(optimizer, params, grads):
    @functools.partial(jax.jit, donate_argnums=(0, 1))
    def update(params, state, grads):
        updates, state = optimizer.update(grads, state, params)
        return optax.apply_updates(params, updates), state

    carry = jax.tree.map(jnp.copy, params), optimizer.init(params)

    def step():
        nonlocal carry
        carry = jax.block_until_ready(update(*carry, grads))

    step()  # compiles
    return step
