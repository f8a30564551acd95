r"""The weightings of R-Drop that are in use, and how an alpha translates between them.

With :math:`c_k` the cross-entropy of pass k, :math:`s` the symmetric divergence of an
example, and means over a batch of B examples, every convention is

.. math:: u\, \overline{(c_1 + c_2)} + v\, \alpha\, \overline{s},

where u and v depend on the convention and, where it sums over the batch, on B:

========= ========================================= ===== =====
name      loss                                      u     v
========= ========================================= ===== =====
paper     mean(c1 + c2 + alpha/2 s)                 1     1/2
readme    (mean c1 + mean c2)/2 + alpha/2 sum s     1/2   B/2
hf_bert   mean c1 + mean c2 + alpha/2 sum s         1     B/2
vit       mean c1 + mean c2 + alpha sum s           1     B
fairseq   sum(c1 + c2 + alpha/2 s)                  B     B/2
bojone    mean((c1 + c2)/2 + alpha/4 s)             1/2   1/4
========= ========================================= ===== =====

The paper is Liang et al. (2021), the next four are directories of their repository, the
last the code of Su's essay. So `alpha = 0.3` of their vision transformer at batch 512
is 307 in the formula of the paper, and an optimizer that is not invariant to the scale
of the loss also sees u::

    >>> convert_alpha(0.3, "vit", "paper", batch_size=512)
    307.2
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from expkit.arguments import require_choice, require_count
from rdrop.arguments import require_alpha


class Convention(NamedTuple):
    """A weighting `cross_entropy * R(c1 + c2) + alpha * divergence * R'(s)`.

    Attributes:
        cross_entropy: factor of the cross-entropies.
        sums_cross_entropy: whether R is the sum over the examples; else the mean.
        divergence: factor of the divergence, besides alpha.
        sums_divergence: whether R' is the sum over the examples; else the mean.
    """

    cross_entropy: float
    sums_cross_entropy: bool
    divergence: float
    sums_divergence: bool


CONVENTIONS = {
    "paper": Convention(1.0, False, 0.5, False),
    "readme": Convention(0.5, False, 0.5, True),
    "hf_bert": Convention(1.0, False, 0.5, True),
    "vit": Convention(1.0, False, 1.0, True),
    "fairseq": Convention(1.0, True, 0.5, True),
    "bojone": Convention(0.5, False, 0.25, False),
}
"""Every weighting by its name."""


def convention_scale(convention: str, batch_size: int) -> float:
    r"""How many times the loss of the paper a convention is, at equal strength.

    .. math:: L_\text{convention}(\alpha') = u\, L_\text{paper}(\alpha), \qquad
              \alpha' = \text{convert\_alpha}(\alpha, \text{paper}, \text{convention}).

    Args:
        convention: a name in `CONVENTIONS`.
        batch_size: B, at least 1; the number of examples (for sequences, tokens) that
            `where` selects. Exact for a fixed B only: where the number changes from
            batch to batch, so does the scale of "fairseq".

    Returns:
        u: 1 for "paper", "hf_bert" and "vit", 1/2 for "readme" and "bojone", B for
        "fairseq".

    Raises:
        ValueError: if `convention` is unknown or `batch_size` not a positive integer.

    References:
        Liang et al., the code of R-Drop, 2021. https://github.com/dropreg/R-Drop
    """
    return _factors(convention, "convention", batch_size)[0]


def convert_alpha(
    alpha: jax.typing.ArrayLike, source: str, target: str, batch_size: int
) -> float | jax.Array:
    r"""The alpha that weights the two terms in one convention as in another.

    .. math:: \alpha' = \alpha\, \frac{v}{u} \Big/ \frac{v'}{u'}.

    The losses are then proportional, as their gradients are, by the ratio of their
    `convention_scale`.

    Args:
        alpha: :math:`\alpha` of `source`, at least 0, may be traced.
        source: a name in `CONVENTIONS`.
        target: a name in `CONVENTIONS`.
        batch_size: B, at least 1; the number of examples (for sequences, tokens) that
            `where` selects. Where that number changes, no one alpha does it for all
            batches if one of the two mixes sums and means ("readme", "hf_bert", "vit"),
            since its strength grows with B.

    Returns:
        :math:`\alpha'`, a float for a Python number.

    Raises:
        TypeError: if `alpha` is no real number.
        ValueError: if a convention is unknown, `alpha` is concrete and negative, or
            `batch_size` not a positive integer.

    References:
        Liang et al., the code of R-Drop, 2021. https://github.com/dropreg/R-Drop
    """
    require_alpha(alpha)
    u, v = _factors(source, "source", batch_size)
    target_u, target_v = _factors(target, "target", batch_size)
    ratio = (v * target_u) / (u * target_v)
    if isinstance(alpha, int | float):
        return alpha * ratio
    return jnp.asarray(alpha) * ratio


def _factors(convention, argument, batch_size):
    """The factors u and v of the means over the batch."""
    require_choice(argument, convention, CONVENTIONS)
    try:
        batch_size = require_count("batch_size", batch_size)
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"batch_size must be an integer >= 1, got {batch_size!r}."
        ) from error
    chosen = CONVENTIONS[convention]
    u = chosen.cross_entropy * (batch_size if chosen.sums_cross_entropy else 1)
    v = chosen.divergence * (batch_size if chosen.sums_divergence else 1)
    return u, v
