"""The loss under test, and its arguments as flat lists of arrays."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from expkit.testing.comparison import assert_trees_close

Arrays = Sequence[Any]


@dataclasses.dataclass(frozen=True)
class LossCase:
    """A loss, example arguments and what its suite may assume; see `check_loss`.

    The leaves of the arguments are of three kinds: `inputs`, floating-point and
    differentiated; `data`, the other arrays; and static values such as `axis=-1`.

    Attributes:
        loss_fn: what `wrap` is applied to.
        wrap: builds the loss under test from `loss_fn`.
        args: positional arguments.
        kwargs: keyword arguments.
        argnums: positions of the differentiated arguments.
        mask_name: keyword of the mask, or None.
        masked_argnums: positions of the arguments that the mask covers, or None.
        empty_value: value per output when the mask selects nothing, or None.
        extremes: values to fill the inputs with.
        elementwise: whether outputs keep the dtype of the inputs.
        second_order: whether to check the second derivative.
        gradient_rtol: relative tolerance of the finite differences.
        rtol: relative tolerance between two float32 programs.
        atol: absolute tolerance, likewise.
    """

    loss_fn: Callable[..., Any]
    wrap: Callable[[Callable[..., Any]], Callable[..., Any]]
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    argnums: tuple[int, ...]
    mask_name: str | None
    masked_argnums: tuple[int, ...] | None
    empty_value: float | None
    extremes: tuple[float, ...]
    elementwise: bool
    second_order: bool
    gradient_rtol: float
    rtol: float
    atol: float

    def leaves(self) -> list[tuple[str, Any, str]]:
        """Lists the leaves of the arguments.

        Returns:
            `(path, leaf, kind)`, kind being `"input"`, `"data"` or `"static"`.
        """
        result = []
        paths = jax.tree.flatten_with_path((self.args, dict(self.kwargs)))[0]
        for path, leaf in paths:
            position = getattr(path[1], "idx", None) if path[0].idx == 0 else None
            if not isinstance(leaf, (jax.Array, np.ndarray)):
                kind = "static"
            elif position in self.argnums and is_floating(leaf):
                kind = "input"
            else:
                kind = "data"
            if kind != "static":
                leaf = jnp.asarray(leaf)
            place = "args" if path[0].idx == 0 else "kwargs"
            result.append((place + jax.tree_util.keystr(path[1:]), leaf, kind))
        return result

    def inputs(self) -> list[Any]:
        """Lists the differentiated arrays.

        Returns:
            Leaves of kind `"input"`, in order.
        """
        return [leaf for _, leaf, kind in self.leaves() if kind == "input"]

    def data(self) -> list[Any]:
        """Lists the arrays that are not differentiated.

        Returns:
            Leaves of kind `"data"`, in order.
        """
        return [leaf for _, leaf, kind in self.leaves() if kind == "data"]

    def call(
        self,
        inputs: Arrays,
        data: Arrays,
        loss: Callable[..., Any] | None = None,
    ) -> Any:
        """Calls the loss with its arrays replaced.

        Args:
            inputs: as `inputs()`.
            data: as `data()`.
            loss: by default `wrap(loss_fn)`.

        Returns:
            What the loss returns.
        """
        sources = {"input": iter(inputs), "data": iter(data)}
        structure = jax.tree.structure((self.args, dict(self.kwargs)))
        args, kwargs = structure.unflatten(
            leaf if kind == "static" else next(sources[kind])
            for _, leaf, kind in self.leaves()
        )
        loss = self.wrap(self.loss_fn) if loss is None else loss
        return loss(*args, **kwargs)

    def total(self, inputs: Arrays, data: Arrays) -> jax.Array:
        """Sums the outputs, in at least float32.

        Args:
            inputs: as `inputs()`.
            data: as `data()`.

        Returns:
            Scalar.
        """
        return sum_outputs(self.call(inputs, data))

    def value_and_gradient(self, inputs: Arrays, data: Arrays) -> tuple[Any, list]:
        """Evaluates the loss and the gradient of `total`.

        Args:
            inputs: as `inputs()`.
            data: as `data()`.

        Returns:
            Outputs of the loss, and a list like `inputs`.
        """

        def with_outputs(inputs: Arrays) -> tuple[jax.Array, Any]:
            outputs = self.call(inputs, data)
            return sum_outputs(outputs), outputs

        gradient, outputs = jax.grad(with_outputs, has_aux=True)(list(inputs))
        return outputs, gradient

    def assert_close(self, got: Any, expected: Any, what: str) -> None:
        """Compares the results of two float32 programs for the same arithmetic.

        Args:
            got: pytree of arrays.
            expected: pytree of arrays.
            what: what is compared.

        Raises:
            AssertionError: naming the first leaf that differs.
        """
        assert_trees_close(got, expected, what, rtol=self.rtol, atol=self.atol)

    def mask(self) -> tuple[int, np.ndarray]:
        """Finds the mask among the data.

        Returns:
            Its index in `data()`, and its value.
        """
        names = [path for path, _, kind in self.leaves() if kind == "data"]
        index = names.index(f"kwargs['{self.mask_name}']")
        return index, np.asarray(self.data()[index])


def is_floating(leaf: ArrayLike) -> bool:
    """Tells whether an array can be differentiated.

    Args:
        leaf: array or scalar.

    Returns:
        True for floating-point dtypes, bfloat16 included.
    """
    return jnp.issubdtype(jnp.result_type(leaf), jnp.floating)


def sum_outputs(outputs: Any) -> jax.Array:
    """Sums all elements of all outputs, in at least float32.

    Args:
        outputs: pytree of arrays.

    Returns:
        Scalar.
    """
    sums = [
        jnp.sum(x.astype(jnp.promote_types(x.dtype, jnp.float32)))
        for x in map(jnp.asarray, jax.tree.leaves(outputs))
    ]
    return sum(sums[1:], start=sums[0])


def cast_floating(leaves: Arrays, dtype: Any) -> list[Any]:
    """Casts the floating-point arrays of a list, without jax's default precision.

    Args:
        leaves: arrays.
        dtype: the floating-point dtype wanted.

    Returns:
        numpy arrays.
    """
    host = [np.asarray(leaf) for leaf in leaves]
    return [leaf.astype(dtype) if is_floating(leaf) else leaf for leaf in host]
