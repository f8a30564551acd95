r"""R-Drop: two passes with different dropout, both right, and equal to each other.

Liang et al. (2021), eq. (1)-(4), with :math:`c_k` the cross-entropy of pass k and
:math:`s = \mathrm{KL}(p_1 \| p_2) + \mathrm{KL}(p_2 \| p_1)` of an example:

.. math:: L = c_1 + c_2 + \frac{\alpha}{2} s.

What differs: one published :math:`\alpha` is not another. The authors' code alone has
four weightings besides the paper's, which mix means and sums over the batch; their
README's is :math:`2B` times as strong as the formula for a batch of :math:`B`. All are
here under `convention`, and `convert_alpha` translates between them. The default is the
paper's formula, averaged over the batch. The divergence is a sum over classes in all of
them: a mean would make :math:`\alpha` weaker by their number.

Example, with `apply_fn(params, x, key)` a network with dropout::

    def loss_fn(params, x, labels, key):
        out_1, out_2 = two_passes(apply_fn, params, x, key)
        return rdrop_loss(out_1, out_2, labels, alpha=4.0)
"""

import jax
import jax.numpy as jnp
import numpy as np

from expkit import trees
from expkit.arguments import (
    as_integers,
    as_real,
    is_concrete,
    require_choice,
    require_mask,
    require_same_shape,
    require_shape,
    wide_integers,
)
from rdrop.arguments import require_alpha
from rdrop.conventions import CONVENTIONS
from rdrop.divergence import symmetric_kl


def rdrop_loss(
    logits_1: jax.typing.ArrayLike,
    logits_2: jax.typing.ArrayLike,
    labels: jax.typing.ArrayLike,
    alpha: jax.typing.ArrayLike,
    *,
    convention: str = "paper",
    where: jax.typing.ArrayLike | None = None,
) -> jax.Array:
    r"""Cross-entropy of two passes plus their symmetric divergence.

    .. math:: \frac{1}{B} \sum_{b} \Big( c_{1b} + c_{2b} + \frac{\alpha}{2} s_b \Big)
              \quad \text{for the convention of the paper.}

    Every leading axis counts examples: for `[batch, n, classes]` they are tokens, and
    `where` leaves the padding out. B is the number of examples selected. Where the
    logits are equal the loss is the constant of the convention times the plain loss of
    one pass: 2 for the paper.

    Args:
        logits_1: of the first pass, `[..., classes]`, real floating-point. -inf in both
            passes excludes a class; see `symmetric_kl`.
        logits_2: of the second pass, the same shape. Both get a gradient.
        labels: integers `[...]` in [0, classes), or probabilities `[..., classes]`. A
            traced integer out of range gives nan, as does a traced probability of nan.
        alpha: :math:`\alpha`, at least 0, may be traced. The paper uses 1 to 5; what it
            means depends on the convention.
        convention: a name in `CONVENTIONS`.
        where: boolean `[...]`; examples that count. Others may hold anything, also
            labels out of range, and get no gradient.

    Returns:
        Scalar, float32 or wider. 0 with a zero gradient if `where` selects nothing.

    Raises:
        TypeError: if `where` is not boolean, `alpha` no real number, or an array
            complex.
        ValueError: if `convention` is unknown, shapes do not fit, and for a concrete
            `alpha` that is negative or label out of range.

    References:
        Liang et al., *R-Drop: Regularized Dropout for Neural Networks*, 2021, eq. (4).
        https://arxiv.org/abs/2106.14448
    """
    require_alpha(alpha)
    require_choice("convention", convention, CONVENTIONS)
    logits_1, logits_2, where = _select(logits_1, logits_2, where)
    labels = _check_labels(labels, logits_1.shape, where)
    entropies = _cross_entropy(logits_1, labels) + _cross_entropy(logits_2, labels)
    divergences = symmetric_kl(logits_1, logits_2)
    return _combine(entropies, divergences, alpha, CONVENTIONS[convention], where)


def rdrop_regression_loss(
    outputs_1: jax.typing.ArrayLike,
    outputs_2: jax.typing.ArrayLike,
    targets: jax.typing.ArrayLike,
    alpha: jax.typing.ArrayLike,
    *,
    convention: str = "paper",
    where: jax.typing.ArrayLike | None = None,
) -> jax.Array:
    r"""Squared errors of two passes plus the squared difference between them.

    .. math:: \frac{1}{B} \sum_{b} \Big( (f_{1b} - y_b)^2 + (f_{2b} - y_b)^2
              + \alpha (f_{1b} - f_{2b})^2 \Big) \quad \text{for the paper.}

    That is :math:`D(y, f_1) + D(y, f_2) + \frac{\alpha}{2}[D(f_2, f_1) + D(f_1, f_2)]`
    with the squared distance for D, which is also the divergence of two normal
    distributions up to their variance. The other conventions weight it as they weight
    the divergence in `rdrop_loss`. The authors' code for STS-B is the paper's
    convention with :math:`\alpha = 1`.

    Args:
        outputs_1: of the first pass, any shape, real floating-point. Every number
            counts as an example.
        outputs_2: of the second pass, the same shape. Both get a gradient.
        targets: y, the same shape.
        alpha: :math:`\alpha`, at least 0, may be traced.
        convention: a name in `CONVENTIONS`.
        where: boolean, the same shape; the outputs that count.

    Returns:
        Scalar, float32 or wider. 0 with a zero gradient if `where` selects nothing.

    Raises:
        TypeError: if `where` is not boolean, `alpha` no real number, or an array
            complex.
        ValueError: if `convention` is unknown, shapes differ, and for a concrete
            `alpha` that is negative.

    References:
        Su, *Dropout Twice Again! This Time It Is SOTA on Supervised Tasks*, 2021,
        the general form. https://kexue.fm/archives/8496
    """
    require_alpha(alpha)
    require_choice("convention", convention, CONVENTIONS)
    outputs = as_real("outputs_1", outputs_1), as_real("outputs_2", outputs_2)
    require_same_shape(("outputs_1", "outputs_2"), *outputs)
    targets = as_real("targets", targets)
    require_same_shape(("outputs_1", "targets"), outputs[0], targets)
    where = _check_where(where, targets.shape)
    wide = trees.wide_dtype(jnp.result_type(*outputs))
    f_1, f_2, y = (jnp.where(where, z.astype(wide), 0.0) for z in (*outputs, targets))
    errors = jnp.square(f_1 - y) + jnp.square(f_2 - y)
    distances = 2.0 * jnp.square(f_1 - f_2)
    return _combine(errors, distances, alpha, CONVENTIONS[convention], where)


def consistency_loss(
    logits_1: jax.typing.ArrayLike,
    logits_2: jax.typing.ArrayLike,
    *,
    where: jax.typing.ArrayLike | None = None,
) -> jax.Array:
    r"""Mean symmetric divergence of two passes, for examples without labels.

    .. math:: \frac{1}{B} \sum_b
              \mathrm{KL}(p_{1b} \| p_{2b}) + \mathrm{KL}(p_{2b} \| p_{1b}).

    Without a factor: in the paper's convention :math:`\alpha / 2` stands before it.

    Args:
        logits_1: of the first pass, `[..., classes]`, real floating-point.
        logits_2: of the second pass, the same shape. Both get a gradient.
        where: boolean `[...]`; examples that count.

    Returns:
        Scalar, float32 or wider, at least 0. 0 with a zero gradient if `where` selects
        nothing.

    Raises:
        TypeError: if `where` is not boolean, or logits are complex.
        ValueError: if shapes do not fit.

    References:
        Su, *Dropout Twice Again! This Time It Is SOTA on Supervised Tasks*, 2021,
        the semi-supervised step. https://kexue.fm/archives/8496
    """
    logits_1, logits_2, where = _select(logits_1, logits_2, where)
    return _reduce(symmetric_kl(logits_1, logits_2), where, is_sum=False)


def _combine(entropies, divergences, alpha, convention, where):
    """The loss from its two terms per example."""
    first = _reduce(entropies, where, is_sum=convention.sums_cross_entropy)
    loss = convention.cross_entropy * first
    if is_concrete(alpha) and float(alpha) == 0.0:
        return loss  # also where the divergence is infinite
    second = _reduce(divergences, where, is_sum=convention.sums_divergence)
    second = jnp.where((alpha == 0.0) & jnp.isinf(second), 0.0, second)
    return loss + convention.divergence * jnp.asarray(alpha, loss.dtype) * second


def _reduce(values, where, *, is_sum):
    """Sum or mean over the examples selected; 0 of none."""
    total = jnp.sum(jnp.where(where, values, 0.0))
    if is_sum:
        return total
    return total / jnp.maximum(jnp.sum(where), 1).astype(total.dtype)


def _select(logits_1, logits_2, where):
    """Logits in one wide dtype, 0 where an example does not count, and the mask."""
    logits = as_real("logits_1", logits_1), as_real("logits_2", logits_2)
    require_same_shape(("logits_1", "logits_2"), *logits)
    if logits[0].ndim < 1:
        raise ValueError("logits_1 must have an axis of classes, got a scalar.")
    where = _check_where(where, logits[0].shape[:-1])
    wide = trees.wide_dtype(jnp.result_type(*logits))
    logits_1, logits_2 = (
        jnp.where(where[..., None], z.astype(wide), 0.0) for z in logits
    )
    return logits_1, logits_2, where


def _check_where(where, shape):
    if 0 in shape:
        raise ValueError(f"the batch is empty, got the shape {shape} of examples.")
    if where is None:
        return jnp.ones(shape, bool)
    mask = require_mask("where", where)
    require_shape("where", mask, shape)
    return mask


def _check_labels(labels, shape, where):
    """Labels with values in range where an example does not count."""
    labels = _as_labels(labels)
    is_soft = labels.shape == shape
    is_integer = jnp.issubdtype(labels.dtype, jnp.integer)
    if not is_soft and not (is_integer and labels.shape == shape[:-1]):
        raise ValueError(
            f"labels must be integers of shape {shape[:-1]} or probabilities of shape "
            f"{shape}, got {labels.dtype} of shape {labels.shape}."
        )
    counts = where[..., None] if is_soft else where
    if is_concrete(labels) and is_concrete(counts):
        values = np.asarray(labels)
        largest = 1 if is_soft else shape[-1] - 1
        is_wrong = np.asarray(counts) & ~((values >= 0) & (values <= largest))
        if is_wrong.any():
            allowed = "in [0, 1]" if is_soft else f"in [0, {largest}]"
            raise ValueError(
                f"labels must be {allowed} for {shape[-1]} classes, got "
                f"{values[is_wrong][0]}; leave unlabelled examples out with `where`."
            )
    if is_integer:  # what is out of range is so in 32 bits, too
        labels = as_integers("labels", labels)
    return jnp.where(counts, labels, 0)


def _as_labels(labels):
    """An array; known integers are NumPy's, since JAX cuts them to 32 bits."""
    leaves = jax.tree.leaves(labels)
    if not any(isinstance(x, jax.Array) or hasattr(x, "__jax_array__") for x in leaves):
        known = np.asarray(labels)
        if np.issubdtype(known.dtype, np.integer):
            return known
    return as_real("labels", labels)


def _cross_entropy(logits, labels):
    """Of every example; classes of probability 0 have no part, also at -inf."""
    log_p = jax.nn.log_softmax(logits)
    if labels.ndim < log_p.ndim:
        # Not from the end: a label out of range is an error that must show.
        labels = wide_integers(labels)
        index = jnp.where(labels < 0, log_p.shape[-1], labels)
        picked = jnp.take_along_axis(
            log_p, index[..., None], axis=-1, mode="fill", fill_value=jnp.nan
        )
        return -picked[..., 0]
    # Only 0 times infinity is left out: a probability that is nan must show.
    is_out = (labels == 0) & jnp.isneginf(log_p)
    terms = labels.astype(log_p.dtype) * jnp.where(is_out, 0.0, log_p)
    return -jnp.sum(terms, axis=-1)
