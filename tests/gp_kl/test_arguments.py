"""Masks of spans are boolean and may be broadcast."""

import numpy as np
import pytest

from gp_kl import arguments


def test_masks_are_boolean_and_may_be_broadcast():
    with pytest.raises(TypeError, match="where must be boolean"):
        arguments.broadcast_mask(np.ones(3), (2, 3))
    assert arguments.broadcast_mask(None, (2, 3)).all()
    mask = arguments.broadcast_mask(np.array([True, False, True]), (2, 3))
    np.testing.assert_array_equal(mask, [[True, False, True]] * 2)
    with pytest.raises(ValueError, match="where must broadcast"):
        arguments.broadcast_mask(np.ones(4, bool), (2, 3))
