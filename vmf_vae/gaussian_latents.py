r"""Latent variables with a standard normal prior: what a posterior is, and its KL.

- `GaussianLatent`: :math:`q = N(\mu, \mathrm{diag}\,\sigma^2)` (Kingma & Welling
  2014).
- `BatchNormLatent`: the means are normalised over the batch (Zhu et al. 2020), so that
  the KL cannot vanish. Differences from the paper: see its docstring.

A latent turns the features of an encoder into a posterior with `.sample(key, shape=())`
and `.log_prob(z)`; `spherical_latent` has the same on the sphere.

>>> latent = GaussianLatent(3)
>>> q = latent.posterior(latent.init(), jnp.ones((4, latent.num_features)))
>>> q.sample(jax.random.key(0)).shape, latent.kl(q).shape
((4, 3), (4,))
"""

import dataclasses
import math
import operator
from typing import Any

import jax
import jax.numpy as jnp

from vmf_vae.elementary import wide_dtype

Params = dict[str, Any]
_LEAST_SCALE = 1e-6
_VARIANCE_OFFSET = 1e-8


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class DiagonalGaussian:
    """A normal law with independent coordinates.

    Attributes:
        loc: means [..., d].
        scale: standard deviations [..., d], positive.
    """

    loc: jax.Array
    scale: jax.Array

    def sample(self, key: jax.Array, shape: tuple[int, ...] = ()) -> jax.Array:
        """Draws with gradients in both attributes.

        Args:
            key: typed PRNG key.
            shape: draws for each element of the batch.

        Returns:
            [*shape, ..., d].
        """
        noise = jax.random.normal(key, (*shape, *self.loc.shape), self.loc.dtype)
        lead = (1,) * len(shape)
        loc, scale = (a.reshape(lead + a.shape) for a in (self.loc, self.scale))
        return loc + scale * noise

    def log_prob(self, x: jax.Array) -> jax.Array:
        """Logarithm of the density.

        Args:
            x: points [*shape, ..., d].

        Returns:
            [*shape, ...], float32 or wider.
        """
        lead = (1,) * (x.ndim - self.loc.ndim)
        loc, scale = (_wide(a.reshape(lead + a.shape)) for a in (self.loc, self.scale))
        squares = jnp.square((x - loc) / scale) + 2 * jnp.log(scale)
        return -0.5 * jnp.sum(squares + math.log(2 * math.pi), axis=-1)

    def mean(self) -> jax.Array:
        """The means.

        Returns:
            [..., d].
        """
        return self.loc

    def kl_to_standard(self) -> jax.Array:
        r""":math:`\frac12 \sum_j (\mu_j^2 + \sigma_j^2 - 1 - \log \sigma_j^2)`.

        Returns:
            [...], float32 or wider.
        """
        variance = jnp.square(_wide(self.scale))
        terms = jnp.square(_wide(self.loc)) + variance - 1.0 - jnp.log(variance)
        return 0.5 * jnp.sum(terms, axis=-1)


@dataclasses.dataclass(frozen=True)
class _Normal:
    """What the two latents with a standard normal prior share."""

    dim: int

    def __post_init__(self) -> None:
        """Raises ValueError for a dimension out of range."""
        if not hasattr(self.dim, "__index__") or self.dim < 1:
            raise ValueError(f"dim must be an integer >= 1, got {self.dim!r}.")
        object.__setattr__(self, "dim", operator.index(self.dim))

    @property
    def num_features(self) -> int:
        """Features of an encoder: a mean and a raw scale for every coordinate."""
        return 2 * self.dim

    def kl(self, q: DiagonalGaussian) -> jax.Array:
        """KL from the prior.

        Args:
            q: posterior of a batch.

        Returns:
            [batch].
        """
        return q.kl_to_standard()

    def center(self, q: DiagonalGaussian) -> jax.Array:
        """The point that stands for a posterior: its mean.

        Args:
            q: posterior of a batch.

        Returns:
            [batch, dim].
        """
        return q.loc

    def prior_sample(self, key: jax.Array, num_samples: int) -> jax.Array:
        """Draws from the prior.

        Args:
            key: typed PRNG key.
            num_samples: n.

        Returns:
            [n, dim].
        """
        return jax.random.normal(key, (num_samples, self.dim))

    def prior_log_prob(self, z: jax.Array) -> jax.Array:
        """Log density of the prior.

        Args:
            z: points [..., dim].

        Returns:
            [...], float32 or wider.
        """
        squares = jnp.square(_wide(z)) + math.log(2 * math.pi)
        return -0.5 * jnp.sum(squares, axis=-1)


@dataclasses.dataclass(frozen=True)
class GaussianLatent(_Normal):
    """A Gaussian posterior with free means and standard deviations.

    Attributes:
        dim: number of coordinates, at least 1.
    """

    def init(self) -> Params:
        """Makes the parameters.

        Returns:
            None of its own: an empty dict.
        """
        return {}

    def posterior(self, params: Params, features: jax.Array) -> DiagonalGaussian:
        """Reads a posterior from the features of an encoder.

        Args:
            params: of `init`.
            features: [batch, 2 dim]; the scale is the softplus of the second half.

        Returns:
            The posterior of the batch.
        """
        del params
        loc, raw = jnp.split(features, 2, axis=-1)
        return DiagonalGaussian(loc, jax.nn.softplus(raw) + _LEAST_SCALE)


@dataclasses.dataclass(frozen=True)
class BatchNormLatent(_Normal):
    r"""A Gaussian posterior whose means are normalised over the batch.

    With :math:`m_j` and :math:`v_j` the mean and variance of feature j,

    .. math:: \mu_j = \gamma \frac{h_j - m_j}{\sqrt{v_j + \epsilon}} + \beta_j.

    The batch mean of :math:`\mu_j^2` is :math:`\gamma^2 + \beta_j^2` and
    :math:`\sigma^2 - 1 - \log \sigma^2 \ge 0`, so the mean KL is at least
    :math:`(d \gamma^2 + |\beta|^2) / 2`, whatever the encoder does.

    Parameters without `statistics`, such as those of `init`, normalise by the batch at
    hand; with them (`freeze`) by what is stored, so that one example can be encoded.
    There is no running average, in which old parameters would count. Scale offset
    :math:`\epsilon = 10^{-8}`.

    Attributes:
        dim: number of coordinates, at least 1.
        scale: gamma, fixed and positive. Zhu et al. use .3 to .7 on texts.
        learn_shift: whether beta is trained; it starts at 0.

    References:
        Zhu et al., *A Batch Normalized Inference Network Keeps the KL Vanishing Away*,
        2020, section 3. https://arxiv.org/abs/2004.12585

        Su, 2020. https://kexue.fm/archives/7381
    """

    scale: float = 0.5
    learn_shift: bool = True

    def __post_init__(self) -> None:
        """Raises ValueError for a setting out of range."""
        super().__post_init__()
        if not self.scale > 0:
            raise ValueError(f"scale must be positive, got {self.scale!r}.")

    def init(self) -> Params:
        """Makes the parameters.

        Returns:
            `{"shift": zeros [dim]}` in float32, as the networks are with float64
            enabled too, or nothing if the shift is not trained.
        """
        return {"shift": jnp.zeros(self.dim, jnp.float32)} if self.learn_shift else {}

    def posterior(self, params: Params, features: jax.Array) -> DiagonalGaussian:
        """Reads a posterior from the features of an encoder.

        Args:
            params: of `init`, or with the `statistics` that `freeze` adds.
            features: [batch, 2 dim]; the scale is the softplus of the second half.

        Returns:
            The posterior of the batch.
        """
        raw_loc, raw_scale = jnp.split(features, 2, axis=-1)
        statistics = params.get("statistics") or self._statistics(raw_loc)
        mean, variance = statistics["mean"][None], statistics["variance"][None]
        loc = (raw_loc - mean) * jax.lax.rsqrt(variance + _VARIANCE_OFFSET)
        shift = params["shift"] if self.learn_shift else jnp.zeros(self.dim)
        return DiagonalGaussian(
            self.scale * loc + shift[None],
            jax.nn.softplus(raw_scale) + _LEAST_SCALE,
        )

    def freeze(self, params: Params, features: jax.Array) -> Params:
        """Stores the statistics of these features, for evaluation.

        Args:
            params: of `init`.
            features: [n, 2 dim], those of a large part of the training set.

        Returns:
            The parameters with `statistics`.
        """
        raw_loc, _ = jnp.split(features, 2, axis=-1)
        return {**params, "statistics": self._statistics(raw_loc)}

    def kl_bound(self, params: Params) -> jax.Array:
        r""":math:`(d \gamma^2 + |\beta|^2) / 2`, below which no mean KL falls.

        Args:
            params: of `init`.

        Returns:
            Scalar.
        """
        shift = params["shift"] if self.learn_shift else jnp.zeros(self.dim)
        return 0.5 * (self.dim * self.scale**2 + jnp.sum(jnp.square(shift)))

    def _statistics(self, raw_loc: jax.Array) -> Params:
        return {"mean": raw_loc.mean(axis=0), "variance": raw_loc.var(axis=0)}


def _wide(x: jax.Array) -> jax.Array:
    """In float32, or float64 where it is that already."""
    return x.astype(wide_dtype(x.dtype))
