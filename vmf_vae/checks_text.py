"""What keeps the KL of a text VAE from vanishing, on Chinese reviews.

Four arms with the same networks, steps, batches, seeds and learning rate: a Gaussian,
one with an annealed KL, normalised means, and a fixed concentration. Likelihoods are
compared at equal numbers of settings, three in full mode and one in quick mode.
"""

import numpy as np

from expkit import claims, plots
from expkit import config as config_lib
from expkit.claims import Context, Finding
from vmf_vae import checks_runs

DIM = 16
# What an arm may choose from by its validation loss; the first is the one whose KL is
# shown. In quick mode every arm has only that.
SETTINGS = {
    "gaussian": ("kl_warmup_steps=0", "kl_warmup_steps=half", "kl_warmup_steps=all"),
    "batch_norm": ("scale=0.6", "scale=0.3", "scale=0.15"),
    "vmf": ("concentration=30", "concentration=10", "concentration=3"),
}
BOUND = DIM * 0.6**2 / 2
STEPS = {False: 300, True: 2000}
SIZES = {
    False: "max_length=12,max_vocabulary=300,width=48",
    True: "max_length=24,max_vocabulary=1000,width=64",
}
NAMES = {
    "gaussian": "Gaussian",
    "annealed": "Gaussian, annealed",
    "batch_norm": "BN-VAE",
    "vmf": "vMF, fixed",
}
# KL in nats a text below which it has vanished; the texts cost about 60.
VANISHED = 0.5


def check_collapse(context: Context) -> Finding:
    """KL of the Gaussian text VAE at the end of training."""
    _draw(context)
    return _last_kl(context, "gaussian", at_most=VANISHED)


def check_annealing(context: Context) -> Finding:
    """KL with annealing minus without, at the end of training."""
    kl = {arm: _shown(context, arm)["curve_kl"][:, -1] for arm in NAMES}
    mean, interval = claims.paired_difference(kl["annealed"], kl["gaussian"])
    return Finding(
        mean,
        claims.decide(interval, at_least=0.0),
        interval,
        _seeds(context),
        f"Nats a text in the last tenth of the training; {_words(context)}.",
    )


def check_floor(context: Context) -> Finding:
    """KL of the vMF with a fixed concentration: how much it moves over training."""
    kl = _shown(context, "vmf")["curve_kl"]
    moved = float(np.ptp(kl))
    gaussian = _shown(context, "gaussian")["curve_kl"][:, -1]
    is_true = moved < 1e-4 * kl.mean() and kl.min() > gaussian.max()
    return claims.exact(
        is_true,
        float(kl.mean()),
        f"Nats a text at concentration 30 in {DIM + 1} coordinates; over "
        f"all steps and seeds it moves by {moved:.1g}. {_words(context)}.",
    )


def check_bound(context: Context) -> Finding:
    """Smallest mean KL of BN-VAE in a tenth of the training, over d gamma^2 / 2."""
    kl = _shown(context, "batch_norm")["curve_kl"]
    return claims.exact(
        kl.min() >= BOUND,
        float(kl.min() / BOUND),
        f"The bound is {DIM} * .6^2 / 2 = {BOUND:.2f} nats; a trained shift can "
        f"only raise it. {_words(context)}.",
    )


def check_likelihood(arm: str, context: Context) -> Finding:
    """Test bound of an arm minus that of the Gaussian, each at its best setting."""
    best = {name: _best(context, name) for name in SETTINGS}
    bounds = {name: figures["test_bound"] for name, (_, figures) in best.items()}
    mean, interval = claims.paired_difference(bounds[arm], bounds["gaussian"])
    number = len(SETTINGS["gaussian"]) if context.full else 1
    tried = "1 setting" if number == 1 else f"{number} settings"
    # Annealing ranges from none to all of the training; the other grids could go on.
    is_open = number > 1 and best[arm][0] in (SETTINGS[arm][0], SETTINGS[arm][-1])
    beyond = ", at an end of its settings" if is_open else ""
    return Finding(
        mean,
        claims.decide(interval, (is_open, False), at_least=0.0),
        interval,
        _seeds(context),
        f"Nats a text by which the ELBO of {NAMES[arm]} is higher on "
        f"{checks_runs.HELD_OUT_ROWS} test texts; "
        f"{tried} an arm, each run at its best segment. {NAMES[arm]} at {best[arm][0]}"
        f"{beyond}. "
        + ", ".join(f"{NAMES[name]} {b.mean():.2f}" for name, b in bounds.items())
        + ".",
    )


def _last_kl(context: Context, arm: str, **region: float) -> Finding:
    mean, interval = claims.mean_interval(_shown(context, arm)["curve_kl"][:, -1])
    return Finding(
        mean,
        claims.decide(interval, **region),
        interval,
        _seeds(context),
        f"Nats a text in the last tenth of the training; vanished means at most "
        f"{VANISHED}. {_words(context)}.",
    )


def _words(context: Context) -> str:
    kl = {arm: _shown(context, arm)["curve_kl"][:, -1].mean() for arm in NAMES}
    return "At the end: " + ", ".join(f"{NAMES[a]} {v:.2f}" for a, v in kl.items())


def _seeds(context: Context) -> range:
    return context.seeds(quick=2, full=5)


def _shown(context: Context, arm: str) -> dict[str, np.ndarray]:
    """Figures of the setting of an arm whose KL is shown."""
    if arm == "annealed":
        return _runs(context, "gaussian", SETTINGS["gaussian"][1])
    return _runs(context, arm, SETTINGS[arm][0])


def _best(context: Context, model: str) -> tuple[str, dict[str, np.ndarray]]:
    """The setting with the lowest mean validation loss, and its figures."""
    settings = SETTINGS[model][: None if context.full else 1]
    runs = [(setting, _runs(context, model, setting)) for setting in settings]
    return min(runs, key=lambda run: run[1]["validation_loss"].mean())


def _runs(context: Context, model: str, setting: str) -> dict[str, np.ndarray]:
    """Figures [seeds, ...] of one setting."""
    steps = STEPS[context.full]
    config = config_lib.load(
        f"configs/vmf_vae/reviews.py:{SIZES[context.full]},model={model},"
        f"latent_dim={DIM + (model == 'vmf')},num_steps={steps},"
        f"{setting.replace('half', str(steps // 2)).replace('all', str(steps))},"
        "validation_split=validation[:1000],test_split=test[:1000]"
    )
    name = f"{model}-{SETTINGS[model].index(setting)}"
    return checks_runs.figures_by_seed(
        context, name, config, _seeds(context), evaluate=False
    )


def _draw(context: Context) -> None:
    """Draws the KL of the arms over training."""
    series = {}
    for arm, label in NAMES.items():
        kl = _shown(context, arm)["curve_kl"]
        steps = STEPS[context.full] / 10 * np.arange(1, 11)
        series[label] = (steps, kl.mean(axis=0), kl.min(axis=0), kl.max(axis=0))

    def draw(figure):
        plots.curves(figure.subplots(), series, ylabel="KL (nats a text)", log_y=True)

    context.figure(
        "text_kl",
        draw,
        "KL of a character VAE on Chinese reviews over training: mean and range over "
        f"{len(_seeds(context))} seeds. The annealed arm has its full weight from the "
        "middle on.",
        "; ".join(f"{k}: {s[1][-1]:.2f} at the end" for k, s in series.items()),
    )
