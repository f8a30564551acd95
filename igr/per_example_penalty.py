r"""Gradient penalties of every example of a batch.

Three numbers are easily confused. With the loss :math:`l_i` of example i and the
gradient :math:`g_i = \nabla l_i`, whose mean over the data is :math:`g` and whose
covariance has the trace :math:`\sigma^2`,

.. math:: \mathrm{mean}_i \|g_i\|^2 = \|g\|^2 + \sigma^2, \qquad
          E\,\|\mathrm{mean}_{i \in A}\, g_i\|^2 = \|g\|^2 + \sigma^2 / B, \qquad
          E\,\langle g_A, g_B\rangle = \|g\|^2 .

The first is `with_per_example_gradient_penalty`, the second, on a batch of B examples
drawn independently, is `with_gradient_penalty`, and the third, on two such batches, is
`two_batch_gradient_penalty`, the only one without bias for the full-batch penalty::

    penalised = igr.with_per_example_gradient_penalty(loss_of_one, 0.1, argnum=1)
    value, grads = jax.value_and_grad(penalised)(params, images, labels)

With mini-batches in the place of examples it is the regulariser of Smith et al. 2021.
Its gradient costs one Hessian-vector product an example, as in `igr.penalty`.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from expkit import explicit, trees
from expkit.arguments import require_count
from igr import arguments, attached, penalty
from igr.attached import Arrays, Call


def with_per_example_gradient_penalty(
    loss_fn: Callable[..., Any],
    coefficient: jax.typing.ArrayLike,
    *,
    argnum: int = 0,
    mode: str = "exact",
    has_aux: bool = False,
    chunk_size: int = 1,
) -> Callable[..., Any]:
    r"""Averages a loss and the squared norm of its gradient over a batch.

    .. math:: F = \frac1B \sum_i \bigl( l_i + c\,\|\partial l_i / \partial a\|^2 \bigr).

    The gradient with respect to the parameters is added up example by example, with no
    more than `chunk_size` of them in memory (all in mode `"nested"`): call it under
    `jit`, outside of which this loop is compiled at every call. For inputs it takes one
    pass over the batch, since example i alone depends on input i.

    Args:
        loss_fn: loss of one example (or of one mini-batch, for the penalty of Smith et
            al.), `(params, *example, **kwargs) -> scalar`, or `(scalar, aux)`. Keyword
            arguments are shared by the examples.
        coefficient: :math:`c`, may be traced.
        argnum: the argument whose gradient is penalised: 0 for the parameters, others
            for what an example consists of.
        mode: as in `with_gradient_penalty`. A finite difference moves the parameters
            for each example, but the inputs of the whole batch together by its step.
        has_aux: whether the loss returns `(loss, aux)`.
        chunk_size: how many examples are differentiated at once with respect to the
            parameters; divides the batch. 1 needs least memory, and on a CPU least
            time; larger ones use an accelerator better.

    Returns:
        `(params, *batch, **kwargs) -> F`, a scalar in at least float32, or `(F, aux)`
        with the examples along the first axis of `aux`. All leaves of `batch` have that
        axis, of the same length.

    Raises:
        ValueError: if an option is out of range, and when called: if the leading axes
            differ, `chunk_size` does not divide them, `argnum` names no positional
            argument, or the loss is not a scalar.
        TypeError: as in `with_gradient_penalty`.

    References:
        Drucker and LeCun, *Improving Generalization Performance Using Double
        Backpropagation*, 1992, for inputs. https://doi.org/10.1109/72.165600
        Smith, Dherin, Barrett and De, *On the Origin of Implicit Regularization in
        Stochastic Gradient Descent*, 2021, for mini-batches.
        https://arxiv.org/abs/2101.12176
    """
    penalty.check_options(coefficient, argnum, mode)
    chunk_size = require_count("chunk_size", chunk_size)
    loss = attached.scalar_loss(loss_fn, has_aux=has_aux)

    def over_examples(params, batch, kwargs):
        examples = _examples(loss, params, batch, kwargs, has_aux=has_aux)
        return _penalise_each(examples, coefficient, mode, chunk_size)

    def penalised(params, *batch, **kwargs):
        size = _batch_size(batch)
        if size % chunk_size:
            raise ValueError(
                f"chunk_size={chunk_size} does not divide the batch of {size}."
            )
        if arguments.position(argnum, 1 + len(batch)) == 0:
            value, aux = explicit.freely(over_examples, params, batch, kwargs)
        else:
            call = attached.make_call(
                _mean_over_batch(loss),
                argnum,
                (params, *batch),
                kwargs,
                has_aux=has_aux,
            )
            # The mean loss has 1/B of every example's gradient.
            scaled = size * penalty.as_coefficient(coefficient, call.floats)
            value, aux = penalty.penalise(call, scaled, mode=mode)
        return (value, aux) if has_aux else value

    return penalised


class _Examples(NamedTuple):
    """A batch, and the loss of one example as a function of arrays.

    Attributes:
        call: `(shared, own) -> Call`; the arrays of the call are those shared, then its
            own. It holds none of this batch, as in `Call.without_arrays`.
        shared: floating-point and other arrays of the parameters, of keyword arguments,
            and those that the loss closes over.
        own: floating-point and other arrays of the batch.
        has_aux: whether the loss returns anything beside itself.
    """

    call: Callable[[Sequence[Arrays], Sequence[Arrays]], Call]
    shared: Sequence[Arrays]
    own: Sequence[Arrays]
    has_aux: bool


def _examples(loss, params, batch, kwargs, *, has_aux: bool) -> _Examples:
    """Splits the arguments, and what the loss closes over."""
    params = arguments.as_floats(0, params)
    *shared, merge_shared = attached.partition((params, kwargs))
    *own, merge = attached.partition(batch)
    floats = [shared[0], own[0]]
    shared[0], own[0] = explicit.varying_like(floats, shared, own)
    target = list(range(len(jax.tree.leaves(params))))

    def one(floats, others, own_floats, own_others):
        params, kwargs = merge_shared(floats, others)
        return loss(params, *merge(own_floats, own_others), **kwargs)

    first = [[x[0] for x in arrays] for arrays in own]
    of_one, *shared = attached.without_closure(one, *shared, *first)

    def call(shared, own):
        floats, others = shared
        n, m = len(floats), len(others)

        def loss(all_floats, all_others):
            return of_one(
                all_floats[:n], all_others[:m], all_floats[n:], all_others[m:]
            )

        return Call(loss, floats + own[0], others + own[1], target, has_aux)

    return _Examples(call, shared, own, has_aux)


def _penalise_each(
    examples: _Examples, coefficient: jax.typing.ArrayLike, mode: str, chunk_size: int
) -> tuple[jax.Array, Any]:
    """Mean of the penalised losses; the gradients are added up example by example."""
    call_of = examples.call  # the functions below must not hold the examples
    num_shared = [1 + len(examples.shared[0]), len(examples.shared[1])]

    def over(fn, floats, others):
        shared = floats[1 : num_shared[0]], others[: num_shared[1]]
        own = floats[num_shared[0] :], others[num_shared[1] :]

        def one(own):
            return fn(call_of(shared, own), floats[0])

        return _mean_and_stack(one, own, chunk_size)

    def value_fn(floats, others):
        return over(penalty.value, floats, others)

    def gradient_fn(floats, others, wanted):
        num_means = sum(i < num_shared[0] for i in wanted)

        def one(call, c):
            value, gradients = penalty.gradient(call, c, wanted, mode=mode)
            return (value, gradients[:num_means]), gradients[num_means:]

        (value, means), own = over(one, floats, others)
        return value, means + [x / len(x) for x in own]

    def aux_fn(floats, others):
        def one(call, c):
            return jnp.zeros_like(c), call.loss(call.floats, call.others)[1]

        return over(one, floats, others)[1]

    floats = [*examples.shared[0], *examples.own[0]]
    floats = [penalty.as_coefficient(coefficient, floats), *floats]
    others = [*examples.shared[1], *examples.own[1]]
    if mode == "nested":
        return value_fn(floats, others)
    return attached.attach_gradient(
        value_fn, gradient_fn, floats, others, aux_fn if examples.has_aux else None
    )


def _mean_and_stack(
    fn: Callable[[Any], tuple[Any, Any]], examples: Any, chunk_size: int
) -> tuple[Any, Any]:
    """Mean over the examples of the first output, in float32; the second stacked."""
    size = len(jax.tree.leaves(examples)[0])
    shape = size // chunk_size, chunk_size  # not -1: a leaf may be empty
    chunks = jax.tree.map(lambda x: x.reshape(*shape, *x.shape[1:]), examples)

    def body(total, chunk):
        values, stacked = jax.vmap(fn)(chunk)
        sums = jax.tree.map(
            lambda x: jnp.sum(x, axis=0, dtype=trees.wide_dtype(x.dtype)), values
        )
        return jax.tree.map(jnp.add, total, sums), stacked

    values, _ = jax.eval_shape(jax.vmap(fn), jax.tree.map(lambda x: x[0], chunks))
    zeros = jax.tree.map(
        lambda x: jnp.zeros(x.shape[1:], trees.wide_dtype(x.dtype)), values
    )
    zeros = explicit.varying_like(zeros, examples)
    total, stacked = jax.lax.scan(body, zeros, chunks)
    mean = jax.tree.map(lambda x: x / size, total)
    return mean, jax.tree.map(lambda x: x.reshape(size, *x.shape[2:]), stacked)


def _mean_over_batch(loss):
    """The mean of the losses of a batch as one function, `aux` stacked."""

    def mean(params, *batch, **kwargs):
        losses, aux = jax.vmap(lambda *example: loss(params, *example, **kwargs))(
            *batch
        )
        return jnp.mean(losses, dtype=trees.wide_dtype(losses.dtype)), aux

    return mean


def _batch_size(batch: Sequence[Any]) -> int:
    """Length of the leading axis that all leaves share."""
    shapes = [jnp.shape(leaf) for leaf in jax.tree.leaves(batch)]
    lengths = {shape[0] if shape else 0 for shape in shapes}
    if len(lengths) != 1 or 0 in lengths:
        raise ValueError(
            "all leaves of the batch need the same number of examples, at least 1, "
            f"along their first axis; got shapes {shapes}. Pass what they share by "
            "keyword."
        )
    return lengths.pop()
