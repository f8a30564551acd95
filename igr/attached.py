"""Scalars with a supplied gradient: what the penalties of this package are built on.

The gradient of a penalty on a gradient is a Hessian-vector product, and reverse mode
over reverse mode is the dearest way to get one. Here a scalar comes with a function
that returns its gradient, so the caller chooses the way, and all around it (`grad`,
`jvp`, `vmap`, `jit`, a further derivative) works as for any JAX function, because the
gradient is itself written in JAX.

A custom derivative must see all that it depends on as arguments. So the arguments of a
loss are split into floating-point arrays, other arrays and static values, and what the
loss closes over joins the first two (`without_closure`). Inside of `jax.shard_map` the
arguments count as parts where any of them is one: each device penalises the gradient of
its own loss, and the gradient of what all devices share is the sum over them, as ever.
"""

from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.custom_derivatives import SymbolicZero

from expkit import explicit, trees
from igr.arguments import as_floats, is_array, is_float, position, require_callable

Arrays = list[jax.Array]
Loss = Callable[..., tuple[Any, Any]]


class Call(NamedTuple):
    """One call of a loss, as a function of arrays alone.

    Attributes:
        loss: `(floats, others) -> (scalar, aux)`.
        floats: the floating-point arrays it depends on, those it closes over last.
        others: its integers, booleans and keys, likewise.
        target: positions in `floats` of the argument that is penalised.
        has_aux: whether `aux` is anything but None.
    """

    loss: Loss
    floats: Arrays
    others: Arrays
    target: list[int]
    has_aux: bool = False

    def without_arrays(self) -> "Call":
        """What the functions of a custom derivative may keep of a call.

        They are given arrays when they are called. Those of this call would be leaked
        tracers there, and would keep all that they depend on in memory.

        Returns:
            The call with empty `floats` and `others`.
        """
        return self._replace(floats=[], others=[])


def scalar_loss(loss_fn: Callable[..., Any], *, has_aux: bool) -> Loss:
    """The loss in the form that this module works with.

    Args:
        loss_fn: `(*args, **kwargs) -> scalar`, or `(scalar, aux)`.
        has_aux: which of the two.

    Returns:
        `(*args, **kwargs) -> (scalar, aux)`, with None for want of an `aux`. It raises
        ValueError where `loss_fn` does not return what it should.
    """
    require_callable("loss_fn", loss_fn)

    def checked(*args, **kwargs):
        output = loss_fn(*args, **kwargs)
        if has_aux and not (isinstance(output, tuple) and len(output) == 2):
            raise ValueError(
                "with has_aux=True, loss_fn must return (loss, aux), got "
                f"{type(output).__name__}."
            )
        loss: Any = output[0] if has_aux else output
        aux: Any = output[1] if has_aux else None
        is_array = jax.tree.structure(loss) == jax.tree.structure(0)
        if not (is_array and jnp.shape(loss) == () and is_float(jnp.asarray(loss))):
            shown = jax.tree.map(lambda x: jax.typeof(x).str_short(), loss)
            hint = "" if has_aux else " or, for a pair (loss, aux), has_aux=True"
            raise ValueError(
                f"loss_fn must return one floating-point scalar, got {shown}; take a "
                f"mean{hint}."
            )
        for path, leaf in jax.tree_util.tree_leaves_with_path(aux):
            if not (hasattr(leaf, "dtype") or isinstance(leaf, (int, float, complex))):
                name = f"aux{jax.tree_util.keystr(path)}"
                raise TypeError(f"{name} must be an array or a number, got {leaf!r}.")
        return jnp.asarray(loss), aux

    return checked


def make_call(
    loss: Loss,
    argnum: int,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    *,
    has_aux: bool = False,
) -> Call:
    """Splits the arguments of a call, and what the loss closes over.

    Args:
        loss: `(*args, **kwargs) -> (scalar, aux)`, from `scalar_loss`.
        argnum: the positional argument that is penalised.
        args: positional arguments, pytrees of arrays and static values.
        kwargs: keyword arguments, likewise.
        has_aux: whether `aux` is anything but None.

    Returns:
        The call; its arrays are those of the arguments, in order, then those that the
        loss closes over.
    """
    index = position(argnum, len(args))
    args = (*args[:index], as_floats(argnum, args[index]), *args[index + 1 :])
    floats, others, merge = partition((args, kwargs))
    floats = explicit.varying_like(floats, floats, others)

    def of_arrays(floats, others):
        args, kwargs = merge(floats, others)
        return loss(*args, **kwargs)

    start = len(partition(args[:index])[0])
    target = list(range(start, start + len(jax.tree.leaves(args[index]))))
    converted = without_closure(of_arrays, floats, others)
    # What is closed over may be parts of a `shard_map` where the arguments are not.
    moved = explicit.varying_like(floats, *converted[1:])
    if any(a is not b for a, b in zip(moved, floats, strict=True)):
        converted = without_closure(of_arrays, moved, others)
    return Call(*converted, target, has_aux)


def partition(tree: Any) -> tuple[Arrays, Arrays, Callable[..., Any]]:
    """Splits a pytree into differentiable arrays, other arrays and static values.

    Args:
        tree: pytree; strings, Python and NumPy numbers and other leaves that are no
            arrays are static.

    Returns:
        The real and complex floating-point arrays, the others, and `(floats, others) ->
        pytree`, which puts new ones in their places and keeps the static values.
    """
    leaves, treedef = jax.tree.flatten(tree)
    kinds = [_kind(x) for x in leaves]

    def of_kind(wanted):
        return [x for x, kind in zip(leaves, kinds, strict=True) if kind == wanted]

    floats = [jnp.asarray(x) for x in of_kind("float")]
    others, static = of_kind("other"), of_kind("static")

    def merge(floats, others):
        sources = {
            "float": iter(floats),
            "other": iter(others),
            "static": iter(static),
        }
        return jax.tree.unflatten(treedef, [next(sources[kind]) for kind in kinds])

    return floats, others, merge


def _kind(leaf: Any) -> Literal["static", "other", "float"]:
    """Whether a leaf is no array, one without derivative, or one with."""
    if not is_array(leaf) or isinstance(leaf, np.generic):
        return "static"
    return "float" if jnp.issubdtype(leaf.dtype, jnp.inexact) else "other"


def without_closure(
    fn: Callable[..., Any], floats: Arrays, others: Arrays, *rest: Any
) -> tuple[Callable[..., Any], Arrays, Arrays]:
    """Appends the arrays that a function closes over to its first two arguments.

    `jax.closure_convert` leaves integers and keys where they are, and a custom
    derivative inside a jitted function that is differentiated then meets them after
    their trace has ended.

    Args:
        fn: `(floats, others, *rest) -> pytree of arrays`.
        floats: example of the first argument.
        others: example of the second.
        *rest: examples of the others, pytrees of arrays.

    Returns:
        The function, and what its first two arguments now are.
    """
    traced, shape = jax.make_jaxpr(fn, return_shape=True)(floats, others, *rest)
    more_floats, more_others, merge = partition(list(traced.consts))
    treedef = jax.tree.structure(shape)
    # The function holds none of the arrays, as in `Call.without_arrays`.
    jaxpr, start, begin = traced.jaxpr, len(floats), len(others)

    def converted(floats, others, *rest):
        consts = merge(floats[start:], others[begin:])
        arguments = jax.tree.leaves((floats[:start], others[:begin], *rest))
        outputs = jax.core.eval_jaxpr(jaxpr, consts, *arguments)
        return jax.tree.unflatten(treedef, outputs)

    return converted, floats + more_floats, others + more_others


def replace(
    leaves: Sequence[Any], places: Sequence[int], values: Sequence[Any]
) -> list[Any]:
    """A copy of a list with other values at some places.

    Args:
        leaves: the list.
        places: positions in it.
        values: what to put there, one for each.

    Returns:
        The new list.
    """
    new = list(leaves)
    for place, value in zip(places, values, strict=True):
        new[place] = value
    return new


def attach_gradient(
    value_fn: Callable[[Arrays, Arrays], tuple[jax.Array, Any]],
    gradient_fn: Callable[[Arrays, Arrays, list[int]], tuple[jax.Array, Arrays]],
    floats: Arrays,
    others: Arrays,
    aux_fn: Callable[[Arrays, Arrays], Any] | None = None,
) -> tuple[jax.Array, Any]:
    """Evaluates a scalar whose derivative is taken from `gradient_fn`.

    The gradient is asked for only where it is needed: with respect to the arrays that
    are differentiated, and not at all when nothing is.

    Args:
        value_fn: `(floats, others) -> (value, aux)`.
        gradient_fn: `(floats, others, wanted) -> (value, gradients)`.
        floats: floating-point arrays, all that the functions depend on.
        others: other arrays, likewise.
        aux_fn: `(floats, others) -> aux` alone, whose derivative is that of `aux`;
            under `jit` it costs nothing where that is not used. None if `aux` is None.

    Returns:
        `value_fn(floats, others)`.
    """
    dtypes = [jnp.result_type(x) for x in floats]
    evaluate = jax.custom_jvp(value_fn)

    def rule(primals, tangents):
        floats, others = primals
        wanted = [
            i for i, t in enumerate(tangents[0]) if not isinstance(t, SymbolicZero)
        ]
        # Python numbers reach a rule where a number is differentiated in forward mode.
        floats = [jnp.asarray(x, d) for x, d in zip(floats, dtypes, strict=True)]
        moving = [jnp.asarray(tangents[0][i], dtypes[i]) for i in wanted]
        value, gradients = gradient_fn(floats, others, wanted)
        # The gradient of a real function in a complex array is defined by this.
        change = jnp.real(trees.inner_product(gradients, moving))
        tangent = jnp.asarray(change, value.dtype)
        if aux_fn is None:
            return (value, None), (tangent, None)

        def aux_of(*values):
            return aux_fn(replace(floats, wanted, values), others)

        here = tuple(floats[i] for i in wanted)
        aux, aux_tangent = jax.jvp(aux_of, here, tuple(moving))
        return (value, aux), (tangent, aux_tangent)

    evaluate.defjvp(rule, symbolic_zeros=True)
    return evaluate(floats, others)
