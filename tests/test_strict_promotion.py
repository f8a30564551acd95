"""Every public function is traced under JAX's strict promotion of dtypes.

Libraries that test with it meet no array of ours that is promoted in silence: mixed
dtypes are cast where they meet, and only Python numbers are weak.
"""

import export_cases
import jax
import jax.numpy as jnp
import pytest


@pytest.mark.parametrize(
    "name",
    [
        # CI lowers the others under strict promotion, in `test_export.py`.
        pytest.param(name, marks=() if name in export_cases.ALIKE else pytest.mark.slow)
        for name in export_cases.CASES
    ],
)
def test_no_dtypes_are_promoted_in_silence(name):
    fn, args = export_cases.CASES[name]()
    with jax.numpy_dtype_promotion("strict"):
        jax.eval_shape(fn, *args)


def test_two_dtypes_that_meet_are_refused():  # the control
    with (
        jax.numpy_dtype_promotion("strict"),
        pytest.raises(ValueError, match="dtype promotion"),
    ):
        jax.eval_shape(lambda x, n: x * n, jnp.ones(2), jnp.ones(2, int))
