"""Exact statements about R-Drop's loss, each with a control that must fail."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np

import rdrop
from expkit import claims, plots
from expkit.claims import Context, Finding

BATCH, CLASSES = 12, 5
TIGHT = 1e-10
"""Relative difference of two float64 programs for the same number."""


def check_zero_iff_equal(context: Context) -> Finding:
    """Smallest ratio of the divergence to the squared L1 distance, over many pairs.

    By Pinsker's inequality it is at least 1, so no two different distributions have
    the divergence 0.
    """
    del context
    with jax.enable_x64(True):
        # Drawn by NumPy here and below: nothing to compile for each shape.
        draws = np.random.default_rng(0).standard_normal((2, 20_000, CLASSES))
        logits = jnp.asarray(3.0 * draws[0])
        other = logits + np.logspace(-6, 1, len(logits))[:, None] * draws[1]

        @jax.jit
        def smallest(a, b):
            far = jnp.sum(jnp.abs(jax.nn.softmax(a) - jax.nn.softmax(b)), axis=-1)
            return jnp.min(rdrop.symmetric_kl(a, b) / jnp.square(far))

        ratio = float(smallest(logits, other))
        equal = float(jnp.max(jax.jit(rdrop.symmetric_kl)(logits, logits)))
    return claims.exact(
        equal == 0.0 and ratio >= 1.0 > 0.5 * ratio,
        ratio,
        f"20,000 pairs at logit distances of 1e-6 to 10; equal logits have {equal:g}. "
        f"Half of it, the control, has {0.5 * ratio:.3f} < 1: the bound is sharp.",
    )


def check_blindness(context: Context) -> Finding:
    """Divergence of two distributions that cross-entropy cannot tell apart."""
    del context
    with jax.enable_x64(True):
        logits = jnp.log(jnp.array([[[0.5, 0.2, 0.3]], [[0.5, 0.3, 0.2]]]))
        entropies = -jax.nn.log_softmax(logits)[:, 0]
        target, other = (float(jnp.ptp(entropies[:, i])) for i in (0, 1))
        found = float(jax.jit(rdrop.symmetric_kl)(*logits)[0])
    return claims.exact(
        target < 1e-15 and abs(found - 0.2 * np.log(1.5)) < 1e-12 and other > 0.1,
        found,
        f"(.5, .2, .3) against (.5, .3, .2): the cross-entropies differ by {target:g} "
        f"for the first class, and by {other:.2f} for the second, the control.",
    )


def check_conventions(context: Context) -> Finding:
    """Largest relative deviation from proportionality over all pairs of conventions."""
    names = list(rdrop.CONVENTIONS)
    with jax.enable_x64(True):
        logits, labels = _example()

        @functools.partial(jax.jit, static_argnames="name")
        def evaluate(name, alpha):
            value, gradients = jax.value_and_grad(
                lambda a, b: rdrop.rdrop_loss(a, b, labels, alpha, convention=name),
                (0, 1),
            )(*logits)
            return jnp.append(jnp.ravel(jnp.stack(gradients)), value)

        def deviation(source, target, alpha):
            scale = rdrop.convention_scale(target, BATCH)
            scale /= rdrop.convention_scale(source, BATCH)
            expected = scale * evaluate(source, 0.7)
            difference = np.abs(evaluate(target, alpha) - expected)
            return difference.max() / np.abs(expected).max()

        right, wrong = [], []
        for source, target in itertools.product(names, repeat=2):
            alpha = rdrop.convert_alpha(0.7, source, target, BATCH)
            right.append(deviation(source, target, alpha))
            if alpha != 0.7:
                wrong.append(deviation(source, target, 0.7))
    _draw_strengths(context, names)
    control = min(wrong, default=0.0)
    return claims.exact(
        max(right) < TIGHT and control > 1e-2,
        float(max(right)),
        f"36 pairs, losses and gradients, batch {BATCH}. The same alpha without "
        f"conversion, the control, deviates by {control:.2f} and more in "
        f"{len(wrong)} pairs.",
    )


def _draw_strengths(context, names):
    batches = 2 ** np.arange(11)
    shown = {
        name: np.array(
            [float(rdrop.convert_alpha(1.0, name, "paper", int(b))) for b in batches]
        )
        for name in names
    }
    merged = {
        "paper, fairseq, bojone": shown["paper"],
        "hf_bert": shown["hf_bert"],
        "readme, vit": shown["vit"],
    }
    if (shown["readme"] != shown["vit"]).any():
        raise AssertionError("readme and vit are drawn as one line and differ.")

    def draw(figure):
        axes = figure.subplots()
        series = {name: (batches, y, None, None) for name, y in merged.items()}
        plots.curves(
            axes, series, xlabel="batch size", ylabel="alpha of the paper", log_y=True
        )
        axes.set_xscale("log", base=2)

    context.figure(
        "strengths",
        draw,
        "What alpha = 1 of each convention is in the formula of the paper. Where the "
        "divergence is summed over the batch and the cross-entropy is not, it grows "
        "with the batch.",
        f"At batch {batches[-1]}, 1 of readme and vit is {shown['vit'][-1]:.0f} of the "
        f"paper, and 1 of hf_bert {shown['hf_bert'][-1]:.0f}.",
    )


def check_blog_code_is_half(context: Context) -> Finding:
    """Loss of the paper divided by that of the essay's code, written down again."""
    del context
    with jax.enable_x64(True):
        logits, labels = _example()

        def rule(factor, alpha):
            """Rows of the passes alternate; their mean, and the divergence's."""
            p = jnp.stack(jax.nn.softmax(logits), axis=1).reshape(2 * BATCH, CLASSES)
            rows = -jnp.log(p[jnp.arange(2 * BATCH), jnp.repeat(labels, 2)])
            even, odd = p[::2], p[1::2]
            both = jnp.sum((even - odd) * jnp.log(even / odd), axis=-1)
            return jnp.mean(rows) + jnp.mean(both) / factor * alpha

        @jax.jit
        def ratio_to_rule(factor, alpha):
            loss = rdrop.rdrop_loss(logits[0], logits[1], labels, alpha)
            return loss / rule(factor, alpha)

        def spread(factor):
            ratios = [float(ratio_to_rule(factor, a)) for a in (0.0, 1.0, 4.0, 100.0)]
            return float(np.mean(ratios)), float(np.ptp(ratios))

        (ratio, same), (_, control) = spread(4), spread(2)
    return claims.exact(
        abs(ratio - 2.0) < TIGHT and same < TIGHT and control > 0.1,
        ratio,
        f"For alpha of 0 to 100. With alpha/2 in place of alpha/4, the control, the "
        f"ratio varies by {control:.2f}.",
    )


def check_no_dropout(context: Context) -> Finding:
    """Largest entry of divergence and gradient of a network without dropout."""
    del context

    def largest(rate):
        params, x = _network()

        def loss(params):
            return rdrop.consistency_loss(
                *rdrop.two_passes(_apply(rate), params, x, jax.random.key(2))
            )

        value, gradients = jax.jit(jax.value_and_grad(loss))(params)
        return max(
            float(jnp.abs(a).max()) for a in [value, *jax.tree.leaves(gradients)]
        )

    found, control = largest(0.0), largest(0.1)
    return claims.exact(
        found == 0.0 < control,
        found,
        f"A dropout rate of 0.1, the control, has {control:.2g}.",
    )


def check_mean_over_classes(context: Context) -> Finding:
    """How many times weaker a mean over classes makes alpha, for two sizes."""
    del context
    sizes = (15, 119)

    @jax.jit
    def ratios(logits, labels):
        p, q = jax.nn.softmax(logits)
        terms = (p - q) * jnp.log(p / q)
        plain, with_divergence = (
            rdrop.rdrop_loss(logits[0], logits[1], labels, a) for a in (0.0, 1.0)
        )
        ours = with_divergence - plain
        means = jnp.mean(terms), jnp.mean(jnp.sum(terms, axis=-1))
        return [ours / (0.5 * mean) for mean in means]

    with jax.enable_x64(True):
        found, control = np.transpose([ratios(*_example(size)) for size in sizes])
    return claims.exact(
        np.allclose(found, sizes, rtol=1e-9) and np.allclose(control, 1.0, rtol=1e-9),
        ", ".join(f"{ratio:.6g}" for ratio in found),
        f"With {sizes[0]} classes (TNEWS) and {sizes[1]} (IFLYTEK). A sum over "
        "classes, the control, is as strong as alpha says.",
    )


def check_both_branches(context: Context) -> Finding:
    """Share of the gradient that is left when one pass is a constant."""
    del context
    with jax.enable_x64(True):
        params, x = _network()
        keys = jax.random.split(jax.random.key(2))

        @functools.partial(jax.jit, static_argnames="stop")
        def gradient(keys, stop):
            def loss(params):
                first, second = (_apply(0.3)(params, x, keys[i]) for i in (0, 1))
                return rdrop.consistency_loss(stop(first), second)

            leaves = jax.tree.leaves(jax.grad(loss)(params))
            return jnp.concatenate([jnp.ravel(leaf) for leaf in leaves])

        def both_orders(stop):
            """Mean over which pass comes first: the passes are exchangeable."""
            return 0.5 * (gradient(keys, stop) + gradient(keys[::-1], stop))

        full = both_orders(jnp.asarray)
        stopped = both_orders(jax.lax.stop_gradient)
        share = float(stopped @ full / (full @ full))
        rest = float(np.abs(stopped - share * full).max() / np.abs(full).max())
        single = gradient(keys, jnp.asarray)
        control = float(single @ full / (full @ full))
    return claims.exact(
        abs(share - 0.5) < TIGHT and rest < TIGHT and abs(control - 1.0) < TIGHT,
        share,
        "Parameter gradients of a network with dropout 0.3, mean over both orders of "
        f"the two masks. With the gradient through both, the control: {control:.3f}.",
    )


def _example(num_classes: int = CLASSES) -> tuple[jax.Array, jax.Array]:
    """Logits of two passes [2, batch, classes], and labels."""
    rng = np.random.default_rng(1)
    logits = jnp.asarray(rng.standard_normal((2, BATCH, num_classes)))
    return logits, jnp.asarray(rng.integers(num_classes, size=BATCH))


def _network():
    """Parameters of a perceptron and a batch."""
    rng = np.random.default_rng(3)
    shapes = {"w": (8, 32), "v": (32, CLASSES)}
    params = {
        name: jnp.asarray(rng.standard_normal(shape) / np.sqrt(shape[0]))
        for name, shape in shapes.items()
    }
    return params, jnp.asarray(rng.standard_normal((BATCH, 8)))


def _apply(rate):
    """The perceptron with dropout."""

    def apply_fn(params, x, key):
        hidden = jnp.tanh(x @ params["w"])
        kept = jax.random.bernoulli(key, 1.0 - rate, hidden.shape)
        return jnp.where(kept, hidden / (1.0 - rate), 0.0) @ params["v"]

    return apply_fn
