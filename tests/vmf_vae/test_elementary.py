"""The small functions against NumPy, and where a square would overflow."""

import jax
import jax.numpy as jnp
import numpy as np

from vmf_vae import elementary


def test_polynomials():
    coefficients = (2.0, -3.0, 0.5)
    x = jnp.linspace(-1.0, 1.0, 5)
    np.testing.assert_allclose(
        elementary.horner(coefficients, x), np.polyval(coefficients, x), rtol=1e-6
    )


def test_secant_is_that_of_float64_before_and_after_its_square_overflows():
    z = np.array([0.0, 1e-30, 0.5, 3.0, 1e5, 4e9, 5e9, 2e19, 1e30, 3e38], np.float32)
    exact = np.sqrt(1.0 + z.astype(np.float64) ** 2)
    np.testing.assert_allclose(elementary.secant(z), exact, rtol=1.2e-7)
    naive = jnp.sqrt(1.0 + jnp.square(z))  # the negative control
    assert np.isinf(naive[-1])
    slope = jax.vmap(jax.grad(elementary.secant))(z)
    np.testing.assert_allclose(slope, z / exact, rtol=1.2e-7)
    assert np.isnan(elementary.secant(jnp.nan))
    assert elementary.secant(jnp.inf) == np.inf
