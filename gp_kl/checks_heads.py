"""Exact statements about the multi-label loss and both heads, each with a control."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

import gp_kl
from expkit import claims
from expkit.claims import Context, Finding

TIGHT = 1e-10
"""Relative difference of two float64 programs for the same number."""

HEADS = {"full": gp_kl.GlobalPointer, "efficient": gp_kl.EfficientGlobalPointer}


def check_balance(context: Context) -> Finding:
    """Share of the gradient that 10 true spans have among 10,000 cells."""
    del context
    logits = jax.random.normal(jax.random.key(0), (10_000,))
    labels = jnp.arange(10_000) < 10

    def share(loss):
        slope = jnp.abs(jax.jit(jax.grad(loss))(logits))
        return float(slope[:10].sum() / slope.sum()), float(slope.sum())

    def binary(s):
        return jnp.sum(optax.sigmoid_binary_cross_entropy(s, labels))

    found, total = share(lambda s: gp_kl.multilabel_cross_entropy(s, labels))
    control, _ = share(binary)
    s, is_true = np.asarray(logits, np.float64), np.asarray(labels)
    positive, negative = np.exp(-s[is_true]).sum(), np.exp(s[~is_true]).sum()
    expected = positive / (1 + positive), negative / (1 + negative)
    return claims.exact(
        abs(total - sum(expected)) < 1e-4
        and abs(found - expected[0] / sum(expected)) < 1e-4
        and 0.3 < found < 0.7
        and control < 0.01,
        found,
        "At random scores. The gradients of the spans add up to 1 - 1/(1 + sum e^-s), "
        "those of all other cells to 1 - 1/(1 + sum e^s): both below 1. In binary "
        f"cross-entropy, the control, the spans have {control:.4f}.",
    )


def check_soft_optimum(context: Context) -> Finding:
    """Largest gradient of the loss where the soft label is sigmoid(2 s)."""
    del context
    with jax.enable_x64(True):
        s = jnp.linspace(-4.0, 4.0, 33)[:, None]

        def largest(labels):
            def total(s):
                return jnp.sum(gp_kl.multilabel_cross_entropy(s, labels))

            return float(jnp.abs(jax.jit(jax.grad(total))(s)).max())

        found, control = (largest(jax.nn.sigmoid(c * s)) for c in (2.0, 1.0))
    return claims.exact(
        found < 1e-13 < 1e-2 < control,
        found,
        f"Scores from -4 to 4, one class each. At sigmoid(s), the control: "
        f"{control:.2f}.",
    )


def check_half_precision(context: Context) -> Finding:
    """Relative error of the loss in float16, where the usual form is nan."""
    del context
    scores = 3.0 * jax.random.normal(jax.random.key(0), (16, 50))
    labels = jax.random.bernoulli(jax.random.key(1), 0.1, scores.shape)

    @jax.jit
    def usual(s):
        """Minus 1e12 on what does not count, and a 0 next to the scores."""
        ones = labels.astype(s.dtype)
        signed = (1 - 2 * ones) * s
        parts = (signed - ones * 1e12, signed - (1 - ones) * 1e12)
        padded = (jnp.pad(part, ((0, 0), (0, 1))) for part in parts)
        return sum(jax.nn.logsumexp(part, axis=1) for part in padded)

    narrow = scores.astype(jnp.float16)
    s = np.asarray(narrow, np.float64)
    positive = np.where(labels, np.exp(-s), 0).sum(1)
    negative = np.where(labels, 0, np.exp(s)).sum(1)
    expected = np.log1p(positive) + np.log1p(negative)
    got, slope = jax.jit(jax.vmap(jax.value_and_grad(gp_kl.multilabel_cross_entropy)))(
        narrow, labels
    )
    found = float(np.abs(np.asarray(got) / expected - 1.0).max())
    control = int(jnp.isnan(usual(narrow)).sum())
    wide = usual(narrow.astype(jnp.float32))
    return claims.exact(
        found < 1e-5
        and bool(jnp.isfinite(slope).all())
        and control == len(expected)
        and np.allclose(wide, expected, rtol=1e-5),
        found,
        f"With the number 1e12 in place of a mask, the control, {control} of "
        f"{len(expected)} losses are nan: it is inf in float16, and 0 inf is nan.",
    )


def check_sparse(context: Context) -> Finding:
    """Relative deviation of the loss from indices where the positives dominate."""
    del context
    levels = jnp.array([1.0, 10.0, 20.0])
    logits = jnp.full((3, 100), -2.0).at[:, 0].set(levels)
    labels = jnp.zeros((3, 100), bool).at[:, 0].set(True)
    indices = jnp.zeros((3, 1), int)
    dense = jax.jit(gp_kl.multilabel_cross_entropy)(logits, labels)
    sparse = jax.jit(gp_kl.sparse_multilabel_cross_entropy)(logits, indices)
    found = float(jnp.abs(sparse / dense - 1.0).max())

    def subtracted(s):
        """All classes minus the positives, in logarithms."""
        both = jax.nn.logsumexp(jnp.append(s, 0.0))
        return jax.nn.softplus(-s[0]) + both + jnp.log1p(-jnp.exp(s[0] - both))

    usual = np.asarray(jax.jit(jax.vmap(subtracted))(logits))
    errors = np.abs(usual / np.asarray(dense) - 1.0)
    return claims.exact(
        found < 1e-6 and errors[0] < 1e-5 < errors[1] and not np.isfinite(usual[2]),
        found,
        "100 classes, one positive at 1, 10 and 20. Subtracting the positives from "
        f"the sum over all classes, the control, has the errors {errors[0]:.1g} and "
        f"{errors[1]:.1g}, and then {usual[2]}.",
    )


def check_distance(context: Context) -> Finding:
    """Largest change of a score when its sentence moves by 100 tokens."""
    del context
    mask = np.ones((1, 12), bool)
    found, control = [], []
    with jax.enable_x64(True):
        hidden = np.random.default_rng(0).normal(size=(1, 12, 16))
        padded = np.pad(hidden, ((0, 0), (100, 0), (0, 0)))
        wide = np.pad(mask, ((0, 0), (100, 0)))
        same = np.broadcast_to(hidden[:, :1], hidden.shape)
        for make in HEADS.values():
            head = make(hidden_size=16, num_types=3, head_size=8)
            params = head.init(jax.random.key(1))
            apply = jax.jit(head.apply)
            near, equal = (np.asarray(apply(params, x, mask)) for x in (hidden, same))
            far = np.asarray(apply(params, padded, wide))[:, :, 100:, 100:]
            spread = np.ptp(equal[0, :, 0], axis=-1)
            is_span = np.triu(np.ones((12, 12), bool))
            change = far[:, :, is_span] - near[:, :, is_span]
            found.append(np.abs(change).max())
            control.append(spread.min())
    return claims.exact(
        max(found) < TIGHT and min(control) > 1e-2,
        float(max(found)),
        "Both heads, padding in front. That distances matter at all, the control: with "
        f"equal states everywhere the scores of a row differ by {min(control):.2f}.",
    )


def check_parameters(context: Context) -> Finding:
    """Weights and biases of both heads for 10 types, at the sizes of BERT-base."""
    del context
    width, size = 768, 64

    def count(name, types):
        head = HEADS[name](width, types, size)
        shapes = jax.eval_shape(head.init, jax.random.key(0))
        return sum(leaf.size for leaf in jax.tree.leaves(shapes))

    formulas = {
        "full": lambda m: 2 * width * size * m + 2 * size * m,
        "efficient": lambda m: 2 * width * size + 4 * size * m + 2 * size + 2 * m,
    }
    is_right = all(
        count(name, m) == formulas[name](m) for name in HEADS for m in (1, 9, 10, 100)
    )
    full, efficient = count("full", 10), count("efficient", 10)
    one = count("full", 1) / count("efficient", 1)
    return claims.exact(
        is_right and full > 9 * efficient and one < 1.0,
        f"{full:,} and {efficient:,}",
        f"2Ddm + 2dm and 2Dd + 4dm + 2d + 2m, D = {width}, d = {size}: "
        f"{full / efficient:.1f} times. For one type, the control, {one:.3f} times: "
        "nothing is saved there.",
    )


def check_efficient_form(context: Context) -> Finding:
    """Largest deviation of the efficient head from the form with [q; k; q; k]."""
    del context
    n, size = 10, 8
    head = gp_kl.EfficientGlobalPointer(hidden_size=16, num_types=3, head_size=size)
    with jax.enable_x64(True):
        params = jax.tree.map(lambda x: x + 0.1, head.init(jax.random.key(0)))
        hidden = jax.random.normal(jax.random.key(1), (1, n, 16))
        got = jax.jit(head.apply)(params, hidden, jnp.ones((1, n), bool))[0]
        q, k = (
            hidden[0] @ params["kernel"][:, x] + params["bias"][x][None] for x in (0, 1)
        )
        turned = [gp_kl.rotary(x, jnp.arange(n)) for x in (q, k)]
        both = jnp.concatenate([q, k], axis=1)
        pairs = jnp.concatenate([jnp.repeat(both, n, 0), jnp.tile(both, (n, 1))], 1)
        weights = jnp.concatenate([params["type_kernel"][:, x] for x in (0, 1)])
        linear = pairs @ weights + params["type_bias"].sum(0)[None]
        product = turned[0] @ turned[1].T / np.sqrt(size)
        expected = product[None] + linear.T.reshape(3, n, n)
        upper = np.triu(np.ones((n, n), bool))
        found = np.abs(np.asarray(got - expected)[:, upper]).max()
        control = np.abs(np.asarray(got - product[None])[:, upper]).max()
    return claims.exact(
        found < TIGHT and control > 0.1,
        float(found),
        f"Without the linear term, the control: {control:.2f}.",
    )


def check_memory(context: Context) -> Finding:
    """Temporary memory of both heads and of the form that builds n x n x 4d."""
    del context
    n, types, width, size = 512, 10, 768, 64
    hidden = jax.ShapeDtypeStruct((1, n, width), jnp.float32)
    mask = jax.ShapeDtypeStruct((1, n), bool)

    def concatenated(params, hidden, mask):
        del mask
        rows = jnp.einsum("bnh,hsd->bnsd", hidden, params["kernel"])
        both = rows.reshape(n, 2 * size)
        # Positions, biases and masks would add to this.
        shape = (n, n, 2 * size)
        ends = (jnp.broadcast_to(jnp.expand_dims(both, x), shape) for x in (1, 0))
        pairs = jnp.concatenate(list(ends), axis=-1)
        weights = params["type_kernel"].reshape(4 * size, types)
        return jnp.einsum("ijk,km->mij", pairs, weights)

    def mebibytes(apply, head):
        params = jax.eval_shape(head.init, jax.random.key(0))
        compiled: Any = jax.jit(apply).lower(params, hidden, mask).compile()
        return compiled.memory_analysis().temp_size_in_bytes / 2**20

    heads = {name: make(width, types, size) for name, make in HEADS.items()}
    full, efficient = (mebibytes(head.apply, head) for head in heads.values())
    control = mebibytes(concatenated, heads["efficient"])
    return claims.exact(
        efficient < 0.1 * control and control > 250,
        f"{full:.1f} and {efficient:.1f} MiB",
        f"One sentence of {n} tokens, {types} types, d = {size}, besides the "
        f"{types * n * n * 4 / 2**20:.0f} MiB of the scores. With an array of n x n x "
        f"4d, the control: {control:.0f} MiB.",
    )
