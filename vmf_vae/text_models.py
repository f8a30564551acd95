r"""A variational autoencoder of texts, where the KL is known to vanish.

The decoder sees the characters before the one that it predicts and can do without the
latent vector. A Gaussian posterior then falls back to its prior (Bowman et al. 2016).
With a fixed concentration (`VMFLatent`), or with normalised means (`BatchNormLatent`),
it cannot.

Differences from the papers: characters instead of words; one layer of gated units; the
latent vector is part of every input, as in Xu & Durrett (2018).

>>> model = TextVAE(VMFLatent(8, 20.0), vocab_size=50, max_length=6, width=16)
>>> params = model.init(jax.random.key(0))
>>> elbo, parts = model.elbo(params, jnp.ones((4, 6), jnp.int32), jax.random.key(1))
>>> elbo.shape
(4,)
"""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from expkit import nets
from vmf_vae import recurrent_networks
from vmf_vae.autoencoder import VAE, Latent, Params
from vmf_vae.elementary import vary_like, wide_dtype
from vmf_vae.recurrent_networks import PAD

START, UNKNOWN = 1, 2


@dataclasses.dataclass(frozen=True, eq=False)
class TextVAE(VAE):
    r"""A recurrent autoencoder of characters.

    A row of ids is a text, then padding (id 0). The first padding is the end of the
    text and is predicted like a character; the rest counts nothing. Id 1 is the input
    of the first step, id 2 stands for unknown and for dropped characters.

    Attributes:
        latent_variable: `GaussianLatent`, `BatchNormLatent` or `VMFLatent`.
        vocab_size: number of ids, at least 3.
        max_length: columns of a row.
        width: of embeddings and states.
        word_dropout: probability that an input of the decoder is hidden in training.
        output_bias: initial bias of the logits, [vocab_size]; None is zeros.

    References:
        Bowman et al., *Generating Sentences from a Continuous Space*, 2016, section 3.
        https://arxiv.org/abs/1511.06349
    """

    latent_variable: Latent
    vocab_size: int
    max_length: int
    width: int = 64
    word_dropout: float = 0.0
    output_bias: np.ndarray | None = None

    def __post_init__(self) -> None:
        """Raises ValueError for a setting that cannot be used."""
        if self.vocab_size < 3 or self.max_length < 1:
            raise ValueError(
                "vocab_size must be at least 3 and max_length at least 1, got "
                f"{self.vocab_size!r} and {self.max_length!r}."
            )
        if not 0.0 <= self.word_dropout < 1.0:
            raise ValueError(
                f"word_dropout must be in [0, 1), got {self.word_dropout!r}."
            )
        _ = self.encoder_net, self.decoder_net  # which check the rest

    @property
    def latent(self) -> Latent:
        """The latent variable."""
        return self.latent_variable

    @functools.cached_property
    def encoder_net(self) -> nets.Net:
        """From ids to the features of the posterior."""
        features = self.latent.num_features
        return recurrent_networks.text_encoder(
            self.vocab_size, width=self.width, num_features=features
        )

    @functools.cached_property
    def decoder_net(self) -> nets.Net:
        """From ids and a latent vector to logits."""
        return recurrent_networks.text_decoder(
            self.vocab_size,
            width=self.width,
            latent_dim=self.latent.dim,
            output_bias=self.output_bias,
        )

    def decode(
        self, params: Params, x: jax.Array, z: jax.Array, key: jax.Array | None = None
    ) -> jax.Array:
        """Logits of every character, given those before it.

        Args:
            params: of `init`.
            x: ids [batch, n].
            z: latent vectors [batch, dim].
            key: of the word dropout; None hides nothing.

        Returns:
            [batch, n, vocab_size].
        """
        visible = x
        if key is not None and self.word_dropout > 0:
            is_hidden = jax.random.bernoulli(key, self.word_dropout, x.shape)
            visible = jnp.where(is_hidden & (x != PAD), UNKNOWN, x)
        first = jnp.full((len(x), 1), START, x.dtype)
        shifted = jnp.concatenate([first, visible[:, :-1]], axis=1)
        inputs: Any = (shifted, z)
        return self.decoder_net.apply(params["decoder"], inputs)

    def log_likelihood(
        self,
        params: Params,
        x: jax.Array,
        z: jax.Array,
        key: jax.Array | None = None,
    ) -> jax.Array:
        r""":math:`\log p(x \mid z)`, summed over the characters and the end.

        Args:
            params: of `init`.
            x: ids [batch, n].
            z: latent vectors [batch, dim].
            key: of the word dropout; None hides nothing.

        Returns:
            [batch], float32 or wider.
        """
        logits = self.decode(params, x, z, key)
        logits = logits.astype(wide_dtype(logits.dtype))
        log_p = jnp.take_along_axis(jax.nn.log_softmax(logits), x[..., None], axis=-1)
        return jnp.sum(log_p[..., 0], axis=1, where=is_predicted(x))

    def elbo(
        self,
        params: Params,
        x: jax.Array,
        key: jax.Array,
        *,
        is_training: bool = False,
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        """The evidence lower bound of each text, by one draw of the posterior.

        Args:
            params: of `init`.
            x: ids [batch, n].
            key: typed PRNG key.
            is_training: whether inputs of the decoder are hidden.

        Returns:
            `(elbo [batch], {"reconstruction": [batch], "kl": [batch]})` in nats.
        """
        draw_key, dropout_key = jax.random.split(key)
        q = self.encode(params, x)
        hide = dropout_key if is_training else None
        reconstruction = self.log_likelihood(params, x, q.sample(draw_key), hide)
        kl = self.latent.kl(q)
        return reconstruction - kl, {"reconstruction": reconstruction, "kl": kl}

    def generate(self, params: Params, z: jax.Array, key: jax.Array) -> jax.Array:
        """Draws a text for each latent vector, one character after the other.

        Args:
            params: of `init`.
            z: latent vectors [n, dim].
            key: typed PRNG key.

        Returns:
            Ids [n, max_length], padded after the end.
        """
        ids = jnp.full((len(z), self.max_length), PAD, jnp.int32)
        ids = vary_like(ids, *jax.tree.leaves((params, z, key)))

        def body(i, ids):
            # Only column i is read; running the whole row keeps this to one function.
            logits = self.decode(params, ids, z)[:, i]
            drawn = jax.random.categorical(jax.random.fold_in(key, i), logits)
            before = ids[:, jnp.maximum(i - 1, 0)]
            is_over = (i > 0) & (before == PAD)
            return ids.at[:, i].set(jnp.where(is_over, PAD, drawn))

        return jax.lax.fori_loop(0, self.max_length, body, ids)

    def sample(self, params: Params, key: jax.Array, num_samples: int) -> jax.Array:
        """Draws z from the prior and a text for it.

        Args:
            params: of `init`.
            key: typed PRNG key.
            num_samples: n.

        Returns:
            Ids [n, max_length].
        """
        prior_key, text_key = jax.random.split(key)
        z = self.latent.prior_sample(prior_key, num_samples)
        return self.generate(params, z, text_key)


def is_predicted(ids: jax.Array) -> jax.Array:
    """Which positions count: the characters, and the first padding as their end.

    Args:
        ids: [batch, n].

    Returns:
        bool [batch, n]. A text that fills its row has no end.
    """
    before = jnp.pad(ids[:, :-1], ((0, 0), (1, 0)), constant_values=START)
    return (ids != PAD) | (before != PAD)
