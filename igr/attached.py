"""Scalars with a supplied gradient: what the penalties of this package are built on.

The gradient of a penalty on a gradient is a Hessian-vector product, and reverse mode
over reverse mode is the dearest way to get one. Here a scalar comes with a function
that returns its gradient, so the caller chooses the way, and all around it (`grad`,
`jvp`, `vmap`, `jit`, a further derivative) works as for any JAX function, because the
gradient is itself written in JAX.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.custom_derivatives import SymbolicZero

from expkit import trees

Leaves = list[jax.Array]
# `(leaves, wanted) -> (value, gradient of the wanted leaves)`.
Gradient = Callable[[Leaves, Sequence[int]], tuple[jax.Array, Leaves]]


class Call(NamedTuple):
    """One call of a loss, seen as a function of floating-point arrays alone.

    Attributes:
        loss: `leaves -> (scalar, aux)`; integers, keys and static values are inside.
        leaves: floating-point arrays of the arguments, then those the loss closes over.
        target: positions of the leaves of the argument that is penalised.
        has_aux: whether `aux` is anything but None.
    """

    loss: Callable[[Leaves], tuple[jax.Array, Any]]
    leaves: Leaves
    target: list[int]
    has_aux: bool = False


def is_float(leaf: Any) -> bool:
    """Whether a leaf is an array to differentiate; a Python number is not."""
    return hasattr(leaf, "dtype") and jnp.issubdtype(leaf.dtype, jnp.floating)


def position(argnum: int, num_args: int) -> int:
    """The argument that `argnum` means, counted from 0; ValueError if there is none."""
    if not -num_args <= argnum < num_args:
        raise ValueError(
            f"argnum={argnum} is not among the {num_args} positional arguments of the "
            "call; pass the penalised argument by position."
        )
    return argnum % num_args


def as_floats(argnum: int, tree: Any) -> Any:
    """The penalised argument as arrays; TypeError if a leaf is not floating-point."""

    def convert(path, leaf):
        x = jnp.asarray(leaf) if isinstance(leaf, float) else leaf
        if not is_float(x):
            name = jax.tree_util.keystr(path)
            kind = getattr(x, "dtype", type(x).__name__)
            raise TypeError(
                f"argument {argnum} must hold floating-point arrays, got {kind}"
                f"{f' at {name}' if name else ''}; keep it out of the argument that is "
                "penalised."
            )
        return x

    return jax.tree_util.tree_map_with_path(convert, tree)


def scalar_loss(
    loss_fn: Callable[..., Any], *, has_aux: bool
) -> Callable[..., tuple[jax.Array, Any]]:
    """The loss as `-> (scalar, aux)`; ValueError if it returns anything else."""

    def checked(*args, **kwargs):
        output = loss_fn(*args, **kwargs)
        if has_aux and not (isinstance(output, tuple) and len(output) == 2):
            raise ValueError(
                "with has_aux=True, loss_fn must return (loss, aux), got "
                f"{type(output).__name__}."
            )
        loss, aux = output if has_aux else (output, None)
        if jnp.shape(loss) != () or not jnp.issubdtype(
            jnp.result_type(loss), jnp.floating
        ):
            shown = jax.tree.map(lambda x: jax.typeof(x).str_short(), loss)
            hint = "" if has_aux else " or, for a pair (loss, aux), has_aux=True"
            raise ValueError(
                f"loss_fn must return one floating-point scalar, got {shown}; take a "
                f"mean{hint}."
            )
        return jnp.asarray(loss), aux

    return checked


def make_call(
    loss: Callable[..., tuple[jax.Array, Any]],
    argnum: int,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    *,
    has_aux: bool = False,
) -> Call:
    """Splits off what can be differentiated, in the arguments and in the closure."""
    index = position(argnum, len(args))
    args = (*args[:index], as_floats(argnum, args[index]), *args[index + 1 :])
    everything, treedef = jax.tree.flatten((args, kwargs))
    places = [i for i, leaf in enumerate(everything) if is_float(leaf)]
    start = len(jax.tree.leaves(args[:index]))
    stop = start + len(jax.tree.leaves(args[index]))

    def of_leaves(*leaves):
        filled = replace(everything, places, leaves)
        args, kwargs = jax.tree.unflatten(treedef, filled)
        return loss(*args, **kwargs)

    leaves = [jnp.asarray(everything[i]) for i in places]
    converted, closed_over = jax.closure_convert(of_leaves, *leaves)
    target = [n for n, i in enumerate(places) if start <= i < stop]
    return Call(
        lambda leaves: converted(*leaves), leaves + closed_over, target, has_aux
    )


def replace(
    leaves: Sequence[Any], places: Sequence[int], values: Sequence[Any]
) -> list[Any]:
    """A copy of a list with other values at some places."""
    new = list(leaves)
    for place, value in zip(places, values, strict=True):
        new[place] = value
    return new


def attach_gradient(
    value_fn: Callable[[Leaves], tuple[jax.Array, Any]],
    gradient_fn: Gradient,
    leaves: Leaves,
    aux_fn: Callable[[Leaves], Any] | None = None,
) -> tuple[jax.Array, Any]:
    """Evaluates a scalar whose derivative is taken from `gradient_fn`.

    The gradient is asked for only where it is needed: with respect to the leaves that
    are differentiated, and not at all when nothing is.

    Args:
        value_fn: `leaves -> (value, aux)`.
        gradient_fn: `(leaves, wanted) -> (value, gradients)`.
        leaves: floating-point arrays, all that the functions depend on.
        aux_fn: `leaves -> aux` alone, whose derivative is that of `aux`; under `jit` it
            costs nothing where that is not used. None if `aux` is None.

    Returns:
        `value_fn(leaves)`.
    """
    dtypes = [jnp.result_type(leaf) for leaf in leaves]

    @jax.custom_jvp
    def evaluate(*leaves):
        return value_fn(list(leaves))

    def rule(primals, tangents):
        wanted = [i for i, t in enumerate(tangents) if not isinstance(t, SymbolicZero)]
        # Python numbers reach a rule where a number is differentiated in forward mode.
        primals = [jnp.asarray(x, d) for x, d in zip(primals, dtypes, strict=True)]
        moving = [jnp.asarray(tangents[i], dtypes[i]) for i in wanted]
        value, gradients = gradient_fn(primals, wanted)
        tangent = jnp.asarray(trees.inner_product(gradients, moving), value.dtype)
        if aux_fn is None:
            return (value, None), (tangent, None)

        def aux_of(*values):
            return aux_fn(replace(primals, wanted, values))

        here = tuple(primals[i] for i in wanted)
        aux, aux_tangent = jax.jvp(aux_of, here, tuple(moving))
        return (value, aux), (tangent, aux_tangent)

    evaluate.defjvp(rule, symbolic_zeros=True)
    return evaluate(*leaves)
