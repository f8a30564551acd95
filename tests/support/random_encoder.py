"""Parameters of a BERT, drawn by numpy: nothing is compiled, no leaf is constant."""

import jax
import jax.numpy as jnp
import numpy as np

from expkit import text


def random_params(config, seed=0, draw=None):
    """In the structure of `init_encoder`, of `draw(rng, shape)`, by default normal."""
    rng = np.random.default_rng(seed)
    draw = draw or (lambda rng, shape: 0.3 * rng.standard_normal(shape))
    shapes = jax.eval_shape(lambda key: text.init_encoder(config, key), _KEY)
    return jax.tree.map(
        lambda leaf: jnp.asarray(draw(rng, leaf.shape).astype(np.float32)), shapes
    )


_KEY = jax.eval_shape(lambda: jax.random.key(0))
