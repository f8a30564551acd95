"""Exact statements about masks and optimizers, each with a control that must fail."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax

import childtuning
from expkit import claims, plots
from expkit.claims import Context, Finding

RATE, DECAY, STEPS = 1e-3, 0.01, 200  # of the runs with weight decay


def check_sgd_variance(context: Context) -> Finding:
    """Largest relative error of the variance formula, over all masks in float64."""
    del context
    errors, controls = [], []
    for p, mu, sigma in itertools.product(
        (0.2, 0.3, 0.5, 1.0), (0.0, 0.5, 2.0), (1, 3)
    ):
        # A gradient of two equally likely values has this mean and deviation.
        gradients = np.array([mu - sigma, mu + sigma])
        masks, weights = np.array([0.0, 1.0]), np.array([1 - p, p])
        products = np.outer(masks / p, gradients)
        chances = np.outer(weights, [0.5, 0.5])
        mean = (chances * products).sum()
        variance = (chances * (products - mean) ** 2).sum()
        formula = sigma**2 + (1 - p) / p * (mu**2 + sigma**2)
        errors.append(max(abs(variance / formula - 1), abs(mean - mu)))
        without_mean = sigma**2 + (1 - p) / p * sigma**2
        controls.append(abs(variance / without_mean - 1))
    sampled = _sampled_variance(p=0.3, mu=0.5, sigma=1.0)
    formula = 1 + 0.7 / 0.3 * 1.25
    return claims.exact(
        max(errors) < 1e-12 < max(controls) and abs(sampled / formula - 1) < 0.03,
        max(errors),
        f"At p = 0.3, mu = 0.5, sigma = 1 the formula gives {formula:.3f} and "
        f"child_tuning_f {sampled:.3f}; without mu, the control, it is off by up to "
        f"{100 * max(controls):.0f} %.",
    )


def _sampled_variance(p: float, mu: float, sigma: float) -> float:
    tx = childtuning.child_tuning_f(p, jax.random.key(0))
    gradients = mu + sigma * jax.random.normal(jax.random.key(1), (200_000,))
    kept, _ = tx.update(gradients, tx.init(gradients))
    return float(np.var(np.asarray(kept, np.float64)))


def check_adam_step(context: Context) -> Finding:
    """Largest deviation of Adam's mean step from sqrt(p), constant gradient."""
    fractions = np.array([0.1, 0.2, 0.3, 0.5, 0.7, 1.0])
    ours = np.array([np.mean(_adam_updates(p)) for p in fractions])
    plain = np.array([np.mean(_adam_updates(p, rescale=False)) for p in fractions])
    deviation = float(np.abs(ours / np.sqrt(fractions) - 1).max())
    control = float(np.abs(ours / fractions - 1).max())
    curves = {
        "measured": (fractions, ours, None, None),
        "√p": (fractions, np.sqrt(fractions), None, None),
        "p": (fractions, fractions, None, None),
    }

    def draw(figure):
        axes = figure.subplots()
        plots.curves(
            axes, curves, xlabel="p, the fraction kept", ylabel="mean step / rate"
        )

    context.figure(
        "adam_step",
        draw,
        "Mean step of Adam under ChildTuning-F, for a constant gradient: it falls with "
        "the root of p, so a fair comparison is plain Adam at the rate times √p.",
        f"At p = 0.3 the mean step is {ours[2]:.3f} of the learning rate.",
    )
    is_same = float(np.abs(ours - plain).max())
    return claims.exact(
        deviation < 0.02 < control and is_same < 1e-4,
        deviation,
        f"With and without 1/p the steps differ by {is_same:.0e}; p itself, the "
        f"control, is off by {control:.2f}.",
    )


def check_adam_variance(context: Context) -> Finding:
    """Variance of Adam's update under F over that of plain Adam, p = 0.2."""
    del context
    ratios = [
        np.var(_adam_updates(0.2, mu=0.5, sigma=1.0, seed=seed))
        / np.var(_adam_updates(1.0, mu=0.5, sigma=1.0, seed=seed))
        for seed in range(5)
    ]
    mean, interval = claims.mean_interval(ratios)
    sgd = 1 + 0.8 / 0.2 * 1.25
    return Finding(
        mean,
        claims.decide(interval, at_most=1.0),
        interval,
        range(5),
        f"mu = 0.5, sigma = 1; {sgd:.1f} times under descent. Adam divides by the root "
        "of the second moment, which grows as well, but less than the variance. The "
        "mean step shrinks by sqrt(p), so that relative to its square the variance is "
        f"{mean / 0.2:.1f} times as large.",
    )


def check_masked_still_move(context: Context) -> Finding:
    """Share of the entries masked in a step that move in it."""
    del context
    adam = optax.adam(1e-3)
    key = jax.random.key(2)
    shares = {
        name: _moving_share(tx)
        for name, tx in {
            "child_tuning_f": optax.chain(childtuning.child_tuning_f(0.3, key), adam),
            "update_dropout": optax.chain(adam, childtuning.update_dropout(0.3, key)),
        }.items()
    }
    return claims.exact(
        shares["child_tuning_f"] > 0.999 and shares["update_dropout"] == 0.0,
        shares["child_tuning_f"],
        "After 50 steps, p = 0.3. Under update_dropout, the control: "
        f"{shares['update_dropout']:.0f}.",
    )


def _moving_share(tx) -> float:
    """Of what the 51st mask hides, the share that moves."""
    size = 5000
    params = jnp.zeros(size)
    gradients = 1.0 + jax.random.normal(jax.random.key(3), (51, size))

    def step(state, gradient):
        updates, state = tx.update(gradient, state, params)
        return state, updates

    _, updates = jax.jit(lambda g: jax.lax.scan(step, tx.init(params), g))(gradients)
    masks = childtuning.child_tuning_f(0.3, jax.random.key(2))
    state = optax.tree.set(masks.init(params), count=jnp.asarray(50, jnp.int32))
    shown, _ = masks.update(jnp.ones(size), state)
    hidden = np.asarray(shown) == 0
    return float(np.mean(np.asarray(updates[-1])[hidden] != 0))


def check_decay_moves_frozen(decay: str, context: Context) -> Finding:
    """Largest deviation of frozen weights from what the decay alone makes of them."""
    del context
    factor = (1 - RATE * DECAY) ** STEPS
    ratio, others = _decayed(decay)
    if decay == "child":
        moved = float(np.abs(ratio - 1).max())
        control = 1 - float(_decayed("all")[0].max())
        return claims.exact(
            moved == 0.0 < min(others, control),
            moved,
            "With all weights decaying, the control, they shrink by "
            f"{control:.1e} and more.",
        )
    deviation = float(np.abs(ratio - factor).max())
    return claims.exact(
        deviation < 0.1 * (1 - factor) and others > 0.0,
        deviation,
        f"After {STEPS} steps the factor is {factor:.6f}, measured {ratio.mean():.6f}.",
    )


def _decayed(decay: str) -> tuple[np.ndarray, float]:
    """Frozen weights after training over those before, and the least move of others."""
    start = jnp.linspace(0.5, 1.0, 1000)
    mask = jnp.arange(1000) % 2 == 0
    tx = childtuning.child_adamw(RATE, mask, weight_decay=DECAY, decay=decay)

    def step(carry, gradient):
        params, state = carry
        updates, state = tx.update(gradient, state, params)
        return (optax.apply_updates(params, updates), state), None

    gradients = jax.random.normal(jax.random.key(0), (STEPS, 1000))
    carry = (start, tx.init(start))
    (end, _), _ = jax.jit(lambda g: jax.lax.scan(step, carry, g))(gradients)
    before, after = np.asarray(start, np.float64), np.asarray(end, np.float64)
    return after[1::2] / before[1::2], float(np.abs(after - before)[::2].min())


def check_zero_fisher_ties(context: Context) -> Finding:
    """Share kept of a Fisher information of zeros, p = 0.3, by the percentile rule."""
    del context
    fisher = {"w": jnp.zeros((100, 100))}
    keep, exact = (
        childtuning.trainable_fraction(childtuning.fisher_mask(fisher, 0.3, ties=ties))
        for ties in ("keep", "exact")
    )
    return claims.exact(
        keep == 1.0 and exact == 0.3, keep, f'With ties="exact", the control: {exact}.'
    )


def check_authors_adamw(context: Context) -> Finding:
    """Largest distance from the authors' rule in float64 after 10 steps."""
    del context
    options = {"b1": 0.9, "b2": 0.999, "eps": 1e-8, "weight_decay": 0.01}
    rng = np.random.default_rng(0)
    weights = rng.uniform(-1, 1, 2000).astype(np.float32)
    mask = rng.random(2000) < 0.3
    scales = np.logspace(-5, 1, 2000)
    gradients = (rng.standard_normal((10, 2000)) * scales).astype(np.float32)
    wanted = _authors_rule(weights, mask, gradients, 1e-3, **options)

    def distance(tx):
        params = jnp.asarray(weights)
        state = tx.init(params)
        for gradient in gradients:
            updates, state = jax.jit(tx.update)(gradient, state, params)
            params = optax.apply_updates(params, updates)
        return float(np.abs(np.asarray(params, np.float64) - wanted).max())

    ours = distance(childtuning.child_adamw(1e-3, jnp.asarray(mask), **options))
    chained = distance(
        optax.chain(
            childtuning.child_tuning_d(jnp.asarray(mask)),
            optax.adamw(1e-3, **options),
        )
    )
    return claims.exact(
        ours <= 3e-7 < chained,
        ours,
        f"child_tuning_d before optax.adamw, the control: {chained:.1e}.",
    )


def _authors_rule(p, mask, gradients, lr, *, b1, b2, eps, weight_decay):
    """The published optimizer in float64."""
    p, m, v = np.float64(p), 0.0, 0.0
    for t, g in enumerate(np.float64(gradients) * mask, start=1):
        m, v = b1 * m + (1 - b1) * g, b2 * v + (1 - b2) * g**2
        step_size = lr * np.sqrt(1 - b2**t) / (1 - b1**t)
        p = p - step_size * m / (np.sqrt(v) + eps)
        p = p - lr * weight_decay * p
    return p


def _adam_updates(p, *, mu=1.0, sigma=0.0, rescale=True, seed=0) -> np.ndarray:
    """Updates of Adam at the rate 1 in its steady state, [steps, entries]."""
    updates = _run_adam(rescale, p, mu, sigma, jax.random.key(seed))
    return np.asarray(updates, np.float64)


@functools.partial(jax.jit, static_argnums=0)
def _run_adam(rescale, p, mu, sigma, key):
    settle, shown, size = 1000, 100, 2000
    mask_key, gradient_key = jax.random.split(key)
    tx = optax.chain(
        childtuning.child_tuning_f(p, mask_key, rescale=rescale),
        optax.scale_by_adam(),
    )

    def step(state, i):
        noise = jax.random.normal(jax.random.fold_in(gradient_key, i), (size,))
        updates, state = tx.update(mu + sigma * noise, state)
        return state, updates

    def first(state, i):
        return step(state, i)[0], None

    state, _ = jax.lax.scan(first, tx.init(jnp.zeros(size)), jnp.arange(settle))
    return jax.lax.scan(step, state, settle + jnp.arange(shown))[1]
