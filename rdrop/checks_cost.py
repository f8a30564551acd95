"""Time of a step of R-Drop against a plain one, taken in turn in one process."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from expkit import claims, finetuning, finetuning_runs, loop
from expkit.claims import Context, Finding
from rdrop import checks_runs, train

ABOUT_TWO = (1.75, 2.25)  # times as long as a plain step


def check_cost(context: Context) -> Finding:
    """Time of a step of R-Drop divided by that of a plain one, in the same round."""
    runs = checks_runs.study(context, "reviews")
    lab = runs.lab
    arrays, _ = lab.draw(0)
    batch = {k: jnp.asarray(v[: lab.config.batch_size]) for k, v in arrays.items()}
    steps = {}
    for arm in ("none", "rdrop"):
        config = lab.config.copy_and_resolve_references()
        config.regularizer = arm
        optimizer = finetuning.make_adamw(config)
        step = loop.make_step(train.make_loss(config, lab.texts.task), optimizer)
        state = loop.init_state(lab.initial(0), optimizer, jax.random.key(0))
        steps[arm] = functools.partial(jax.jit(step), state, batch)
    seconds = finetuning_runs.round_seconds(steps, rounds=30 if context.full else 12)
    plain, ours = (np.array(seconds[arm]) for arm in ("none", "rdrop"))
    mean, interval = claims.mean_interval(np.log(ours / plain))
    low, high = np.exp(interval).tolist()
    return Finding(
        float(np.exp(mean)),
        claims.decide((low, high), at_least=ABOUT_TWO[0], at_most=ABOUT_TWO[1]),
        (low, high),
        details=f"Geometric mean of the ratio over {len(plain)} rounds; a plain step "
        f"of {lab.config.batch_size} texts takes {1e3 * plain.min():.0f} ms and more "
        f"here. {ABOUT_TWO[0]:g} to {ABOUT_TWO[1]:g} counts as about two.",
        is_ratio=True,
    )
