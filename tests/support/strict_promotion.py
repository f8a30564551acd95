"""What a function gives where JAX promotes no dtypes by itself."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import pytest

from expkit import testing


def assert_the_same(call: Callable[[], Any]) -> None:
    """Compares a call under strict promotion with the plain one, bit for bit."""
    wanted = call()
    with jax.numpy_dtype_promotion("strict"):
        with pytest.raises(ValueError, match="implicit dtype promotion"):
            jnp.ones(2) + jnp.ones(2, bool)  # the control
        got = call()
    testing.assert_trees_equal(got, wanted, "outcome")
