"""The inequality between input and parameter gradients, on random networks."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from igr.inequality import ACTIVATIONS, input_gradient_bound, penalty_inequality

NORMS = ("joint", "spectral", "frobenius")
FUNCTIONS = {
    "sum": jnp.sum,
    "first": lambda h: h[0],
    "log-sum-exp": jax.nn.logsumexp,
    "squared error": lambda h: jnp.sum((h - 0.3) ** 2),
    "product": jnp.prod,
    "cosine": lambda h: jnp.cos(3.0 * jnp.sum(h)),
}
FAST = [
    ((4, 5, 3), "tanh", True, "sum"),
    ((3, 6, 2, 2), "relu", False, "squared error"),
]
ROUNDING = 1e-12


def make(sizes, bias=True, *, n=()):
    """Random networks and examples in float64, with leading axes `n`."""
    rng = np.random.default_rng(0)
    params = []
    for n_in, n_out in itertools.pairwise(sizes):
        w = jnp.asarray(1.4 * rng.normal(size=(*n, n_in, n_out)) / np.sqrt(n_in))
        b = jnp.asarray(rng.normal(size=(*n, n_out)))
        params.append((w, b if bias else None))
    return params, jnp.asarray(rng.normal(size=(*n, sizes[0])))


def forward(params, x, activation):
    """The pre-activations, and the last hidden vector."""
    before, h = [], x
    for w, b in params:
        before.append(h @ w if b is None else h @ w + b)
        h = activation(before[-1])
    return before, h


def by_definition(params, x, fn, activation):
    """Both sides from dense Jacobians and plain gradients, put together in numpy."""

    def hidden(x):
        return [x, *map(activation, forward(params, x, activation)[0])]

    def value(params, x):
        return fn(forward(params, x, activation)[1])

    gradients = jax.grad(value, (0, 1))
    (of_params, of_x), inputs, jacobians = jax.tree.map(
        np.asarray,
        jax.jit(lambda p, x: (gradients(p, x), hidden(x), jax.jacobian(hidden)(x)))(
            params, x
        ),
    )
    terms = {norm: [] for norm in NORMS}
    for (w, b), h, jacobian in zip(params, inputs, jacobians, strict=False):
        w = np.asarray(w).T
        sizes = {
            "joint": np.linalg.norm(w @ jacobian, 2),
            "spectral": np.linalg.norm(w, 2) * np.linalg.norm(jacobian, 2),
            "frobenius": np.linalg.norm(w) * np.linalg.norm(jacobian),
        }
        factor = np.sum(h**2) + (b is not None)
        for norm, size in sizes.items():
            terms[norm].append(np.sum(of_x**2) * factor / size**2)
    return terms, sum(np.sum(g**2) for g in jax.tree.leaves(of_params))


@functools.partial(jax.jit, static_argnums=(2, 3))
def by_norm(params, x, fn, activation):
    return {
        norm: penalty_inequality(params, x, fn, activation, norm=norm) for norm in NORMS
    }


@pytest.mark.parametrize(
    ("activation", "bias"),
    [
        ("tanh", True),
        ("leaky_relu", False),
        pytest.param("tanh", False, marks=pytest.mark.slow),
        pytest.param("leaky_relu", True, marks=pytest.mark.slow),
    ],
)
def test_both_sides_are_those_of_the_definition(bias, activation):
    with jax.enable_x64(True):
        params, x = make((4, 6, 5, 3), bias)
        fn = ACTIVATIONS[activation]
        terms, squares = by_definition(params, x, FUNCTIONS["squared error"], fn)
        sides = by_norm(params, x, FUNCTIONS["squared error"], activation)
        for norm, got in sides.items():
            left = sum(terms[norm])
            np.testing.assert_allclose(got.layer_terms, terms[norm], rtol=1e-11)
            np.testing.assert_allclose(got.input_side, left, rtol=1e-11)
            np.testing.assert_allclose(got.parameter_side, squares, rtol=1e-11)
            np.testing.assert_allclose(got.slack, squares / left, rtol=1e-11)


def random_settings(count, seed=0):
    rng = np.random.default_rng(seed)
    names = sorted(set(ACTIVATIONS) - {"identity"})
    for index in range(count):
        sizes = tuple(int(s) for s in rng.integers(1, 13, size=rng.integers(2, 8)))
        fn = sorted(FUNCTIONS)[rng.integers(len(FUNCTIONS))]
        yield sizes, names[index % len(names)], bool(index % 2), fn


@pytest.mark.parametrize(
    ("sizes", "activation", "bias", "fn"),
    [
        *FAST,
        *(pytest.param(*s, marks=pytest.mark.slow) for s in random_settings(18)),
    ],
)
def test_no_random_network_violates_it(sizes, activation, bias, fn):
    """50 networks of each architecture, 1,000 in all."""
    with jax.enable_x64(True):

        def sides(params, x):
            joint, spectral, frobenius = (
                penalty_inequality(params, x, FUNCTIONS[fn], activation, norm=norm)
                for norm in NORMS
            )
            bound = input_gradient_bound(params, x, FUNCTIONS[fn], activation)
            return joint, spectral, frobenius, bound

        networks = make(sizes, bias, n=(50,))
        joint, spectral, frobenius, bound = jax.jit(jax.vmap(sides))(*networks)
        for got in (joint, spectral, frobenius, bound):
            limit = (1.0 + ROUNDING) * got.parameter_side
            assert jnp.all(jnp.isfinite(got.input_side))
            assert jnp.all(got.input_side <= limit)
        # Each form is looser than the one before, layer by layer.
        for tight, loose in ((joint, spectral), (spectral, frobenius)):
            assert jnp.all(loose.layer_terms <= (1 + ROUNDING) * tight.layer_terms)


@pytest.mark.parametrize(
    ("sizes", "activation", "products"),
    [
        ((10, 32, 1), "tanh", (5, 15, 20, 100)),
        pytest.param(
            (10, 32, 32, 32, 1), "tanh", (10, 40, 30, 210), marks=pytest.mark.slow
        ),
        pytest.param(
            (784, 100, 100, 1), "relu", (2, 10, 200, 1000), marks=pytest.mark.slow
        ),
    ],
)
def test_the_joint_norm_makes_it_tight(sizes, activation, products):
    """Medians: 1 to 4 for the joint norm, tens to hundreds for the products."""
    with jax.enable_x64(True):
        sides = jax.vmap(lambda p, x: by_norm(p, x, jnp.sum, activation))
        found = jax.jit(sides)(*make(sizes, n=(16,)))
        medians = []
        for norm in NORMS:
            slack = np.asarray(found[norm].slack)
            medians.append(np.median(slack[np.isfinite(slack)]))
        assert 1.0 <= medians[0] <= 4.0
        assert products[0] <= medians[1] <= products[1]
        assert products[2] <= medians[2] <= products[3]


@pytest.mark.parametrize("activation", ["identity", "tanh"])
def test_one_layer_with_one_output_is_an_equality(activation):
    with jax.enable_x64(True):
        params, x = make((6, 1))
        sides = by_norm(params, x, jnp.sum, activation)
        for norm in NORMS[:2]:
            np.testing.assert_allclose(sides[norm].slack, 1.0, rtol=1e-14)
        bound = jax.jit(input_gradient_bound, static_argnums=(2, 3))
        np.testing.assert_allclose(*bound(params, x, jnp.sum, activation), rtol=1e-14)
        # The Frobenius norm of the identity, the Jacobian of x in x, is not 1.
        np.testing.assert_allclose(sides["frobenius"].slack, 6.0, rtol=1e-14)


def test_a_layer_that_scales_a_rotation_is_an_equality_for_every_function():
    with jax.enable_x64(True):
        rotation, _ = np.linalg.qr(np.random.default_rng(0).normal(size=(4, 4)))
        params, x = [(jnp.asarray(2.5 * rotation), jnp.ones(4))], jnp.arange(4.0)
        slacks = jax.jit(
            lambda p, x: [
                penalty_inequality(p, x, fn, "identity").slack
                for fn in FUNCTIONS.values()
            ]
        )
        np.testing.assert_allclose(slacks(params, x), 1.0, rtol=1e-12)


def test_the_input_gradient_is_the_jacobian_times_any_layers_delta():
    fn = FUNCTIONS["log-sum-exp"]

    def from_layer(params, layer, z):
        return fn(forward(params[layer + 1 :], jnp.tanh(z), jnp.tanh)[1])

    @jax.jit
    def both(params, x):
        def before(x):
            return forward(params, x, jnp.tanh)[0]

        deltas = [
            jax.grad(functools.partial(from_layer, params, layer))(z)
            for layer, z in enumerate(before(x))
        ]
        products = [
            jacobian.T @ delta
            for jacobian, delta in zip(jax.jacobian(before)(x), deltas, strict=True)
        ]
        return products, jax.grad(lambda x: fn(forward(params, x, jnp.tanh)[1]))(x)

    with jax.enable_x64(True):
        products, gradient = both(*make((4, 6, 5, 3)))
    for product in products:
        np.testing.assert_allclose(product, gradient, rtol=1e-12)


def opposite_targets():
    """A linear unit and two examples at x = (1, 0) with targets 1 and -1."""
    params = [(jnp.array([[0.0], [0.0]]).at[1].set(2.0), jnp.zeros(1))]
    x = jnp.array([1.0, 0.0])

    def loss(target):
        return lambda h: 0.5 * jnp.sum((h - target) ** 2)

    return params, x, loss


@functools.cache
def sides_of_each():
    params, x, loss = opposite_targets()
    one = lambda t: penalty_inequality(params, x, loss(t), "identity")  # noqa: E731
    return jax.jit(jax.vmap(one))(jnp.array([1.0, -1.0]))


def test_it_holds_per_example_and_for_the_mean_of_the_squares():
    each = sides_of_each()
    np.testing.assert_allclose(each.slack, 1.0, rtol=1e-6)
    np.testing.assert_allclose(
        jnp.mean(each.input_side), jnp.mean(each.parameter_side), rtol=1e-6
    )


def test_it_does_not_hold_for_the_square_of_the_mean():
    params, x, loss = opposite_targets()
    targets = jnp.array([1.0, -1.0])

    def mean_loss(params):
        h = forward(params, x, lambda z: z)[1]
        return jnp.mean(jax.vmap(lambda t: loss(t)(h))(targets))

    of_mean = jax.jit(jax.grad(mean_loss))(params)
    right_side = sum(jnp.sum(g**2) for g in jax.tree.leaves(of_mean))
    assert right_side == 0.0
    np.testing.assert_allclose(sides_of_each().input_side, 2.0)
