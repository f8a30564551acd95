"""Broken transformations: each must fail the property it violates, and no other."""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from expkit.testing import transformation_checks


class State(NamedTuple):
    momentum: Any
    other: Any = ()


def momentum(
    direction=lambda m: m,
    *,
    initial=jnp.zeros_like,
    mix=lambda g, m: 0.9 * m + g,
    other=lambda: (),
    next_other=lambda other: other,
    tree_map=jax.tree.map,
    **options,
):
    """A correct momentum, with places to break it."""
    tree_map = functools.partial(tree_map, **options)

    def init(params):
        return State(tree_map(initial, params), other())

    def update(updates, state, params=None):
        del params
        new = tree_map(mix, updates, state.momentum)
        return tree_map(direction, new), State(new, next_other(state.other))

    return optax.GradientTransformation(init, update)


def update_is_overridden():
    class Overriding(optax.GradientTransformationExtraArgs):
        def update(self, updates, state, params=None, **extra_args):
            return optax.tree.scale(3.0, updates), state

    # `optax.chain` unpacks the tuple and so never sees the method.
    return Overriding(*optax.with_extra_args_support(optax.identity()))


def takes_masked_nodes_for_leaves():
    return momentum(is_leaf=lambda x: isinstance(x, optax.MaskedNode))


def remembers_the_first_tree():
    inner, seen = momentum(), []

    def init(params):
        seen.append(jax.tree.structure(params))
        if seen[-1] != seen[0]:
            raise ValueError("initialised with another tree")
        return inner.init(params)

    return optax.GradientTransformation(init, inner.update)


def validates_a_traced_hyperparameter(decay):
    if float(decay) > 1:
        raise ValueError(decay)
    return momentum(mix=lambda g, m: decay * m + g)


def names_params_differently():
    def update(updates, state, parameters=None, **extra_args):
        del extra_args
        return jax.tree.map(lambda u, p: u + 0.1 * p, updates, parameters), state

    return optax.GradientTransformationExtraArgs(optax.identity().init, update)


def takes_no_extra_arguments():
    return optax.GradientTransformationExtraArgs(*momentum())


def is_wider_than_bfloat16():
    return momentum(lambda m: m.astype(jnp.float32))


def count_turns_into_a_float():
    return momentum(other=lambda: jnp.int32(0), next_other=lambda n: n + jnp.float32(1))


def count_is_weakly_typed():
    return momentum(other=lambda: jnp.asarray(0.0), next_other=lambda n: n + 1)


def keeps_every_gradient_norm():
    return momentum(next_other=lambda norms: (*norms, jnp.zeros(())))


def compiles_for_every_count():
    calls = []

    @functools.partial(jax.jit, static_argnums=1)
    def scale(m, count):
        return m * (1.0 if count else 2.0)

    def direction(m):
        calls.append(None)
        return scale(m, len(calls))

    return momentum(direction)


def has_a_python_float_in_the_state():
    return momentum(other=lambda: {"decay": 0.9})


def is_different_when_traced():
    return momentum(lambda m: m if isinstance(m, jax.core.Tracer) else 2 * m)


def doubles_the_first_call():
    calls = []

    def next_other(other):
        calls.append(None)
        return other

    return momentum(lambda m: m * (2.0 if not calls else 1.0), next_other=next_other)


def couples_the_lanes_of_vmap():
    @jax.custom_batching.custom_vmap
    def direction(m):
        return 1.0 * m

    @direction.def_vmap
    def _(axis_size, in_batched, m):
        del axis_size, in_batched
        return m - jnp.mean(m, axis=0, keepdims=True), True

    return momentum(direction)


def starts_elsewhere_on_several_devices():
    def initial(p):
        spread = not isinstance(p, jax.core.Tracer) and len(p.devices()) > 1
        return jnp.full_like(p, 1.0 if spread else 0.0)

    return momentum(initial=initial)


def replicates_its_momentum():
    meshes = []

    def initial(p):
        if isinstance(getattr(p, "sharding", None), NamedSharding):
            meshes.append(p.sharding.mesh)
        return jnp.zeros_like(p)

    def mix(g, m):
        new = 0.9 * m + g
        if not meshes:
            return new
        everywhere = NamedSharding(meshes[0], PartitionSpec())
        return jax.lax.with_sharding_constraint(new, everywhere)

    return momentum(initial=initial, mix=mix)


def shares_one_buffer():
    def init(params):
        zeros = jax.tree.map(jnp.zeros_like, params)
        return State(zeros, zeros)

    return optax.GradientTransformation(init, momentum().update)


def donates_the_key_of_the_caller():
    return optax.add_noise(0.1, 0.5, key=jax.random.key(0))


def calls_back_to_the_host():
    def direction(m):
        return jax.pure_callback(
            np.asarray,
            jax.ShapeDtypeStruct(m.shape, m.dtype),
            m,
            vmap_method="expand_dims",
        )

    return momentum(direction)


def wants_at_least_one_leaf():
    def direction(updates, _):
        largest = jnp.stack([jnp.sum(u**2) for u in jax.tree.leaves(updates)])
        return jax.tree.map(
            lambda u: u / (1 + jnp.sum(largest)).astype(u.dtype), updates
        )

    return optax.stateless(direction)


def wants_a_leading_axis():
    return momentum(lambda m: m / m.shape[0] if m.size else m)


def takes_none_for_a_leaf():
    return momentum(is_leaf=lambda x: x is None)


def turns_lists_into_tuples():
    def tree_map(fn, tree, *rest):
        if isinstance(tree, list):
            return tuple(map(functools.partial(tree_map, fn), tree, *rest))
        return jax.tree.map(fn, tree, *rest)

    return momentum(tree_map=tree_map)


def wants_at_least_one_element():
    return momentum(lambda m: m / (1 + jnp.max(jnp.abs(m))))


def divides_by_the_norm():
    return momentum(lambda m: m / jnp.sqrt(jnp.sum(m**2)), mix=lambda g, m: g)


def ascends():
    return momentum()


OPTIONS = {
    validates_a_traced_hyperparameter: {"hyperparameters": {"decay": 0.9}},
    ascends: {"optimizer": True},
}
# What else must fail where one property implies another.
STEP_CHANGES_TYPE = {"no_recompilation", "donation_keeps_bits", "apply_if_finite"}
TRACED_TWICE = {"multi_transform", "multi_steps", "extra_arguments"}
ON_ONE_HOST = {"export_runs_elsewhere", "sharded_equals_unsharded"}
VIOLATIONS = [
    (update_is_overridden, {"chain"}),
    (takes_masked_nodes_for_leaves, {"masked", "multi_transform"}),
    (remembers_the_first_tree, {"multi_transform"}),
    (validates_a_traced_hyperparameter, {"inject_hyperparams"}),
    (names_params_differently, {"multi_steps"}),
    (takes_no_extra_arguments, {"extra_arguments"}),
    (is_wider_than_bfloat16, {"dtypes"}),
    (count_turns_into_a_float, {"state_is_stable", *STEP_CHANGES_TYPE}),
    (count_is_weakly_typed, {"state_is_stable"}),
    (keeps_every_gradient_norm, {"state_is_stable", "multi_steps", *STEP_CHANGES_TYPE}),
    (compiles_for_every_count, {"no_recompilation"}),
    (has_a_python_float_in_the_state, {"state_is_arrays"}),
    (is_different_when_traced, {"jit_equals_eager"}),
    (doubles_the_first_call, {"jit_equals_eager", *TRACED_TWICE}),
    (couples_the_lanes_of_vmap, {"vmap_equals_loop"}),
    (starts_elsewhere_on_several_devices, {"sharded_equals_unsharded"}),
    (replicates_its_momentum, {"sharded_equals_unsharded"}),
    (shares_one_buffer, {"donation_keeps_bits"}),
    (donates_the_key_of_the_caller, {"donation_keeps_bits"}),
    (calls_back_to_the_host, ON_ONE_HOST),
    (wants_at_least_one_leaf, {"empty_tree"}),
    (wants_a_leading_axis, {"scalar_leaves"}),
    (takes_none_for_a_leaf, {"none_leaves"}),
    (turns_lists_into_tuples, {"nested_containers"}),
    (wants_at_least_one_element, {"zero_size_leaves"}),
    (divides_by_the_norm, {"zero_gradient"}),
    (ascends, {"converges"}),
]


def checks_of(make):
    return {c.name: c for c in transformation_checks(make, **OPTIONS.get(make, {}))}


@pytest.mark.parametrize(
    ("make", "name"),
    [(make, name) for make, names in VIOLATIONS for name in sorted(names)],
    ids=lambda x: getattr(x, "__name__", x),
)
def test_a_violation_fails_its_check(make, name):
    with pytest.raises(AssertionError, match=f"^{name}: "):
        checks_of(make)[name]()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("make", "names"), VIOLATIONS, ids=lambda x: getattr(x, "__name__", "")
)
def test_a_violation_fails_no_other_check(make, names):
    failed = set()
    for name, check in checks_of(make).items():
        try:
            check()
        except AssertionError:
            failed.add(name)
    assert failed == names


def test_every_property_has_a_violation():
    properties = {c.name for c in transformation_checks(optax.identity, optimizer=True)}
    assert set().union(*(names for _, names in VIOLATIONS)) == properties
