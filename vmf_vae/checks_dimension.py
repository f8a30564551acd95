"""N-VAE against S-VAE on digits over the dimension, as Davidson et al. (2018), table 1.

Both have the same degrees of freedom m: a normal in m coordinates, a vMF on the sphere
in m + 1. They share architecture, steps, batches, seeds and learning rates; the rate is
chosen by the mean validation loss (in quick mode there is one), and each run keeps its
best segment.
"""

import dataclasses
import functools

import jax
import numpy as np

from expkit import arms, claims, grids, plots
from expkit import config as config_lib
from expkit.claims import Context, Finding
from vmf_vae import checks_runs, evaluation, models, train

NAMES = {"gaussian": "N-VAE", "vmf": "S-VAE"}
SMALL, LARGE = 2, 40
FEW = (2, 5, 10)  # dimensions at which S-VAE is ahead in the paper
RATES = {False: (2e-3,), True: (5e-4, 1e-3, 2e-3, 4e-3)}
STEPS = {False: 2000, True: 8000}


def check_small(context: Context) -> Finding:
    """Log-likelihood of S-VAE minus N-VAE at the smallest dimension."""
    _draw_dimension(context)
    _draw_units(context)
    _draw_latents(context)
    _draw_images(context)
    return _among(context, SMALL)


def check_between(dim: int, context: Context) -> Finding:
    """The same at a dimension that quick mode leaves out."""
    if dim not in _dims(context):
        return arms.LEFT_TO_FULL_MODE
    return _among(context, dim)


def check_large(context: Context) -> Finding:
    """Log-likelihood of S-VAE minus N-VAE at the largest dimension."""
    return _difference(context, LARGE, "log_likelihood", at_most=0.0)


def check_neighbors(context: Context) -> Finding:
    """Accuracy of 5 neighbours among 100 labels, S-VAE minus N-VAE, two dimensions."""
    return _difference(context, SMALL, "neighbor_accuracy", at_least=0.0)


def _among(context: Context, dim: int) -> Finding:
    """The likelihood at one of the dimensions where S-VAE is claimed to be ahead.

    One of several tries would show a difference by chance, so each is decided by the
    interval in which all of them lie with 95 % (Bonferroni's).
    """
    tries = sum(d in FEW for d in _dims(context))
    level = 1 - 0.05 / tries
    finding = _difference(context, dim, "log_likelihood", level, at_least=0.0)
    if tries == 1:
        return finding
    beside = f" Decided with {100 - 5 / tries:.4g} %, as one of {tries} dimensions."
    return dataclasses.replace(finding, details=finding.details + beside)


def _difference(
    context: Context, dim: int, figure: str, confidence: float = 0.95, **region: float
) -> Finding:
    """Finding of the paired difference of one figure, with all of them in words."""
    runs = {model: _best_runs(context, model, dim) for model in NAMES}
    name = figure if figure == "neighbor_accuracy" else f"test_{figure}"
    values = [runs[model][name] for model in ("vmf", "gaussian")]
    mean, interval = claims.paired_difference(*values)
    _, wide = claims.paired_difference(*values, confidence=confidence)
    grid = {"learning_rate": RATES[context.full]}
    chosen = {model: {"learning_rate": f["rate"][0]} for model, f in runs.items()}
    ends = [grids.is_at_end(chosen[model], grid) for model in ("vmf", "gaussian")]
    settings = (f"{NAMES[m]} {grids.listed(chosen[m], grid)}" for m in NAMES)
    words = []
    for other in _dims(context):
        parts = []
        for model, label in NAMES.items():
            f = _best_runs(context, model, other)
            ll, loss = f["test_log_likelihood"], f["test_loss"]
            parts.append(
                f"{label} LL {ll.mean():.2f} (sd {ll.std(ddof=1):.2f}), ELBO "
                f"{-loss.mean():.2f}, RE {f['test_reconstruction'].mean():.2f}, KL "
                f"{f['test_kl'].mean():.2f}, {f['test_active_units'].mean():.1f} active"
                f", k-NN {100 * f['neighbor_accuracy'].mean():.1f} %"
            )
        words.append(f"m={other}: {'; '.join(parts)}")
    rising = ", ".join(
        f"{NAMES[model]} {np.diff(f['curve_kl'].mean(axis=0))[-1]:+.2f}"
        for model, f in runs.items()
    )
    return Finding(
        mean,
        claims.decide(wide, ends, **region),
        interval,
        _seeds(context),
        f"Digits, 500 importance samples on 270 test images. {'. '.join(words)}. "
        f"Training KL over the last tenth of the steps at m={dim}: {rising}. Best of "
        f"{len(RATES[context.full])} there: {'; '.join(settings)}.",
    )


def _seeds(context: Context) -> range:
    return context.seeds(quick=2, full=5)


def _dims(context: Context) -> tuple[int, ...]:
    return (2, 5, 10, 20, 40) if context.full else (SMALL, LARGE)


def _best_runs(context: Context, model: str, dim: int) -> dict[str, np.ndarray]:
    """Figures [seeds, ...] at the rate with the lowest mean validation loss, and it."""
    runs = [
        {**_runs(context, model, dim, rate), "rate": np.array([rate])}
        for rate in RATES[context.full]
    ]
    return min(runs, key=lambda figures: figures["validation_loss"].mean())


@functools.cache
def _config(model: str, dim: int, rate: float, num_steps: int):
    coordinates = dim + (model == "vmf")
    return config_lib.load(
        f"configs/vmf_vae/digits.py:model={model},latent_dim={coordinates},"
        f"hidden=(128,64),batch_size=128,num_steps={num_steps},learning_rate={rate}"
    )


def _runs(context: Context, model: str, dim: int, rate: float) -> dict[str, np.ndarray]:
    return checks_runs.figures_by_seed(
        context,
        f"{model}-{dim}-{rate:g}",
        _config(model, dim, rate, STEPS[context.full]),
        _seeds(context),
        num_segments=10,
        analyze=_analyze_small if dim == SMALL else _analyze,
    )


def _analyze(task: train.Task, params) -> dict[str, object]:
    """Accuracy of neighbours from 100 labels, 10 of each class."""
    center = jax.jit(task.model.center)
    points = np.asarray(center(params, task.splits["test"]["x"]))
    x, labels = task.calibration, task.labels["train"][: len(task.calibration)]
    chosen = np.concatenate([np.flatnonzero(labels == c)[:10] for c in range(10)])
    accuracy = evaluation.neighbor_accuracy(
        np.asarray(center(params, x))[chosen],
        labels[chosen],
        points,
        task.labels["test"],
    )
    return {"neighbor_accuracy": accuracy}


def _analyze_small(task: train.Task, params) -> dict[str, object]:
    """The same, the latents of the test split, draws, and images between two."""
    model = task.model
    if not isinstance(model, models.ImageVAE):
        raise TypeError(f"only an ImageVAE draws images, got {type(model).__name__}.")
    centers = np.asarray(jax.jit(model.center)(params, task.splits["test"]["x"]))
    labels = task.labels["test"]
    first, second = (centers[np.flatnonzero(labels == c)[0]] for c in (0, 1))
    t = np.linspace(0, 1, 8)[:, None]
    between = (1 - t) * first + t * second
    if centers.shape[1] > SMALL:
        between = great_circle(first, second, t)
    mean = jax.jit(model.mean)
    return _analyze(task, params) | {
        "centers": centers.tolist(),
        "labels": labels.tolist(),
        "draws": np.asarray(
            jax.jit(model.sample, static_argnums=2)(params, jax.random.key(0), 24)
        ).tolist(),
        "between": np.asarray(mean(params, between.astype(np.float32))).tolist(),
    }


def great_circle(first: np.ndarray, second: np.ndarray, t: np.ndarray) -> np.ndarray:
    """Points at the fractions `t [n, 1]` of the arc from one unit vector to another."""
    angle = np.arccos(np.clip(first @ second, -1, 1))
    weights = np.sin((1 - t) * angle), np.sin(t * angle)
    return (weights[0] * first + weights[1] * second) / np.sin(angle)


def tiled(images: np.ndarray, rows: int, columns: int) -> np.ndarray:
    """One picture of [rows * columns, 8, 8] images, a grey line between two."""
    lines = np.pad(images, ((0, 0), (0, 1), (0, 1)), constant_values=0.5)
    grid = lines.reshape(rows, columns, *lines.shape[1:]).transpose(0, 2, 1, 3)
    return grid.reshape(rows * lines.shape[1], columns * lines.shape[2])


def _draw_dimension(context: Context) -> None:
    """Draws log-likelihood and ELBO against the dimension."""
    dims, series = _dims(context), {}
    for model, label in NAMES.items():
        runs = [_best_runs(context, model, dim) for dim in dims]
        for name, sign, what in (("log_likelihood", 1, "LL"), ("loss", -1, "ELBO")):
            values = sign * np.array([f[f"test_{name}"] for f in runs])
            ends = values.min(axis=1), values.max(axis=1)
            series[f"{label} {what}"] = (dims, values.mean(axis=1), *ends)

    def draw(figure):
        axes = figure.subplots()
        label = "dimension m of the latent space"
        plots.sweep(axes, series, xlabel=label, ylabel="nats an image")
        axes.set_xticks(dims, [str(d) for d in dims], minor=False)
        axes.minorticks_off()

    context.figure(
        "dimension",
        draw,
        "Log-likelihood and ELBO on the test digits: mean and range over "
        f"{len(_seeds(context))} seeds. The S-VAE has m + 1 coordinates.",
        "; ".join(
            f"{name}: " + ", ".join(f"{value:.2f}" for value in values)
            for name, (_, values, _, _) in series.items()
        ),
    )


def _draw_units(context: Context) -> None:
    """Draws the KL of both models as they train, at the largest dimension."""
    steps = STEPS[context.full] / 10 * np.arange(1, 11)
    series = {}
    for model, label in NAMES.items():
        kl = _best_runs(context, model, LARGE)["curve_kl"]
        series[label] = (steps, kl.mean(axis=0), kl.min(axis=0), kl.max(axis=0))

    def draw(figure):
        plots.curves(figure.subplots(), series, ylabel="KL (nats)")

    context.figure(
        "kl_training",
        draw,
        f"KL over training on digits with {LARGE} degrees of freedom: mean and range.",
        "; ".join(f"{k}: {s[1][-1]:.2f} nats at the end" for k, s in series.items()),
    )


def _draw_latents(context: Context) -> None:
    """Draws the test digits on the two halves of the sphere."""
    figures = _best_runs(context, "vmf", SMALL)
    points, labels = figures["centers"][0], figures["labels"][0].astype(int)

    def draw(figure):
        axes = figure.subplots(1, 2, sharex=True, sharey=True)
        colours, style = plots.LIGHT, {"fontsize": 8, "ha": "center", "va": "center"}
        for ax, side in zip(axes, (1, -1), strict=True):
            ax.grid(visible=False)
            angle = np.linspace(0, 2 * np.pi, 200)
            ax.plot(np.cos(angle), np.sin(angle), linewidth=0.8)
            for x, y, _, label in (
                (*p, c) for p, c in zip(points, labels, strict=True) if side * p[2] >= 0
            ):
                colour = f"C{label % len(colours)}"
                ax.text(x, y, str(label), color=colour, **style)
            title = "towards the reader" if side > 0 else "the far side"
            ax.set(title=title, aspect="equal", xticks=[], yticks=[])

    context.figure(
        "latents",
        draw,
        "Mean directions of the 270 test digits on the sphere in three coordinates, "
        "seen from one side; the training saw no labels.",
        "Two discs with digits; equal ones lie together.",
        size=(6.2, 3.3),
    )


def _draw_images(context: Context) -> None:
    """Draws samples from both priors, and images along a great circle."""
    runs = {label: _best_runs(context, m, SMALL) for m, label in NAMES.items()}

    shapes = {"draws": (3, 8), "between": (1, 8)}

    def draw(figure):
        axes = figure.subplots(2, 2, width_ratios=(3, 2))
        for row, (label, figures) in zip(axes, runs.items(), strict=True):
            for ax, name in zip(row, shapes, strict=True):
                picture = tiled(figures[name][0][..., 0], *shapes[name])
                ax.imshow(picture, cmap="gray", vmin=0, vmax=1)
                what = "draws" if name == "draws" else "from a 0 to a 1"
                ax.set(title=f"{label}: {what}", xticks=[], yticks=[])
                ax.grid(visible=False)

    context.figure(
        "images",
        draw,
        "Left: draws from the prior through the decoder. Right: from the latent of a 0 "
        "to that of a 1, on a straight line (N-VAE) and on a great circle (S-VAE). Two "
        "degrees of freedom, first seed.",
        "Images of digits; between a 0 and a 1 they change gradually.",
        size=(6.6, 3.2),
    )
