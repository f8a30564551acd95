r"""What is minimised: minus the ELBO, with drawn pixels and an annealed KL.

.. math:: L = \beta_t \, \mathrm{KL} - \log p(x \mid z), \qquad
    \beta_t = \min(1, t / T),

with :math:`T = 0` for a weight of 1 from the start. Grey images are binarised anew at
every step (Salakhutdinov & Murray 2008), as Davidson et al. (2018) do.
"""

from typing import Any

import jax
import jax.numpy as jnp

from vmf_vae.autoencoder import VAE
from vmf_vae.text_models import TextVAE

Params = Any


def training_loss(
    model: VAE,
    params: Params,
    x: jax.Array,
    key: jax.Array,
    *,
    kl_weight: jax.Array | float = 1.0,
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Mean loss of a batch: minus the ELBO, with a weighted KL.

    Args:
        model: the autoencoder.
        params: its parameters.
        x: images in [0, 1] or ids, [batch, ...].
        key: typed PRNG key.
        kl_weight: of the KL.

    Returns:
        `(loss, {"reconstruction", "kl"})`, scalars; the KL is not weighted.
    """
    if isinstance(model, TextVAE):
        _, parts = model.elbo(params, x, key, is_training=True)
    else:
        pixel_key, key = jax.random.split(key)
        _, parts = model.elbo(params, binarize(model, x, pixel_key), key)
    means = {name: part.mean() for name, part in parts.items()}
    return kl_weight * means["kl"] - means["reconstruction"], means


def kl_weight(
    step: jax.typing.ArrayLike, kl_warmup_steps: jax.typing.ArrayLike
) -> jax.Array:
    """Weight of the KL that rises in a line from 0 to 1.

    Args:
        step: number of updates done.
        kl_warmup_steps: T, after which it is 1; 0 has it at 1 at once. May be traced.

    Returns:
        Scalar, float32.

    Raises:
        ValueError: if a concrete `kl_warmup_steps` is negative.

    References:
        Bowman et al., *Generating Sentences from a Continuous Space*, 2016, section
        3.1. https://arxiv.org/abs/1511.06349
    """
    require_warmup(kl_warmup_steps)
    step, total = (jnp.asarray(x, jnp.float32) for x in (step, kl_warmup_steps))
    return jnp.where(step < total, step / jnp.maximum(total, 1.0), 1.0)


def require_warmup(kl_warmup_steps: jax.typing.ArrayLike) -> None:
    """Refuses a negative number of steps.

    Args:
        kl_warmup_steps: as for `kl_weight`.

    Raises:
        ValueError: if a concrete number is negative.
    """
    if isinstance(kl_warmup_steps, int | float) and kl_warmup_steps < 0:
        raise ValueError(
            f"kl_warmup_steps must be at least 0, got {kl_warmup_steps!r}."
        )


def binarize(model: VAE, x: jax.Array, key: jax.Array) -> jax.Array:
    """Draws each pixel from its grey value, if the likelihood is Bernoulli.

    Args:
        model: says which likelihood.
        x: grey values in [0, 1]; black and white stays as it is.
        key: typed PRNG key.

    Returns:
        Same shape, float32.
    """
    if getattr(model, "likelihood", "") != "bernoulli":
        return x
    return jax.random.bernoulli(key, x).astype(jnp.float32)
