"""Properties checked on generated cases: a few in CI, thousands in the slow suite.

    PROPERTIES = properties.Properties("lion")

    @PROPERTIES.of("scale_by_lion", cases=300, gradients=properties.arrays())
    def test_negated_gradients_negate_the_update(gradients): ...

The decorated function becomes a slow test, `many`, which fails if hypothesis finds
fewer different cases than were promised; with `short=True`, CI runs a `few` of them.
What is generated depends on the code alone, so two runs see the same cases.
"""

import functools
from collections.abc import Callable, Iterable
from typing import Any

import hypothesis
import hypothesis.extra.numpy as hnp
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest

FEW = 3
ENOUGH = 2000
# Empty ones first: hypothesis starts with, and shrinks to, the first.
SHAPES = ((0,), (), (5,), (2, 3))
DTYPES = {
    "float32": np.dtype(np.float32),
    "float16": np.dtype(np.float16),
    "bfloat16": np.dtype(ml_dtypes.bfloat16),
}
LAYOUTS = ("plain", "strided", "reversed", "fortran", "readonly", "jax")
# The last two are subnormal in float32, which the CPU takes for 0.
SPECIAL = (0.0, -0.0, 1.0, -1.0, 1e-30, -1e-30, 1e4, -1e4, 1e30, 1e-40, -1e-40)
NOT_FINITE = (np.inf, -np.inf, np.nan)


class Properties:
    """The properties of one package.

    Attributes:
        package: its name.
        cases: how many cases the slow run has, for every property.
    """

    def __init__(self, package: str):
        self.package = package
        self.cases: dict[str, int] = {}
        self._names: set[str] = set()

    def of(
        self, *names: str, cases: int, short: bool = False, **strategies: Any
    ) -> Callable:
        """Makes a test of a function of generated values.

        Args:
            *names: the public names it is about.
            cases: how many cases the slow run has.
            short: whether CI runs a few of them. Few tests are cheap enough.
            **strategies: for each argument, where its values come from.

        Returns:
            A decorator.
        """
        self._names.update(names)

        def decorate(check):
            self.cases[check.__name__] = cases
            sizes = ["few"] if short else []
            many = pytest.param("many", marks=pytest.mark.slow)

            @pytest.mark.parametrize("size", [*sizes, many])
            def test(size, record_property):
                wanted = cases if size == "many" else min(FEW, cases)
                done = run(check, strategies, wanted)
                record_property("cases", done)
                assert done >= wanted, f"only {done} different cases of {wanted}"

            test.__name__ = check.__name__
            test.__doc__ = check.__doc__
            test.__module__ = check.__module__
            return test

        return decorate

    def check(self, public_names: Iterable[str]) -> None:
        """Fails unless every public name has a property, and the cases are enough.

        Args:
            public_names: `__all__` of the package.
        """
        missing = sorted(set(public_names) - self._names)
        assert not missing, f"no property of {', '.join(missing)}"
        unknown = sorted(self._names - set(public_names))
        assert not unknown, f"not in __all__ of {self.package}: {', '.join(unknown)}"
        total = sum(self.cases.values())
        print(f"{self.package}: {len(self.cases)} properties, {total} cases")
        assert total > ENOUGH, f"{total} cases of {self.package}"


def run(check: Callable, strategies: dict[str, Any], max_examples: int) -> int:
    """Runs a check on generated cases.

    Args:
        check: takes one value from each strategy, and raises if the property fails.
        strategies: by name of the argument.
        max_examples: how many cases to generate.

    Returns:
        How many cases passed: fewer if there are no more different ones.
    """
    passed = 0

    @functools.wraps(check)
    def counted(**values):
        nonlocal passed
        check(**values)
        passed += 1

    settings = hypothesis.settings(
        derandomize=True,
        deadline=None,
        database=None,
        max_examples=max_examples,
        # Compiling is slow, and says nothing about the strategy.
        suppress_health_check=[
            hypothesis.HealthCheck.too_slow,
            hypothesis.HealthCheck.data_too_large,
        ],
    )
    settings(hypothesis.given(**strategies)(counted))()
    return passed


def numbers(
    largest: float = 8.0, *, special: Iterable[float] = SPECIAL
) -> st.SearchStrategy[float]:
    """Moderate numbers, often equal to each other, and special ones.

    Args:
        largest: magnitude of the moderate ones.
        special: values that are generated as they are.

    Returns:
        A strategy of floats.
    """
    special = tuple(special)
    moderate = st.floats(-largest, largest, width=32, allow_subnormal=False)
    few = st.integers(-2, 2).map(float)
    return st.one_of(few, moderate, *([st.sampled_from(special)] if special else []))


@st.composite
def arrays(
    draw,
    shapes: Iterable[tuple[int, ...]] = SHAPES,
    dtypes: Iterable[str] = tuple(DTYPES),
    elements: st.SearchStrategy[float] | None = None,
    layouts: Iterable[str] = LAYOUTS,
):
    """An array: its shape, dtype, entries and layout in memory vary.

    Args:
        draw: given by hypothesis.
        shapes: the shapes it may have.
        dtypes: names of the dtypes it may have.
        elements: strategy of the entries; `numbers()` if None.
        layouts: how it may lie in memory.

    Returns:
        A NumPy or JAX array. Entries too large for the dtype are infinite.
    """
    shape = draw(st.sampled_from(tuple(shapes)))
    dtype = draw(st.sampled_from(tuple(dtypes)))
    return draw(filled(shape, dtype, elements, layouts=layouts))


@st.composite
def filled(
    draw,
    shape: tuple[int, ...],
    dtype: str = "float32",
    elements: st.SearchStrategy[float] | None = None,
    layouts: Iterable[str] = LAYOUTS,
):
    """An array of a given shape and dtype.

    Args:
        draw: given by hypothesis.
        shape: its shape.
        dtype: name of its dtype.
        elements: strategy of the entries; `numbers()` if None.
        layouts: how it may lie in memory.

    Returns:
        A NumPy or JAX array.
    """
    elements = numbers() if elements is None else elements
    values = draw(hnp.arrays(np.float64, shape, elements=elements, fill=st.nothing()))
    with np.errstate(over="ignore"):
        values = values.astype(DTYPES.get(dtype, dtype))
    if dtype == "float64":  # JAX would narrow it
        layouts = [layout for layout in layouts if layout != "jax"]
    return lay_out(values, draw(st.sampled_from(tuple(layouts))))


def masks(shape: tuple[int, ...]) -> st.SearchStrategy[np.ndarray]:
    """Boolean arrays, all False and all True among them.

    Args:
        shape: of the mask.

    Returns:
        A strategy of NumPy arrays.
    """
    return st.one_of(
        st.just(np.zeros(shape, bool)),
        st.just(np.ones(shape, bool)),
        hnp.arrays(bool, shape, elements=st.booleans(), fill=st.nothing()),
    )


def lay_out(values: np.ndarray, layout: str) -> Any:
    """The same array, lying in memory in another way.

    Args:
        values: any NumPy array.
        layout: one of `LAYOUTS`, or `"list"` for nested Python lists.

    Returns:
        An array (or list) with equal entries.
    """
    if layout == "jax":
        return jnp.asarray(values)
    if layout == "list":
        return values.tolist()
    if values.ndim and layout == "fortran":
        return np.asfortranarray(values)
    if layout == "readonly":
        values = values.copy()
        values.flags.writeable = False
    if values.ndim and layout == "strided":
        wide = np.zeros((*values.shape[:-1], 2 * values.shape[-1]), values.dtype)
        wide[..., ::2] = values
        return wide[..., ::2]
    if values.ndim and layout == "reversed":
        return np.ascontiguousarray(values[::-1])[::-1]
    return values


def wide(x: Any) -> np.ndarray:
    """The entries in float64, for an oracle.

    Args:
        x: array of any dtype and layout.

    Returns:
        A NumPy array; what the CPU takes for 0 in float32 is 0.
    """
    dtype = np.asarray(x).dtype
    values = np.asarray(x).astype(np.float64)
    if dtype in (np.float32, DTYPES["bfloat16"]):
        values = np.where(np.abs(values) < np.finfo(np.float32).tiny, 0.0, values)
    return values


def smallest(dtype: Any) -> float:
    """The smallest number that the CPU does not take for 0.

    Args:
        dtype: a floating-point dtype.

    Returns:
        The smallest normal number; for float16, which is computed in float32, the
        smallest subnormal one.
    """
    info = jnp.finfo(dtype)
    is_half = info.dtype == np.float16
    return float(info.smallest_subnormal if is_half else info.tiny)


def assert_close(
    actual: Any, desired: Any, *, roundings: float, size: Any = 0.0, dtype: Any = None
) -> None:
    """Compares with an oracle, to a number of roundings of the arithmetic.

    Args:
        actual: what the code under test returned.
        desired: what it should be, in float64.
        roundings: how many roundings of half a unit in the last place may add up.
        size: magnitude of what was added up, where that cancels.
        dtype: of the arithmetic; that of `actual` if None. If `actual` has another, one
            rounding to that is allowed besides.
    """
    stored = jnp.finfo(actual.dtype)
    info = stored if dtype is None else jnp.finfo(dtype)
    actual, desired = (np.asarray(x, np.float64) for x in (actual, desired))
    assert actual.shape == desired.shape
    size = np.broadcast_to(np.maximum(np.abs(desired), size), desired.shape)
    allowed = roundings * (float(info.eps) / 2 * size + smallest(info.dtype))
    if stored.dtype != info.dtype:
        last = float(stored.eps) / 2 * (np.abs(desired) + allowed)
        allowed = allowed + last + smallest(stored.dtype)
    largest = float(stored.max)
    is_known = np.isfinite(desired)
    # Near the largest number an error decides whether there is an overflow.
    overflows = is_known & (np.abs(desired) + allowed > largest) & np.isinf(actual)
    is_known &= ~overflows
    expected = np.where(np.isnan(desired), desired, np.copysign(np.inf, desired))
    np.testing.assert_array_equal(actual[~is_known], expected[~is_known])
    excess = np.abs(actual[is_known] - desired[is_known]) - allowed[is_known]
    worst = np.max(excess, initial=-np.inf)
    assert worst <= 0, f"{actual} differs from {desired} by {worst} too much"


def copies(x: Any) -> list[Any]:
    """The same values in every layout.

    Args:
        x: array.

    Returns:
        A list of arrays.
    """
    return [lay_out(np.asarray(x), layout) for layout in LAYOUTS]


def same(a: Any, b: Any) -> None:
    """Fails unless two pytrees have the same structure, dtypes and bits.

    Args:
        a: one.
        b: the other.
    """
    assert jax.tree.structure(a) == jax.tree.structure(b)
    for one, two in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        one, two = np.asarray(one), np.asarray(two)
        assert one.dtype == two.dtype
        if one.dtype == DTYPES["bfloat16"]:  # NumPy does not know its nan
            one, two = np.float64(one), np.float64(two)
        np.testing.assert_array_equal(one, two)
