"""Properties of how a step is run: jitted, batched, sharded, donated, exported."""

from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax import export
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from expkit.testing.comparison import assert_trees_equal, named_leaves
from expkit.testing.compilation import TraceCounter
from expkit.testing.transformation_case import (
    TransformationCase,
    example_gradients,
    example_params,
    make_step,
    run_steps,
)


def _jit_equals_eager(case: TransformationCase) -> None:
    """A jitted step gives the numbers of an eager one.

    Up to a tolerance: inside one program XLA contracts a product and a sum into one
    fused multiply-add, which rounds once instead of twice.
    """
    params = example_params()
    gradients = example_gradients(params)
    eager = run_steps(case.build(params), params, gradients, wrap=lambda step: step)
    case.assert_close(case.baseline, eager, "(params, state, updates)")


def _vmap_equals_loop(case: TransformationCase) -> None:
    """`jax.vmap` over parameters and gradients equals a loop over them."""
    lanes = [
        jax.tree.map(lambda x, s=scale: s * x, example_params())
        for scale in (1.0, -0.5, 2.0)
    ]
    histories = [
        [optax.tree.scale(scale, g) for g in example_gradients(lanes[0])]
        for scale in (1.0, 3.0, -0.25)
    ]
    tx = case.build(lanes[0])
    stacked = _stack(lanes)
    got = run_steps(
        tx,
        stacked,
        [_stack(gradients) for gradients in zip(*histories, strict=True)],
        state=jax.vmap(tx.init)(stacked),
        wrap=lambda step: jax.jit(jax.vmap(step)),
    )
    step = jax.jit(make_step(case.build(lanes[0])))
    expected = [
        run_steps(case.build(lane), lane, gradients, wrap=lambda _: step)
        for lane, gradients in zip(lanes, histories, strict=True)
    ]
    case.assert_close(got, _stack(expected), "(params, state, updates)")


def _sharded_equals_unsharded(case: TransformationCase) -> None:
    """Sharded leaves beside replicated ones change no number, and the state follows."""
    params = example_params()
    gradients = example_gradients(params)
    count = jax.device_count()
    mesh = jax.make_mesh((count,), ("data",), axis_types=(AxisType.Auto,))
    shardings = {
        name: NamedSharding(
            mesh, PartitionSpec(*(() if name == "scale" else ("data",)))
        )
        for name in params
    }
    placed, *placed_gradients = (
        jax.device_put(tree, shardings) for tree in (params, *gradients)
    )
    got = run_steps(case.build(placed), placed, placed_gradients)
    what = f"(params, state, updates) on {count} devices"
    case.assert_close(got, case.baseline, what)
    for name, leaf in got.params.items():
        _assert_sharding(f"params, leaf ['{name}']", leaf, shardings[name])
    for path, leaf in named_leaves(got.state):
        name = next((n for n in params if path.endswith(f"['{n}']")), None)
        if name is not None and leaf.shape == params[name].shape:
            _assert_sharding(f"state, leaf {path}", leaf, shardings[name])


def _donation_keeps_bits(case: TransformationCase) -> None:
    """A step that donates parameters and state gives the same bits, compiled once.

    The state of `init` must own its buffers: a key that the caller passed in would be
    deleted with the first state.
    """
    params = example_params()
    gradients = example_gradients(params)
    tx = case.build(params)
    _assert_own_buffers(tx.init(params), tx.init(params))
    traces = TraceCounter()
    got = run_steps(
        case.build(params),
        jax.tree.map(jnp.copy, params),
        gradients,
        wrap=lambda step: jax.jit(traces.wrap(step), donate_argnums=(0, 1)),
    )
    assert_trees_equal(got, case.baseline, "(params, state, updates)")
    if traces.count != 1:
        raise AssertionError(f"got {traces.count} traces, expected 1.")


def _export_runs_elsewhere(case: TransformationCase) -> None:
    """The step exports for CPU, CUDA and TPU, and runs after serialisation."""
    params = example_params()
    (gradient,) = example_gradients(params, 1)
    tx = case.build(params)
    # Plain lists of arrays: serialisation knows no NamedTuple it was not told about.
    leaves, treedef = jax.tree.flatten((params, tx.init(params), gradient))

    def flat_step(*leaves: jax.Array) -> list[jax.Array]:
        return jax.tree.leaves(make_step(tx)(*treedef.unflatten(leaves)))

    step = jax.jit(flat_step)
    exported = export.export(step, platforms=("cpu", "cuda", "tpu"))(*leaves)
    restored = export.deserialize(exported.serialize())
    got = jax.jit(restored.call)(*leaves)
    case.assert_close(got, step(*leaves), "(params, state, updates)")


def _assert_own_buffers(state: Any, other: Any) -> None:
    pairs = zip(named_leaves(state), jax.tree.leaves(other), strict=True)
    for (path, leaf), twin in pairs:
        if _address(leaf) is not None and _address(leaf) == _address(twin):
            raise AssertionError(
                f"state after init, leaf {path}: got the buffer of an earlier init, "
                "expected its own (use jnp.copy)."
            )


def _address(leaf: Any) -> int | None:
    """Where the elements are, or None for a leaf that cannot be donated."""
    if not isinstance(leaf, jax.Array) or not leaf.size:
        return None
    if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        leaf = jax.random.key_data(leaf)
    return leaf.unsafe_buffer_pointer()


def _stack(trees: Any) -> Any:
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *trees)


def _assert_sharding(what: str, leaf: jax.Array, expected: NamedSharding) -> None:
    if not leaf.sharding.is_equivalent_to(expected, leaf.ndim):
        raise AssertionError(
            f"{what}: got the sharding {leaf.sharding}, expected {expected.spec}."
        )


CHECKS = (
    _jit_equals_eager,
    _vmap_equals_loop,
    _sharded_equals_unsharded,
    _donation_keeps_bits,
    _export_runs_elsewhere,
)
