r"""Variational autoencoders of images: normal, spherical, and batch-normalised.

A model is a frozen record of settings; its parameters are a dict of arrays. For one
draw z of the posterior

.. math:: \mathrm{ELBO}(x) = \log p(x \mid z) - \mathrm{KL}(q(z \mid x) \,\|\, p(z)),

the first term (`reconstruction`) by one draw, the second (`kl`) in closed form. The
architecture is that of Davidson et al. (2018), section 5.2.

**What `latent_dim` counts.** Always the coordinates of z, which the decoder reads. For
`VMFVAE` these are one more than the dimension of its sphere. Davidson et al. compare a
normal in :math:`\mathbb{R}^m` with a vMF on :math:`S^m`: here
`GaussianVAE(latent_dim=m)` and `VMFVAE(latent_dim=m + 1)`, as in the authors' code.

>>> model = VMFVAE((8, 8, 1), latent_dim=3, hidden=(32,))
>>> params = model.init(jax.random.key(0))
>>> elbo, parts = model.elbo(params, jnp.zeros((5, 8, 8, 1)), jax.random.key(1))
>>> elbo.shape, sorted(parts)
((5,), ['kl', 'reconstruction'])
"""

import dataclasses
import functools
import math
from collections.abc import Iterable, Sequence

import jax
import jax.numpy as jnp

from expkit import nets
from expkit.arguments import require_choice
from vmf_vae import networks
from vmf_vae.autoencoder import VAE, Params
from vmf_vae.elementary import wide_dtype
from vmf_vae.gaussian_latents import BatchNormLatent, GaussianLatent
from vmf_vae.spherical_latent import VMFLatent

LIKELIHOODS = ("bernoulli", "gaussian")


@dataclasses.dataclass(frozen=True)
class ImageVAE(VAE):
    """The settings that the image models share.

    Attributes:
        input_shape: shape of one example, such as (28, 28, 1).
        latent_dim: coordinates of z.
        hidden: widths (mlp) or channels (cnn) of the encoder; the decoder has them in
            the reverse order.
        encoder: `"mlp"` or `"cnn"`, for both networks.
        likelihood: `"bernoulli"` (x in [0, 1], the decoder gives logits) or
            `"gaussian"` (the decoder gives means).
        noise_scale: standard deviation of the Gaussian likelihood.
    """

    input_shape: Sequence[int]
    latent_dim: int
    hidden: Sequence[int] = (256, 128)
    encoder: str = "mlp"
    likelihood: str = "bernoulli"
    noise_scale: float = 0.1

    def __post_init__(self) -> None:
        """Raises ValueError for a setting that cannot be used."""
        require_choice("likelihood", self.likelihood, LIKELIHOODS)
        if not self.noise_scale > 0:
            raise ValueError(f"noise_scale must be positive, got {self.noise_scale!r}.")
        for name in ("input_shape", "hidden"):  # lists would have no hash
            sizes = getattr(self, name)
            if not isinstance(sizes, Iterable):
                raise ValueError(
                    f"{name} must be a sequence of sizes, got {sizes!r}; put it in a "
                    "tuple."
                )
            object.__setattr__(self, name, tuple(sizes))
        # The networks check the rest.
        object.__setattr__(self, "latent_dim", self.latent.dim)
        _ = self.encoder_net, self.decoder_net

    @functools.cached_property
    def encoder_net(self) -> nets.Net:
        """From an example to the features of its posterior."""
        features = self.latent.num_features
        shape, hidden = self.input_shape, self.hidden
        return networks.make_encoder(self.encoder, shape, hidden, features)

    @functools.cached_property
    def decoder_net(self) -> nets.Net:
        """From a latent vector to logits or means."""
        shape, hidden = self.input_shape, self.hidden
        return networks.make_decoder(self.encoder, self.latent_dim, hidden, shape)

    def decode(self, params: Params, z: jax.Array) -> jax.Array:
        """Logits (Bernoulli) or means (Gaussian) of the examples.

        Args:
            params: of `init`.
            z: latent vectors [batch, latent_dim].

        Returns:
            [batch, *input_shape].
        """
        return self.decoder_net.apply(params["decoder"], z)

    def mean(self, params: Params, z: jax.Array) -> jax.Array:
        """Mean of the likelihood: probabilities, or what `decode` gives.

        Args:
            params: of `init`.
            z: latent vectors [batch, latent_dim].

        Returns:
            [batch, *input_shape].
        """
        out = self.decode(params, z)
        return jax.nn.sigmoid(out) if self.likelihood == "bernoulli" else out

    def apply(
        self, params: Params, x: jax.Array, key: jax.Array | None = None
    ) -> jax.Array:
        """Reconstructs examples.

        Args:
            params: of `init`.
            x: examples [batch, *input_shape].
            key: of a draw from the posterior; None takes its centre.

        Returns:
            Means of the likelihood, [batch, *input_shape].
        """
        q = self.encode(params, x)
        z = self.latent.center(q) if key is None else q.sample(key)
        return self.mean(params, z)

    def sample(self, params: Params, key: jax.Array, num_samples: int) -> jax.Array:
        """Draws z from the prior and decodes it.

        Args:
            params: of `init`.
            key: typed PRNG key.
            num_samples: n.

        Returns:
            Means of the likelihood, [n, *input_shape].
        """
        return self.mean(params, self.latent.prior_sample(key, num_samples))

    def log_likelihood(self, params: Params, x: jax.Array, z: jax.Array) -> jax.Array:
        r""":math:`\log p(x \mid z)`, summed over the pixels.

        Args:
            params: of `init`.
            x: examples [batch, *input_shape].
            z: latent vectors [batch, latent_dim].

        Returns:
            [batch], float32 or wider.

        Raises:
            ValueError: if `x` has another shape.
        """
        networks.require_examples(x, self.input_shape)
        out = self.decode(params, z)
        out = out.astype(wide_dtype(out.dtype))
        if self.likelihood == "bernoulli":
            terms = x * out - jax.nn.softplus(out)
        else:
            errors = (x - out) / self.noise_scale
            log_scale = math.log(self.noise_scale) + 0.5 * math.log(2 * math.pi)
            terms = -0.5 * jnp.square(errors) - log_scale
        return jnp.sum(terms.reshape(len(terms), -1), axis=-1)


@dataclasses.dataclass(frozen=True)
class GaussianVAE(ImageVAE):
    """The VAE with a normal posterior and a standard normal prior.

    Attributes: those of `ImageVAE`.

    References:
        Kingma & Welling, *Auto-Encoding Variational Bayes*, 2014, section 3.
        https://arxiv.org/abs/1312.6114
    """

    @functools.cached_property
    def latent(self) -> GaussianLatent:
        """The latent variable."""
        return GaussianLatent(self.latent_dim)


@dataclasses.dataclass(frozen=True)
class VMFVAE(ImageVAE):
    r"""The hyperspherical VAE: vMF posterior, uniform prior on :math:`S^{d-1}`.

    Attributes:
        concentration: `"learned"` for every input, `"shared"` (one trained number) or a
            fixed number >= 0. `latent_dim` is d, the coordinates of z, at least 2.

    References:
        Davidson et al., *Hyperspherical Variational Auto-Encoders*, 2018, section 3.
        https://arxiv.org/abs/1804.00891
    """

    concentration: float | str = "learned"

    def __post_init__(self) -> None:
        """Raises ValueError for a setting that cannot be used."""
        super().__post_init__()
        object.__setattr__(self, "concentration", self.latent.concentration)

    @functools.cached_property
    def latent(self) -> VMFLatent:
        """The latent variable."""
        return VMFLatent(self.latent_dim, self.concentration)


@dataclasses.dataclass(frozen=True)
class BatchNormVAE(ImageVAE):
    r"""The normal VAE whose posterior means are normalised over the batch.

    The mean KL of a batch is at least :math:`(d \gamma^2 + |\beta|^2) / 2`. A batch is
    normalised by its own statistics; call `freeze_statistics` before an evaluation.

    Attributes:
        scale: gamma, fixed and positive.
        learn_shift: whether beta is trained (as in the paper) or 0.

    References:
        Zhu et al., *A Batch Normalized Inference Network Keeps the KL Vanishing Away*,
        2020, section 3. https://arxiv.org/abs/2004.12585
    """

    scale: float = 0.5
    learn_shift: bool = True

    @functools.cached_property
    def latent(self) -> BatchNormLatent:
        """The latent variable."""
        return BatchNormLatent(self.latent_dim, self.scale, self.learn_shift)
