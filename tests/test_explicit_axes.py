"""Arrays on a mesh with explicit axes, the kind that `jax.make_mesh` makes by default.

Each public function is compared with itself on arrays that lie on one device.
"""

import functools

import export_cases
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

import childtuning
import cosent
import gp_kl
import lion
import vmf_vae
from expkit import explicit
from igr.spectral import spectral_norm

BATCH = 8
OPTIMIZERS = [
    *("lion.lion", "lion.lion in place", "lion.lion cautious", "lion.lion bfloat16"),
    *("lion.lion int8", "lion.stochastic_rounding", "childtuning.child_adamw"),
    *("childtuning.child_tuning_d", "childtuning.child_tuning_f"),
    *("childtuning.update_dropout", "childtuning.fisher_mask exact"),
    "childtuning.fisher_mask keep",
]
"""Work on parameters, whose leaves may be cut along any axis."""
OF_BATCHES = [
    name
    for name in export_cases.IGR
    | export_cases.RDROP
    | export_cases.CHILDTUNING
    | export_cases.COSENT
    if name not in OPTIMIZERS and "track_gradient_norm" not in name
]

# What each of these runs, another of them runs too.
WITHIN_OTHERS = (
    *("cosent.average_ranks", "igr.penalty_inequality spectral"),
    *("igr.virtual_adversarial_perturbation", "rdrop.symmetric_kl"),
)


@pytest.fixture
def mesh():
    return jax.make_mesh((2,), ("data",))


def test_the_default_axes_are_explicit(mesh):
    assert mesh.axis_types == (AxisType.Explicit,)


def place(x, mesh, axis):
    """Cuts an axis in two, if there is one and it can be."""
    spec = [None] * jnp.ndim(x)
    if axis is not None:
        spec[axis] = "data"
    return jax.device_put(x, NamedSharding(mesh, PartitionSpec(*spec)))


def arrays(leaves):
    """Arrays in the place of shapes alone."""
    rng = np.random.default_rng(0)
    return [
        jnp.asarray(0.3 * rng.standard_normal(x.shape), x.dtype)
        if isinstance(x, jax.ShapeDtypeStruct)
        else jnp.asarray(x)
        for x in leaves
    ]


def compare(case, mesh, find_axis):
    """Calls a case with cut and with whole arrays; returns how many were cut."""
    fn, args = case
    leaves, structure = jax.tree.flatten(args)
    leaves = arrays(leaves)
    axes = [None if is_key(x) else find_axis(x) for x in leaves]

    @jax.jit
    def run(*leaves):
        return jax.tree.leaves(fn(*structure.unflatten(leaves)))

    expected = run(*leaves)
    cut = [place(x, mesh, axis) for x, axis in zip(leaves, axes, strict=True)]
    for got, want in zip(run(*cut), expected, strict=True):
        if is_key(want):
            got, want = jax.random.key_data(got), jax.random.key_data(want)
        np.testing.assert_allclose(
            np.asarray(got, float), np.asarray(want, float), rtol=2e-5, atol=2e-6
        )
    return sum(axis is not None for axis in axes)


def is_key(x):
    return jnp.issubdtype(x.dtype, jax.dtypes.prng_key)


def first_even(x):
    return next((i for i, n in enumerate(x.shape) if n > 1 and n % 2 == 0), None)


def last_even(x):
    even = [i for i, n in enumerate(x.shape) if n > 1 and n % 2 == 0]
    return even[-1] if even else None


def batch_axis(x):
    return 0 if x.shape[:1] == (BATCH,) else None


# Codes and masks are packed along the last axis.
@pytest.mark.parametrize(
    "find_axis", [pytest.param(first_even, marks=pytest.mark.slow), last_even]
)
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_parameters_may_be_cut(name, find_axis, mesh):
    assert compare(export_cases.CASES[name](), mesh, find_axis) > 0


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(n, marks=pytest.mark.slow if n in WITHIN_OTHERS else ())
        for n in OF_BATCHES
    ],
)
def test_the_batch_may_be_cut(name, mesh):
    compare(export_cases.CASES[name](), mesh, batch_axis)


def test_most_of_the_functions_of_a_batch_get_one_that_is_cut():
    cut = [
        any(jnp.shape(x)[:1] == (BATCH,) for x in jax.tree.leaves(make()[1]))
        for name, make in export_cases.CASES.items()
        if name in OF_BATCHES
    ]
    assert np.mean(cut) > 0.6


def directions(dim):
    mu = np.random.default_rng(0).standard_normal((BATCH, dim)).astype(np.float32)
    return mu / np.linalg.norm(mu, axis=-1, keepdims=True)


# The next test draws in dimension 5 too.
@pytest.mark.parametrize(
    ("dim", "shape"),
    [(2, ()), (3, (3,)), pytest.param(5, (3,), marks=pytest.mark.slow)],
)
def test_samples_lie_where_their_directions_do(dim, shape, mesh):
    mu, kappa = directions(dim), np.linspace(1, 50, BATCH, dtype=np.float32)
    sample = jax.jit(functools.partial(vmf_vae.sample_vmf, shape=shape))
    placed = place(mu, mesh, 0), place(kappa, mesh, 0)
    got = sample(jax.random.key(0), *placed)
    assert explicit.placement(got).spec[len(shape)] == "data"
    expected = sample(jax.random.key(0), mu, kappa)
    np.testing.assert_allclose(got, expected, rtol=2e-5, atol=1e-6)
    radial = functools.partial(vmf_vae.sample_radial, dim=dim, shape=shape)
    got = radial(jax.random.key(1), concentration=placed[1])
    expected = radial(jax.random.key(1), concentration=jnp.asarray(kappa))
    np.testing.assert_allclose(got, expected, rtol=2e-5, atol=1e-6)


def test_gradients_of_samples_come_back_to_where_the_arguments_lie(mesh):
    mu, kappa = directions(5), np.linspace(1, 50, BATCH, dtype=np.float32)

    def energy(mu, kappa):
        return jnp.sum(vmf_vae.sample_vmf(jax.random.key(0), mu, kappa) ** 3)

    gradient = jax.jit(jax.grad(energy, argnums=(0, 1)))
    got = gradient(place(mu, mesh, 0), place(kappa, mesh, 0))
    for ours, whole in zip(got, gradient(mu, kappa), strict=True):
        assert explicit.placement(ours).spec[0] == "data"
        np.testing.assert_allclose(ours, whole, rtol=1e-4, atol=1e-6)


def test_the_gradient_of_cosent_lies_as_the_similarities(mesh):
    similarities = np.linspace(1, -1, BATCH, dtype=np.float32)
    labels = np.arange(BATCH)
    gradient = jax.jit(jax.grad(cosent.cosent_loss))
    got = gradient(place(similarities, mesh, 0), place(labels, mesh, 0))
    assert explicit.placement(got).spec[0] == "data"
    np.testing.assert_allclose(got, gradient(similarities, labels), rtol=1e-5)
    # Without help, JAX refuses the table of all pairs.
    cut = place(similarities, mesh, 0)
    with pytest.raises(Exception, match="illegally sharded"):
        cut[:, None] - cut[None, :]


def test_scores_of_spans_of_a_cut_batch(mesh):
    head = gp_kl.GlobalPointer(16, 3, 8)
    params = head.init(jax.random.key(0))
    x = np.random.default_rng(0).standard_normal((BATCH, 6, 16)).astype(np.float32)
    spans = np.random.default_rng(1).uniform(size=(BATCH, 3, 6, 6)) < 0.1

    def loss(params, x, spans):
        scores = head.apply(params, x, jnp.ones(x.shape[:2], bool))
        return jnp.mean(
            gp_kl.multilabel_cross_entropy(
                scores.reshape(BATCH, -1), spans.reshape(BATCH, -1)
            )
        )

    value = jax.jit(jax.value_and_grad(loss))
    whole = jax.tree.map(lambda x: place(x, mesh, None), params)
    got = value(whole, place(x, mesh, 0), place(spans, mesh, 0))
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6),
        got,
        value(params, x, spans),
    )


def test_a_chain_over_a_cut_batch(mesh):
    crf = gp_kl.LinearChainCRF(16, 2)
    params = crf.init(jax.random.key(0))
    hidden = np.random.default_rng(0).standard_normal((BATCH, 5, 16))
    hidden, tags = hidden.astype(np.float32), np.zeros((BATCH, 5), np.int32)

    @jax.jit
    def run(params, hidden, tags):
        mask = tags == 0

        def loss(params):
            return -jnp.mean(crf.log_likelihood(params, hidden, tags, mask))

        return *jax.value_and_grad(loss)(params), crf.decode(params, hidden, mask)

    whole = jax.tree.map(lambda x: place(x, mesh, None), params)
    got = run(whole, place(hidden, mesh, 0), place(tags, mesh, 0))
    assert explicit.placement(got[2]).spec[0] == "data"
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6),
        got,
        run(params, hidden, tags),
    )


def test_packed_momentum_lies_as_its_parameter(mesh):
    params = {"w": place(np.ones((4, 512), np.float32), mesh, 1)}
    state = lion.lion(1e-3, mu_dtype="int8").init(params)
    (codes,) = [x for x in jax.tree.leaves(state) if x.dtype == jnp.int8]
    assert codes.sharding.is_equivalent_to(params["w"].sharding, 2)


@pytest.mark.parametrize(("width", "is_cut"), [(32, True), (24, False), (8, False)])
def test_a_packed_mask_is_cut_between_its_bytes(width, is_cut, mesh):
    rng = np.random.default_rng(0)
    mask = place(rng.uniform(size=(3, width)) < 0.5, mesh, 1)
    params = {"w": place(np.ones((3, width), np.float32), mesh, 1)}
    optimizer = childtuning.child_tuning_d({"w": mask})
    state = optimizer.init(params)
    (packed,) = jax.tree.leaves(state)
    assert (explicit.placement(packed) is not None) == is_cut
    kept, _ = optimizer.update(params, state, params)
    np.testing.assert_array_equal(kept["w"], np.asarray(mask))


def test_spectral_norms_of_cut_matrices(mesh):
    a = np.random.default_rng(0).standard_normal((4, 6)).astype(np.float32)
    value_and_gradient = jax.jit(jax.value_and_grad(spectral_norm))
    value, gradient = value_and_gradient(place(a, mesh, 1))
    u, s, v = np.linalg.svd(a)
    np.testing.assert_allclose(value, s[0], rtol=1e-5)
    np.testing.assert_allclose(gradient, np.outer(u[:, 0], v[0]), atol=1e-5)
