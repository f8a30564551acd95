r"""What all variational autoencoders here share: encode, draw, decode, bound.

A model is a frozen record of settings; its parameters are a dict of arrays. For one
draw z of the posterior

.. math:: \mathrm{ELBO}(x) = \log p(x \mid z) - \mathrm{KL}(q(z \mid x) \,\|\, p(z)),

the first term (`reconstruction`) by one draw, the second (`kl`) in closed form. Images:
`models`; texts: `text_models`.
"""

import abc
import functools
from typing import Any, Protocol

import jax

from expkit import nets
from vmf_vae.gaussian_latents import BatchNormLatent, DiagonalGaussian
from vmf_vae.spherical_latent import VonMisesFisher

Params = dict[str, Any]
Posterior = DiagonalGaussian | VonMisesFisher


class Latent(Protocol):
    """A latent variable: `GaussianLatent`, `BatchNormLatent` or `VMFLatent`."""

    @property
    def dim(self) -> int:
        """Coordinates of z."""
        ...

    @property
    def num_features(self) -> int:
        """Width of the encoder's output."""
        ...

    def init(self) -> Params:
        """Makes the parameters of its own."""
        ...

    def posterior(self, params: Params, features: jax.Array) -> Posterior:
        """Reads a posterior from features `[batch, num_features]`."""
        ...

    def kl(self, q: Any) -> jax.Array:
        """KL of a posterior from the prior, `[batch]`."""
        ...

    def center(self, q: Any) -> jax.Array:
        """The point that stands for a posterior, `[batch, dim]`."""
        ...

    def prior_sample(self, key: jax.Array, num_samples: int) -> jax.Array:
        """Draws from the prior, `[num_samples, dim]`."""
        ...

    def prior_log_prob(self, z: jax.Array) -> jax.Array:
        """Log density of the prior, `[...]` for `[..., dim]`."""
        ...


class VAE(abc.ABC):
    """What every model can do; a subclass says which latent and which networks."""

    @property
    @abc.abstractmethod
    def latent(self) -> Latent:
        """The latent variable."""

    @property
    @abc.abstractmethod
    def encoder_net(self) -> nets.Net:
        """From an example to the features of its posterior."""

    @property
    @abc.abstractmethod
    def decoder_net(self) -> nets.Net:
        """From a latent vector to the parameters of the likelihood."""

    @abc.abstractmethod
    def log_likelihood(self, params: Params, x: jax.Array, z: jax.Array) -> jax.Array:
        r""":math:`\log p(x \mid z)`.

        Args:
            params: of `init`.
            x: examples [batch, ...].
            z: latent vectors [batch, latent_dim].

        Returns:
            [batch], float32 or wider.
        """

    def __getstate__(self) -> dict[str, Any]:
        """The settings alone: networks are closures, and are built again."""
        return {
            name: value
            for name, value in vars(self).items()
            if not isinstance(
                getattr(type(self), name, None), functools.cached_property
            )
        }

    def init(self, key: jax.Array) -> Params:
        """Makes the parameters.

        Args:
            key: typed PRNG key.

        Returns:
            `{"encoder", "decoder", "latent"}`.
        """
        encoder_key, decoder_key = jax.random.split(key)
        return {
            "encoder": self.encoder_net.init(encoder_key),
            "decoder": self.decoder_net.init(decoder_key),
            "latent": self.latent.init(),
        }

    def encode(self, params: Params, x: jax.Array) -> Posterior:
        """The posterior of a batch.

        Args:
            params: of `init`.
            x: examples [batch, ...].

        Returns:
            `VonMisesFisher` or `DiagonalGaussian`, with arrays [batch, ...].
        """
        features = self.encoder_net.apply(params["encoder"], x)
        return self.latent.posterior(params["latent"], features)

    def center(self, params: Params, x: jax.Array) -> jax.Array:
        """The point of the latent space that stands for each example.

        Args:
            params: of `init`.
            x: examples [batch, ...].

        Returns:
            Mean directions or means, [batch, latent_dim].
        """
        return self.latent.center(self.encode(params, x))

    def elbo(
        self, params: Params, x: jax.Array, key: jax.Array
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        """The evidence lower bound of each example, by one draw of the posterior.

        Args:
            params: of `init`.
            x: examples [batch, ...].
            key: typed PRNG key of the draw.

        Returns:
            `(elbo [batch], {"reconstruction": [batch], "kl": [batch]})` in nats, with
            `elbo = reconstruction - kl`.
        """
        q = self.encode(params, x)
        reconstruction = self.log_likelihood(params, x, q.sample(key))
        kl = self.latent.kl(q)
        return reconstruction - kl, {"reconstruction": reconstruction, "kl": kl}

    def freeze_statistics(self, params: Params, x: jax.Array) -> Params:
        """Makes parameters with which one example is encoded like any other.

        Args:
            params: of `init`.
            x: a large part of the training set, [n, ...].

        Returns:
            For `BatchNormLatent` the parameters with the statistics of `x`; otherwise
            the same parameters.
        """
        if not isinstance(self.latent, BatchNormLatent):
            return params
        features = self.encoder_net.apply(params["encoder"], x)
        return {**params, "latent": self.latent.freeze(params["latent"], features)}
