"""Penalties, flows and perturbations of generated polynomials, derived by hand.

The loss is a cubic with closed forms for its gradient, its Hessian-vector products and
its third derivative. Sums and products have an error that is relative to the same
polynomial with all magnitudes added up, so the oracle is evaluated twice.
"""

import functools

import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import properties
import pytest
from properties import assert_close, filled, numbers, wide
from scipy import special, stats

import igr

PROPERTIES = properties.Properties("igr")
SHAPES = ((0,), (), (3,), (2, 2))
# Products of ten of these neither over- nor underflow.
EXACT = st.one_of(
    st.integers(-2, 2).map(float),
    st.integers(-8192, 8192).map(lambda i: i / 1024),
    st.sampled_from((0.0, 100.0, -100.0)),
)
DTYPES = ("float32", "bfloat16")
COEFFICIENTS = st.sampled_from((0.0, 1.0, -0.25, 0.1, 8.0))
RATES = st.sampled_from((0.0, 0.1, 1.0))


def cubic(theta, data):
    """Half of a a² and of (u · theta)², and a sixth of c a³."""
    a, c, u = data
    square = theta * theta
    along = jnp.sum(u * theta)
    return jnp.sum(a * square / 2 + c * square * theta / 6) + along * along / 2


class Oracle:
    """The cubic in float64, on one vector; of magnitudes if all are at least 0."""

    def __init__(self, theta, data):
        self.theta, *self.data = (np.ravel(wide(x)) for x in (theta, *data))

    def magnitudes(self):
        return Oracle(abs(self.theta), [abs(x) for x in self.data])

    @property
    def value(self):
        a, c, u = self.data
        t = self.theta
        return np.sum(a * t**2 / 2 + c * t**3 / 6) + (u @ t) ** 2 / 2

    @property
    def slope(self):
        a, c, u = self.data
        return a * self.theta + c * self.theta**2 / 2 + u * (u @ self.theta)

    def product(self, v):
        a, c, u = self.data
        return (a + c * self.theta) * v + u * (u @ v)

    def third(self, v):
        return self.data[1] * v**2

    def penalised(self, coefficient):
        """The value with a penalty, and its gradient."""
        g = self.slope
        return (
            self.value + coefficient * g @ g,
            g + 2 * coefficient * self.product(g),
        )

    def flow(self, rate, order):
        """The modified flow, without its sign."""
        g = self.slope
        hg = self.product(g)
        total = g + rate / 2 * hg if order > 1 else g
        if order > 2:
            total = total + rate**2 * (self.product(hg) / 3 + self.third(g) / 12)
        return total


def closed(oracle, of):
    """A quantity of the oracle, and what it is relative to."""
    pairs = zip(of(oracle), of(oracle.magnitudes()), strict=True)
    return [(want, size) for want, size in pairs]


@st.composite
def points(draw, shapes=SHAPES, dtypes=DTYPES, count=1):
    """Parameters, and coefficients of one or more cubics."""
    shape, dtype = draw(st.sampled_from(shapes)), draw(st.sampled_from(dtypes))
    theta, *rest = (draw(filled(shape, dtype, EXACT)) for _ in range(1 + 3 * count))
    data = [rest[3 * i : 3 * i + 3] for i in range(count)]
    return theta, data[0] if count == 1 else data


def compare(got, want, size, roundings, dtype, shape=None):
    """Checks a scalar or, flattened, an array like the parameters."""
    if shape is not None:
        assert np.shape(got) == shape
        assert got.dtype == dtype
        got = jnp.ravel(got)
    else:
        assert got.dtype == jnp.float32
    assert_close(got, np.float64(want), roundings=roundings, size=size, dtype=dtype)


@functools.partial(jax.jit, static_argnums=(0, 1))
def penalised(mode, argnum, theta, data, coefficient):
    """Value and gradient in the parameters, which come first or last."""
    order = (lambda d, t: cubic(t, d)) if argnum else cubic
    loss = igr.with_gradient_penalty(order, coefficient, argnum=argnum, mode=mode)
    args = (data, theta) if argnum else (theta, data)
    return jax.value_and_grad(loss, argnum)(*args)


@PROPERTIES.of(
    "with_gradient_penalty",
    cases=300,
    point=points(),
    coefficient=COEFFICIENTS,
    variant=st.sampled_from((("exact", 0), ("nested", 0), ("exact", 1))),
)
def test_penalty_and_its_gradient_are_the_closed_forms(point, coefficient, variant):
    theta, data = point
    value, slope = penalised(*variant, theta, data, coefficient)
    oracle, c = Oracle(theta, data), float(np.float32(coefficient))
    want, gradient = oracle.penalised(c)
    size, reach = oracle.magnitudes().penalised(abs(c))
    # No product has more than 4 factors of up to 8 roundings each.
    compare(value, want, size, 32, theta.dtype)
    compare(slope, gradient, reach, 32, theta.dtype, np.shape(theta))


@PROPERTIES.of(
    "with_gradient_penalty",
    cases=100,
    point=points(dtypes=("float32",)),
    coefficient=COEFFICIENTS,
)
def test_a_finite_difference_is_exact_for_quadratics(point, coefficient):
    theta, (a, c, u) = point
    data = (a, np.zeros_like(np.asarray(c)), u)
    value, slope = penalised("finite_difference", 0, theta, data, coefficient)
    oracle, c = Oracle(theta, data), float(np.float32(coefficient))
    want, gradient = oracle.penalised(c)
    size, reach = oracle.magnitudes().penalised(abs(c))
    compare(value, want, size, 32, theta.dtype)
    # Two gradients are subtracted, and multiplied by the norm over the step.
    moved = Oracle(abs(oracle.theta) + 0.01, [abs(x) for x in oracle.data])
    ratio = np.linalg.norm(moved.slope) / 0.01
    reach = reach + 2 * abs(c) * ratio * moved.slope
    compare(slope, gradient, reach, 32, theta.dtype, np.shape(theta))


@jax.jit
def implied(theta, data, rate):
    """Everything that gradient descent follows."""
    modified = igr.modified_loss(cubic, rate, momentum=0.5)
    return (
        igr.implicit_regularizer(cubic)(theta, data),
        jax.value_and_grad(modified)(theta, data),
        [igr.modified_flow(cubic, rate, order)(theta, data) for order in (1, 2, 3)],
    )


@PROPERTIES.of(
    "implicit_regularizer",
    "modified_loss",
    "modified_flow",
    cases=300,
    point=points(),
    rate=RATES,
)
def test_modified_losses_and_flows_are_the_closed_forms(point, rate):
    theta, data = point
    regularizer, (value, slope), flows = implied(theta, data, rate)
    oracle, rate = Oracle(theta, data), float(np.float32(rate))
    large, shape, dtype = oracle.magnitudes(), np.shape(theta), theta.dtype
    count = max(oracle.theta.size, 1)
    want, size = (o.slope @ o.slope / count for o in (oracle, large))
    compare(regularizer, want, size, 24, dtype)
    # h (1 + b) / (4 (1 - b)²) of b = 1/2
    (want, gradient), (size, reach) = (o.penalised(1.5 * rate) for o in (oracle, large))
    compare(value, want, size, 40, dtype)
    compare(slope, gradient, reach, 40, dtype, shape)
    for order, flow in enumerate(flows, start=1):
        want, size = (o.flow(rate, order) for o in (oracle, large))
        compare(flow, -want, size, 48, dtype, shape)


@jax.jit
def over_batches(theta, batches, rate, coefficient):
    """The losses of two batches together."""
    stacked = jax.tree.map(lambda *x: jnp.stack(x), *batches)
    modified = igr.stochastic_modified_loss(cubic, rate)
    pair = igr.two_batch_gradient_penalty(cubic, coefficient)
    return (
        jax.value_and_grad(modified)(theta, stacked),
        jax.value_and_grad(pair)(theta, *batches),
    )


@PROPERTIES.of(
    "stochastic_modified_loss",
    "two_batch_gradient_penalty",
    cases=250,
    point=points(shapes=((0,), (3,)), count=2),
    rate=RATES,
    coefficient=COEFFICIENTS,
)
def test_losses_of_two_batches_are_the_closed_forms(point, rate, coefficient):
    theta, batches = point
    modified, pair = over_batches(theta, batches, rate, coefficient)
    rate, c = (float(np.float32(x)) for x in (rate, coefficient))
    shape, dtype = np.shape(theta), theta.dtype
    both = [Oracle(theta, data) for data in batches]
    large = [o.magnitudes() for o in both]

    def means(oracles):
        parts = [o.penalised(rate / 4) for o in oracles]
        return [sum(p[i] for p in parts) / 2 for i in (0, 1)]

    def crossed(oracles, c):
        one, two = oracles
        value = (one.value + two.value) / 2 + c * one.slope @ two.slope
        cross = one.product(two.slope) + two.product(one.slope)
        return value, (one.slope + two.slope) / 2 + c * cross

    for got, want, size in (
        (modified, means(both), means(large)),
        (pair, crossed(both, c), crossed(large, abs(c))),
    ):
        compare(got[0], want[0], size[0], 40, dtype)
        compare(got[1], want[1], size[1], 40, dtype, shape)


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def per_example(mode, argnum, chunk_size, theta, batch, coefficient):
    """Loss, what it says beside it, and gradient of a batch of two."""

    def loss(theta, a, c, u):
        return cubic(theta, (a, c, u)), jnp.sum(a)

    options = {"mode": mode, "argnum": argnum, "chunk_size": chunk_size}
    mean = igr.with_per_example_gradient_penalty(
        loss, coefficient, has_aux=True, **options
    )
    return jax.value_and_grad(mean, has_aux=True)(theta, *batch)


@PROPERTIES.of(
    "with_per_example_gradient_penalty",
    cases=250,
    point=points(shapes=((0,), (3,)), count=2),
    coefficient=COEFFICIENTS,
    variant=st.sampled_from((("exact", 0, 1), ("exact", 0, 2), ("nested", 1, 1))),
)
def test_penalties_of_each_example_are_averaged(point, coefficient, variant):
    theta, examples = point
    batch = [np.stack([np.asarray(x[i]) for x in examples]) for i in range(3)]
    (value, aux), slope = per_example(*variant, theta, batch, coefficient)
    assert aux.shape == (2,)
    sums = wide(batch[0]).reshape(2, -1).sum(1)
    assert_close(aux, sums, roundings=4, size=np.abs(wide(batch[0])).sum())
    c = float(np.float32(coefficient))

    def mean(oracles, c):
        if variant[1] == 0:
            parts = [o.penalised(c) for o in oracles]
        else:  # the gradient in `a` is half a square
            parts = [
                (o.value + c * np.sum(o.theta**4) / 4, o.slope + c * o.theta**3)
                for o in oracles
            ]
        return [sum(p[i] for p in parts) / 2 for i in (0, 1)]

    oracles = [Oracle(theta, data) for data in examples]
    want, gradient = mean(oracles, c)
    size, reach = mean([o.magnitudes() for o in oracles], abs(c))
    compare(value, want, size, 40, theta.dtype)
    compare(slope, gradient, reach, 40, theta.dtype, np.shape(theta))


@jax.jit
def flooded(loss, level):
    value = igr.flood(loss, level)
    return value, jax.grad(lambda x: jnp.sum(igr.flood(x, level)))(loss)


@PROPERTIES.of(
    "flood",
    cases=300,
    short=True,
    loss=properties.arrays(elements=numbers(special=(0.0, np.nan, np.inf, 1e4, 1e-30))),
    level=st.sampled_from((0.0, 1.0, -2.0, 0.3, -np.inf, 1e4)),
)
def test_a_loss_is_reflected_at_the_level(loss, level):
    got, slope = flooded(loss, level)
    assert got.dtype == slope.dtype == loss.dtype
    x, b = wide(loss), wide(np.asarray(level).astype(loss.dtype))
    with np.errstate(invalid="ignore"):
        want = np.where(x > b, x, b + (b - x))
        want = np.where(x == b, b, want)
    size = np.where(np.isfinite(x), np.abs(x), 0.0) + 2 * np.where(
        np.isfinite(b), np.abs(b), 0.0
    )
    assert_close(got, want, roundings=2, size=size)
    is_above = x > b
    np.testing.assert_array_equal(np.asarray(got)[is_above], np.asarray(loss)[is_above])
    is_number = ~np.isnan(x)
    np.testing.assert_array_equal(
        np.float64(slope)[is_number], np.sign(np.where(x == b, 0.0, x - b))[is_number]
    )


@functools.partial(jax.jit, static_argnums=3)
def fast(weights, x, epsilon, normalize):
    """The perturbation for a linear loss, whose gradient is the weights."""
    loss = lambda tree: sum(  # noqa: E731
        jnp.sum(w * y) for w, y in zip(weights, tree, strict=True)
    )
    return igr.fast_gradient_perturbation(loss, x, epsilon, normalize=normalize)


@st.composite
def trees(draw):
    """Two arrays of one dtype, and two like them, from tiny to huge."""
    dtype = draw(st.sampled_from(tuple(properties.DTYPES)))
    scale = draw(st.sampled_from((1.0, 1e-3, 1e4 if dtype == "float16" else 1e30)))
    elements = st.integers(-4, 4).map(lambda i: i * scale / 4)
    return [[draw(filled(s, dtype, elements)) for s in ((), (5,))] for _ in "wx"]


@PROPERTIES.of(
    "fast_gradient_perturbation",
    cases=250,
    tree=trees(),
    epsilon=st.sampled_from((0.0, 1.0, 0.25, 1e-3)),
    normalize=st.booleans(),
)
def test_a_step_along_the_gradient_has_the_length_it_should(tree, epsilon, normalize):
    weights, x = tree
    got = fast(weights, x, epsilon, normalize)
    flat = np.concatenate([np.ravel(wide(w)) for w in weights])
    epsilon = float(np.float32(epsilon))
    norm = np.linalg.norm(flat) if normalize else 1.0
    want = epsilon * flat / (norm or 1.0)
    for result, like in zip(got, x, strict=True):
        assert result.dtype == like.dtype
        assert result.shape == np.shape(like)
    result = np.concatenate([np.ravel(np.asarray(r)) for r in got])
    # A quotient, six squares and their sum under a root, and two products.
    assert_close(result, want, roundings=14, dtype=np.float32)


@jax.jit
def noise(key, x, stddev):
    return igr.gaussian_perturbation(key, x, stddev)


@PROPERTIES.of(
    "gaussian_perturbation",
    cases=200,
    shape=st.sampled_from(((), (0,), (512,))),
    dtype=st.sampled_from(tuple(properties.DTYPES)),
    seed=st.integers(0, 2**31),
    stddev=st.sampled_from((0.0, 1.0, 0.3, 1e-3)),
)
def test_noise_is_gaussian_and_depends_on_key_and_shape_alone(
    shape, dtype, seed, stddev
):
    x, key = np.ones(shape, properties.DTYPES[dtype]), jax.random.key(seed)
    got = noise(key, {"x": x}, stddev)["x"]
    assert got.dtype == x.dtype
    assert got.shape == np.shape(x)
    unit = noise(key, {"x": np.full(np.shape(x), 7.0, np.float32)}, 1.0)["x"]
    want = float(np.float32(stddev)) * np.float64(unit)
    # A root of 2, a quantile and the deviation, multiplied in either order.
    assert_close(got, want, roundings=3, dtype=np.float32)
    if got.size > 1:
        # One in 1e9 samples of the right law is farther from it.
        assert stats.kstest(np.float64(unit), "norm").pvalue > 1e-9
        other = noise(jax.random.key(seed + 1), {"x": x}, 1.0)["x"]
        assert np.abs(np.corrcoef(np.float64(other), np.float64(unit))[0, 1]) < 0.3


def rates(count):
    return 0.5 / (1.0 + count)


@functools.cache
def tracker(decay, scheduled):
    """A transformation, and its jitted update for a quadratic of curvatures `a`."""
    tx = igr.track_gradient_norm(
        rates if scheduled else None, decay=decay, curvature_every=2
    )

    @jax.jit
    def update(gradient, state, params, a):
        return tx.update(gradient, state, params, grad_fn=lambda p: a * p)

    return tx, update


@PROPERTIES.of(
    "track_gradient_norm",
    "GradientNormState",
    cases=250,
    data=st.data(),
    shape=st.sampled_from(SHAPES),
    dtype=st.sampled_from(DTYPES),
    decay=st.sampled_from((0.0, 0.9, 0.99)),
    scheduled=st.booleans(),
)
def test_records_are_those_of_float64_and_updates_pass(
    data, shape, dtype, decay, scheduled
):
    *gradients, a = (data.draw(filled(shape, dtype, EXACT)) for _ in range(4))
    tx, update = tracker(decay, scheduled)
    state, squares = tx.init(a), []
    for step, g in enumerate(gradients):
        got, state = update(g, state, g, a)
        assert np.asarray(got).tobytes() == np.asarray(g).tobytes()
        assert isinstance(state, igr.GradientNormState)
        assert state.count == step + 1
        square = np.sum(wide(g) ** 2)
        squares.append(square)
        # Squares and a sum of up to four, in float32.
        assert_close(state.squared_norm, square, roundings=5)
        weights = np.array([decay ** (step - i) for i in range(step + 1)])
        mean = weights @ squares / weights.sum()
        # A difference of the means so far, and eight roundings of the weight; each
        # step keeps a part of the error of the one before.
        size = max(squares) * (step + 1)
        assert_close(state.mean_squared_norm, mean, roundings=16, size=size)
        if scheduled:
            penalty = 0.5 / (1 + step) / 4 * square
            assert_close(state.implied_penalty, penalty, roundings=9)
        else:
            assert state.implied_penalty is None
        if step % 2 == 0:
            product = wide(a) * wide(g)
            curvature = np.sum(product * wide(g)) / (square or 1.0)
            size = np.sum(np.abs(product * wide(g))) / (square or 1.0)
            norm = np.linalg.norm(product)
        eps = {"dtype": g.dtype}
        assert_close(
            state.curvature, np.float64(curvature), roundings=12, size=size, **eps
        )
        assert_close(state.product_norm, np.float64(norm), roundings=8, **eps)


@functools.partial(jax.jit, static_argnums=(3, 4))
def adversarial(x, weights, key, num_iterations, xi):
    """The perturbation and the loss of linear logits."""
    logits_fn = lambda x: x @ weights  # noqa: E731
    options = {"epsilon": 0.5, "num_iterations": num_iterations, "xi": xi}
    return (
        igr.virtual_adversarial_perturbation(logits_fn, x, key, **options),
        igr.virtual_adversarial_loss(logits_fn, x, key, **options),
    )


@PROPERTIES.of(
    "virtual_adversarial_perturbation",
    "virtual_adversarial_loss",
    cases=250,
    shape=st.sampled_from(((0, 2), (1, 2), (3, 2))),
    data=st.data(),
    seed=st.integers(0, 2**31),
)
def test_the_worst_direction_is_a_step_of_the_power_iteration(shape, data, seed):
    x = data.draw(filled(shape, elements=EXACT.filter(lambda v: abs(v) < 10)))
    weights = data.draw(filled((2, 3), elements=EXACT.filter(lambda v: abs(v) < 10)))
    key = jax.random.key(seed)
    start, _ = adversarial(x, weights, key, 0, 1e-6)
    r, loss = adversarial(x, weights, key, 1, 1e-6)
    assert r.shape == shape
    assert loss.shape == shape[:1]
    assert loss.dtype == jnp.float32
    assert (np.asarray(loss) >= 0).all()
    w, x = wide(weights), wide(x)
    norms = np.linalg.norm(np.float64(start), axis=-1)
    np.testing.assert_allclose(norms, 0.5, rtol=8 * 2.0**-24)
    for row in range(shape[0]):
        logits, change = x[row] @ w, np.float64(start)[row] @ w
        p = special.softmax(logits)
        image = w @ (p * (change - p @ change))
        # The logits and their change are sums of two; p has the error of its logits.
        reach = 4 + 4 * np.max(np.abs(x[row]) @ np.abs(w))
        spread = np.max(np.abs(np.float64(start)[row]) @ np.abs(w))
        error = 24 * 2.0**-24 * reach * np.linalg.norm(np.abs(w) @ p) * 2 * spread
        length = np.linalg.norm(image)
        got = np.float64(r)[row]
        if length > 4 * error + 1e-30:
            allowed = 0.5 * (2 * error / length + 16 * 2.0**-24)
            assert np.linalg.norm(got - 0.5 * image / length) <= allowed
        assert abs(np.linalg.norm(got) - 0.5) <= 16 * 2.0**-24 or not got.any()
        if not w.any():
            assert not got.any()
        moved = (x[row] + got) @ w
        log_p, log_q = special.log_softmax(logits), special.log_softmax(moved)
        p, q, t = np.exp(log_p), np.exp(log_q), log_q - log_p
        want = np.sum(p * (np.expm1(t) - t))
        reach = 4 + 4 * np.max((np.abs(x[row]) + np.abs(got)) @ np.abs(w))
        size = want + np.sum(np.abs(q - p) * reach + p * np.abs(t))
        size += 2.0**-24 * 32 * reach**2
        assert_close(loss[row], want, roundings=32, size=size)


def backward(layers, x, v, activation):
    """The gradient of v · h in x and in every z, by hand, and Jacobians."""
    act, slope_of = activation
    h, jacobian = x, np.eye(len(x))
    inputs, slopes, products, jacobians = [], [], [], []
    for w, b in layers:
        inputs.append(h)
        jacobians.append(jacobian)
        z = h @ w + (0.0 if b is None else b)
        products.append(w.T @ jacobian)
        slopes.append(slope_of(z))
        jacobian = slopes[-1][:, None] * products[-1]
        h = act(z)
    deltas, up = [], v
    for (w, _), slope in zip(layers[::-1], slopes[::-1], strict=True):
        deltas.insert(0, up * slope)
        up = w @ deltas[0]
    return up, deltas, inputs, products, jacobians


ACTIVATIONS = {
    "tanh": (np.tanh, lambda z: 1 / np.cosh(z) ** 2),
    "relu": (lambda z: np.maximum(z, 0), lambda z: np.float64(z > 0)),
    "identity": (lambda z: z, np.ones_like),
}


@functools.partial(jax.jit, static_argnums=3)
def inequalities(layers, x, v, activation):
    fn = lambda h: h @ v  # noqa: E731
    kinds = ("joint", "spectral", "frobenius")
    return (
        [igr.penalty_inequality(layers, x, fn, activation, norm=k) for k in kinds],
        igr.input_gradient_bound(layers, x, fn, activation),
    )


@PROPERTIES.of(
    "penalty_inequality",
    "input_gradient_bound",
    "Inequality",
    "InputGradientBound",
    cases=200,
    data=st.data(),
    name=st.sampled_from(sorted(ACTIVATIONS)),
    biased=st.booleans(),
)
def test_both_sides_of_the_inequality_are_those_of_float64(data, name, biased):
    # Quarters up to 2: the sign of every z is exact, for `relu`.
    elements = st.integers(-8, 8).map(lambda i: i / 4)
    draw = lambda shape: data.draw(filled(shape, elements=elements))  # noqa: E731
    layers = [(draw((2, 3)), draw((3,)) if biased else None), (draw((3, 2)), None)]
    x, v = draw((2,)), draw((2,))
    sides, bound = inequalities(layers, x, v, name)
    exact = [(wide(w), None if b is None else wide(b)) for w, b in layers]
    slopes = backward(exact, wide(x), wide(v), ACTIVATIONS[name])
    up, deltas, inputs, products, jacobians = slopes
    factors = [h @ h + (b is not None) for h, (_, b) in zip(inputs, exact, strict=True)]
    right = sum(f * d @ d for f, d in zip(factors, deltas, strict=True))
    # Magnitudes of the sums that make the gradients: at most those of |W| and |v|.
    largest = [np.abs(exact[1][0]) @ np.abs(wide(v)), np.abs(wide(v))]
    size = sum(f * d @ d for f, d in zip(factors, largest, strict=True))
    up_size = np.abs(exact[0][0]) @ largest[0]
    assert_close(sides[0].parameter_side, right, roundings=32, size=size)
    assert_close(bound.input_side, up @ up, roundings=32, size=up_size @ up_size)
    error, u = 32 * 2.0**-24 * np.linalg.norm(up_size), 2.0**-24
    for layer, (product, before) in enumerate(zip(products, jacobians, strict=True)):
        w = exact[layer][0]
        reach = np.linalg.norm(w) * np.linalg.norm(np.eye(2))
        reach *= 1.0 if layer == 0 else np.linalg.norm(exact[0][0])
        norms = (
            np.linalg.norm(product, 2),
            np.linalg.norm(w, 2) * np.linalg.norm(before, 2),
            np.linalg.norm(w) * np.linalg.norm(before),
        )
        for side, norm in zip(sides, norms, strict=True):
            slack = 64 * u * reach
            if norm <= 2 * slack:  # a product that cancels says nothing of its norm
                continue
            low = max(np.linalg.norm(up) - error, 0.0) / (norm + slack)
            high = (np.linalg.norm(up) + error) / (norm - slack)
            got = float(side.layer_terms[layer])
            assert low**2 * factors[layer] * (1 - 16 * u) - 2.0**-120 <= got
            assert got <= high**2 * factors[layer] * (1 + 16 * u) + 2.0**-120
    for side in sides:
        assert isinstance(side, igr.Inequality)
        np.testing.assert_allclose(side.input_side, side.layer_terms.sum(), rtol=1e-6)
    assert isinstance(bound, igr.InputGradientBound)
    first = np.linalg.norm(exact[0][0], 2) ** 2 * (deltas[0] @ deltas[0])
    if factors[0]:
        limit = np.linalg.norm(exact[0][0]) ** 2 * (largest[0] @ largest[0])
        assert_close(bound.parameter_side, first, roundings=64, size=limit)
    else:
        assert np.isinf(bound.parameter_side)


@PROPERTIES.of(
    "with_gradient_penalty",
    "with_per_example_gradient_penalty",
    "two_batch_gradient_penalty",
    "modified_loss",
    "stochastic_modified_loss",
    "modified_flow",
    "flood",
    "fast_gradient_perturbation",
    "gaussian_perturbation",
    "track_gradient_norm",
    "virtual_adversarial_loss",
    cases=100,
    short=True,
    number=st.one_of(
        st.floats(max_value=-1e-300, allow_infinity=False), st.just(np.nan)
    ),
    bad=st.sampled_from((np.inf, -np.inf, np.nan)),
    order=st.integers().filter(lambda i: i not in (1, 2, 3)),
    mode=st.text(max_size=5),
    count=st.integers(max_value=-1),
)
def test_what_is_out_of_range_is_refused_by_name_and_value(
    number, bad, order, mode, count
):
    x, key = np.ones((1, 2), np.float32), jax.random.key(0)
    fn = lambda x: jnp.sum(x)  # noqa: E731
    calls = [
        ("coefficient", bad, lambda: igr.with_gradient_penalty(cubic, bad)),
        ("coefficient", bad, lambda: igr.with_per_example_gradient_penalty(fn, bad)),
        ("coefficient", bad, lambda: igr.two_batch_gradient_penalty(cubic, bad)),
        ("mode", mode, lambda: igr.with_gradient_penalty(cubic, 1.0, mode=mode)),
        ("step", number, lambda: igr.with_gradient_penalty(cubic, 1.0, step=number)),
        (
            "chunk_size",
            count,
            lambda: igr.with_per_example_gradient_penalty(fn, 1.0, chunk_size=count),
        ),
        ("learning_rate", number, lambda: igr.modified_loss(cubic, number)),
        ("momentum", number, lambda: igr.modified_loss(cubic, 0.1, momentum=number)),
        ("learning_rate", number, lambda: igr.stochastic_modified_loss(cubic, number)),
        ("learning_rate", number, lambda: igr.modified_flow(cubic, number)),
        ("order", order, lambda: igr.modified_flow(cubic, 0.1, order)),
        ("epsilon", number, lambda: igr.fast_gradient_perturbation(fn, x, number)),
        ("stddev", number, lambda: igr.gaussian_perturbation(key, x, number)),
        ("decay", number, lambda: igr.track_gradient_norm(decay=number)),
        (
            "curvature_every",
            count,
            lambda: igr.track_gradient_norm(curvature_every=count),
        ),
        ("learning_rate", number, lambda: igr.track_gradient_norm(number)),
        (
            "num_iterations",
            count,
            lambda: igr.virtual_adversarial_loss(
                fn, x, key, epsilon=1.0, num_iterations=count
            ),
        ),
        (
            "epsilon",
            number,
            lambda: igr.virtual_adversarial_loss(fn, x, key, epsilon=number),
        ),
    ]
    for name, value, call in calls:
        with pytest.raises(ValueError, match=rf"^{name} must be ") as caught:
            call()
        assert f"got {value!r}" in str(caught.value)
    if not bad < 0:
        with pytest.raises(ValueError, match=r"^level must be a number below infinity"):
            igr.flood(x, bad)


def test_every_public_name_has_a_property_and_the_slow_run_enough_cases():
    PROPERTIES.check(igr.__all__)
