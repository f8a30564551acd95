"""Whole training runs in one compiled call, for the checks; kept by seed.

A run keeps the parameters of the segment with the lowest validation loss, as the
authors' early stopping does; every arm has the same steps, batches and seeds.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from expkit import loop, nets, sweep
from expkit.claims import Context
from vmf_vae import train

Figures = dict[str, Any]
Analyze = Callable[[train.Task, nets.Params], Figures]
HELD_OUT_ROWS = 500
# Fields that are traced: configs that differ in them share a compilation.
TRACED = {"learning_rate": 0.0, "kl_warmup_steps": 0}


def figures_by_seed(
    context: Context,
    name: str,
    config: ml_collections.ConfigDict,
    seeds: range,
    *,
    num_segments: int = 10,
    analyze: Analyze | None = None,
    evaluate: bool = True,
) -> dict[str, np.ndarray]:
    """Figures of a config, each [seeds, ...], from memory where it has them.

    `curve_kl`, `curve_loss` and `curve_reconstruction` are means over each segment of
    the training, `test_bound` is the ELBO by one draw for `HELD_OUT_ROWS` of the test
    split; with `evaluate` there are the figures of `train.make_evaluation` too.
    """
    values = config.to_dict()
    shared = ml_collections.FrozenConfigDict(values | TRACED)
    settings = {field: values[field] for field in TRACED}

    def figures(seed):
        run = compile_run(shared, num_segments, analyze, evaluate)
        return run(seed, **settings)

    by_seed = [
        context.memo(
            f"{name}-{seed}",
            functools.partial(figures, seed),
            config=values,
            num_segments=num_segments,
        )
        for seed in seeds
    ]
    return sweep.stacked(by_seed)


@functools.cache
def compile_run(
    config: ml_collections.FrozenConfigDict,
    num_segments: int,
    analyze: Analyze | None = None,
    evaluate: bool = True,
) -> Callable[..., Figures]:
    """Makes `(seed, learning_rate, kl_warmup_steps) -> figures` of one whole run."""
    task = train.make_task(config)
    fit = compile_fit(task, config, num_segments)
    on_split = train.make_evaluation(task, num_samples=config.importance_samples)

    def run(seed, learning_rate, kl_warmup_steps):
        params, curves = fit(seed, learning_rate, kl_warmup_steps)
        extra = analyze(task, params) if analyze else {}
        test = on_split(params, "test") if evaluate else {}
        return test | curves | extra

    return run


def compile_fit(
    task: train.Task, config: ml_collections.ConfigDict, num_segments: int
) -> Callable[[int, float, int], tuple[nets.Params, Figures]]:
    """Makes `(seed, learning_rate, kl_warmup_steps) -> (best parameters, curves)`."""
    model = task.model

    def held_out_bounds(params, arrays):
        frozen = model.freeze_statistics(params, arrays["calibration"])
        elbo, _ = model.elbo(frozen, arrays["held_out"], jax.random.key(0))
        return jnp.stack([part.mean() for part in jnp.split(elbo, [num_validation])])

    @jax.jit
    def fit(key, arrays, rows, learning_rate, kl_warmup_steps):
        optimizer = train.make_optimizer(config, learning_rate)
        step = train.make_step(model, optimizer, kl_warmup_steps)
        init_key, run_key = jax.random.split(key)
        state = loop.init_state(model.init(init_key), optimizer, run_key)

        def one(state, rows_of_step):
            return step(state, {"x": arrays["train"][rows_of_step]})

        def segment(carry, rows_of_segment):
            state, highest, best = carry
            state, metrics = jax.lax.scan(one, state, rows_of_segment)
            bounds = held_out_bounds(state.params, arrays)
            is_better = bounds[0] > highest[0]
            highest, best = jax.tree.map(
                lambda new, old: jnp.where(is_better, new, old),
                (bounds, state.params),
                (highest, best),
            )
            curves = {f"curve_{k}": v.mean() for k, v in metrics.items()}
            curves["curve_validation_loss"] = -bounds[0]
            return (state, highest, best), curves

        start = (state, jnp.full(2, -jnp.inf), state.params)
        (_, highest, best), curves = jax.lax.scan(segment, start, rows)
        held_out = {"validation_loss": -highest[0], "test_bound": highest[1]}
        return best, held_out | curves

    # Both in one batch, since every draw of a posterior takes its time to compile.
    held_out = [task.splits[name]["x"][:HELD_OUT_ROWS] for name in train.HELD_OUT]
    num_validation = len(held_out[0])
    arrays = {
        "train": jnp.asarray(task.splits["train"]["x"]),
        "calibration": jnp.asarray(task.calibration),
        "held_out": jnp.concatenate(held_out),
    }

    def run(
        seed: int, learning_rate: float, kl_warmup_steps: int
    ) -> tuple[nets.Params, Figures]:
        num_rows, size = len(arrays["train"]), config.batch_size
        rows = sweep.batch_rows(num_rows, size, config.num_steps, seed)
        rows = rows.reshape(num_segments, -1, size)
        key = jax.random.key(seed)
        params, curves = fit(key, arrays, rows, learning_rate, kl_warmup_steps)
        return params, {k: np.asarray(v).tolist() for k, v in curves.items()}

    return run
