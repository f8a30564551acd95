"""A latent variable that lies on a circle, seen through a network and noise.

As in Davidson et al. (2018, section 5.1): can the circle be read off the posterior
means? `GaussianVAE` gets the plane (as in the paper) and, in full mode, the line, which
has as many degrees of freedom as the circle.
"""

import functools
from typing import Any

import jax
import numpy as np
import optax
from scipy import spatial

import vmf_vae
from expkit import claims, sweep
from expkit.claims import Context, Finding
from vmf_vae import evaluation, objective

NUM_ROWS, NUM_PIXELS, NOISE, NUM_STEPS = 1500, 20, 0.3, 1500
SETTINGS = {"likelihood": "gaussian", "noise_scale": NOISE, "hidden": (32, 32)}
MODELS = {
    "circle": vmf_vae.VMFVAE((NUM_PIXELS,), 2, **SETTINGS),
    "plane": vmf_vae.GaussianVAE((NUM_PIXELS,), 2, **SETTINGS),
    "line": vmf_vae.GaussianVAE((NUM_PIXELS,), 1, **SETTINGS),
}


def check_recovered(context: Context) -> Finding:
    """Disparity of the true circle and the S-VAE's, after a Procrustes fit."""
    values = _values(context, "disparity")
    mean, interval = claims.mean_interval(values["circle"])
    _draw(context)
    return Finding(
        mean,
        claims.decide(interval, at_most=0.05),
        interval,
        _seeds(context),
        "Procrustes disparity (0: equal up to a similarity, 1: nothing in common) of "
        f"{NUM_ROWS} posterior means and the true points. "
        + ", ".join(
            f"{name} {v.mean():.3f} (largest {v.max():.2f})"
            for name, v in values.items()
        )
        + ".",
    )


def check_normal_recovers_less(context: Context) -> Finding:
    """Disparity of N-VAE in the plane minus that of S-VAE on the circle."""
    values = _values(context, "disparity")
    mean, interval = claims.paired_difference(values["plane"], values["circle"])
    ratio = np.median(values["plane"] / values["circle"])
    return Finding(
        mean,
        claims.decide(interval, at_least=0.0),
        interval,
        _seeds(context),
        f"Difference of the disparities; the median of their ratios is {ratio:.1f}.",
    )


def check_likelihood(context: Context) -> Finding:
    """Held-out log-likelihood of S-VAE on the circle minus N-VAE in the plane."""
    values = _values(context, "log_likelihood")
    mean, interval = claims.paired_difference(values["circle"], values["plane"])
    return Finding(
        mean,
        claims.decide(interval, at_least=0.0),
        interval,
        _seeds(context),
        "Nats a row, 500 importance samples on 500 held-out rows. "
        + ", ".join(f"{name} {v.mean():.3f}" for name, v in values.items()),
    )


def _values(context: Context, figure: str) -> dict[str, np.ndarray]:
    """One figure [seeds] of each model; the line is left out in quick mode."""
    names = [name for name in MODELS if context.full or name != "line"]
    return {name: _figures(context, name)[figure] for name in names}


def _seeds(context: Context) -> range:
    return context.seeds(quick=8, full=30)


def _figures(context: Context, name: str) -> dict[str, np.ndarray]:
    """Figures [seeds, ...] of one model."""
    compiled = functools.cache(lambda: _compile(MODELS[name]))
    rows = [
        context.memo(
            f"{name}-{seed}",
            lambda seed=seed: compiled()(seed),
            model=repr(MODELS[name]),
            sizes=[NUM_ROWS, NUM_PIXELS, NOISE, NUM_STEPS],
        )
        for seed in _seeds(context)
    ]
    return sweep.stacked(rows)


def make_data(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Points on the circle [rows, 2], from three clusters, and what is seen of them."""
    rng = np.random.default_rng(seed)
    n = NUM_ROWS + 500
    centers = 2 * np.pi / 3 * np.arange(n) % (2 * np.pi)
    angles = rng.vonmises(centers, 3.0)
    z = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    w_1, b_1 = rng.normal(size=(2, 32)), rng.normal(0, 0.3, 32)
    w_2 = rng.normal(0, 1 / np.sqrt(32), (32, NUM_PIXELS))
    x = np.tanh(z @ w_1 + b_1) @ w_2 + rng.normal(0, NOISE, (n, NUM_PIXELS))
    return z, x.astype(np.float32)


def _compile(model: Any):
    optimizer = optax.adam(3e-3)

    def loss_fn(params, batch, key):
        return objective.training_loss(model, params, batch["x"], key)

    fit = sweep.compile_training(loss_fn, model.init, lambda: optimizer)

    @jax.jit
    def read(params, seen, held_out, key):
        figures, _ = evaluation.row_figures(
            model, params, held_out, key, num_samples=500
        )
        return model.center(params, seen), figures["log_likelihood"].mean()

    def run(seed):
        z, x = make_data(seed)
        rows = sweep.batch_rows(NUM_ROWS, 64, NUM_STEPS, seed)
        params, _ = fit({}, jax.random.key(seed), {"x": x[:NUM_ROWS]}, rows)
        seen, held_out = np.split(x, [NUM_ROWS])
        centers, log_likelihood = read(params, seen, held_out, jax.random.key(seed))
        flat = np.zeros((NUM_ROWS, 2))  # a line lies in the plane
        flat[:, : centers.shape[1]] = centers
        true, found, disparity = spatial.procrustes(z[:NUM_ROWS], flat)
        return {
            "disparity": disparity,
            "log_likelihood": float(log_likelihood),
            "true": true[:300].tolist(),
            "found": found[:300].tolist(),
        }

    return run


def _draw(context: Context) -> None:
    """Draws the posterior means of the first seed over the true angles."""
    found = {name: _figures(context, name)["found"][0] for name in ("circle", "plane")}
    true = _figures(context, "circle")["true"][0]
    labels = {"circle": "S-VAE on the circle", "plane": "N-VAE in the plane"}

    def draw(figure):
        axes = figure.subplots(1, 2, sharex=True, sharey=True)
        for ax, (name, points) in zip(axes, found.items(), strict=True):
            angles = np.arctan2(*true.T[::-1])
            ax.scatter(*points.T, c=angles, cmap="twilight", s=10)
            ax.set(title=labels[name], aspect="equal", xticks=[], yticks=[])

    context.figure(
        "circle",
        draw,
        "Posterior means of 300 rows, moved onto the true circle; the colour is the "
        "true angle. In the plane the means scatter along the radius too.",
        "Two rings of points, that of the S-VAE thinner and rounder.",
        size=(6.2, 3.1),
    )
