"""The 8-bit momentum: error bound, edge blocks, size, and what it does to the signs."""

import functools

import chex
import hypothesis
import hypothesis.extra.numpy as hnp
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import lion
from expkit.checkpoint import Checkpointer
from lion import momentum


@hypothesis.settings(derandomize=True, deadline=None, max_examples=25)
@hypothesis.given(
    hnp.arrays(
        np.float32,
        # Each shape is a program: few shapes, less and more than a block.
        st.sampled_from([(), (0,), (40,), (256,), (7, 90), (40, 40, 3)]),
        elements=st.floats(-1e6, 1e6, width=32, allow_subnormal=False),
    )
)
def test_error_is_that_of_half_a_level(x):
    stored = jax.jit(momentum.compress)(x)
    error = np.abs(np.float64(jax.jit(momentum.expand)(stored)) - x).ravel()
    scale = np.repeat(np.float64(stored.scales), momentum.BLOCK_SIZE)[: x.size]
    # x = s r^2 with r known to half of 1/127: |dx| <= s (2 r h + h^2).
    half = 0.5 / momentum.MAX_CODE
    r = np.sqrt(np.abs(x.ravel()) / np.where(scale == 0, 1, scale))
    assert (error <= scale * (2 * r * half + half**2) * (1 + 1e-4) + 1e-30).all()


@pytest.mark.optimized
def test_codes_come_back_as_themselves():
    codes = jnp.arange(-127, 128, dtype=jnp.int8)
    stored = momentum.Int8Momentum(codes, jnp.array([3.0]))
    again = momentum.compress(momentum.expand(stored))
    np.testing.assert_array_equal(again.codes, codes)
    np.testing.assert_allclose(again.scales, [3.0], rtol=1e-6)


@pytest.mark.optimized
@pytest.mark.parametrize("shape", [(), (1,), (3,), (256,), (257,), (5, 100), (0, 4)])
@pytest.mark.parametrize("value", [0.0, 1.5, -2.0])
def test_constant_blocks_are_exact_and_finite(shape, value):
    x = jnp.full(shape, value)
    stored = jax.jit(momentum.compress)(x)
    assert stored.codes.shape == shape
    assert stored.scales.shape == (-(-x.size // 256),)
    np.testing.assert_array_equal(jax.jit(momentum.expand)(stored), x)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_stays_visible_and_in_its_block(bad):
    values = momentum.expand(momentum.compress(jnp.ones(512).at[3].set(bad)))
    assert np.isnan(values[:256]).all()
    np.testing.assert_array_equal(values[256:], 1.0)


@pytest.mark.optimized
def test_subnormal_scales_do_not_divide_by_zero():
    tiny = jnp.full((4,), np.finfo(np.float32).tiny)
    assert np.isfinite(momentum.expand(momentum.compress(tiny))).all()


def test_a_block_of_zeros_makes_no_nan_on_the_way():
    with jax.debug_nans(True):
        stored = momentum.compress(jnp.zeros(300))
        np.testing.assert_array_equal(momentum.expand(stored), 0.0)
        with pytest.raises(FloatingPointError):  # as a control
            jnp.float32(0.0) * jnp.float32(jnp.inf)


def test_state_takes_a_quarter_of_float32():
    params = {"w": jnp.zeros((784, 256)), "b": jnp.zeros(256)}
    state = jax.eval_shape(lion.lion(1e-4, mu_dtype="int8").init, params)[0]
    size = sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(state.mu))
    assert size <= 0.27 * sum(p.nbytes for p in jax.tree.leaves(params))


@pytest.mark.parametrize("magnitude", [1e-35, 1e-20, 1e20, 3e38])
def test_the_size_of_a_block_does_not_matter(magnitude):
    x = np.linspace(-1, 1, 256, dtype=np.float32) * np.float32(magnitude)
    got = np.float64(momentum.expand(momentum.compress(jnp.asarray(x))))
    assert np.abs(got - x).max() <= magnitude / 127


@pytest.mark.parametrize(
    "in_place", [pytest.param(False, marks=pytest.mark.slow), True]
)
def test_signs_of_the_optimizer_agree_with_float32_momentum(in_place):
    key_scale, key_mean, key_noise = jax.random.split(jax.random.key(1), 3)
    scales = 10.0 ** jax.random.uniform(key_scale, (1, 5000), minval=-3.0, maxval=0.0)
    means = 0.3 * jax.random.normal(key_mean, (1, 5000))
    grads = scales * (means + jax.random.normal(key_noise, (200, 5000)))

    def signs(tx):
        start = tx.init(grads[0])
        return jax.lax.scan(lambda s, g: tx.update(g, s)[::-1], start, grads)[1]

    exact = signs(optax.scale_by_lion())
    ours = signs(lion.scale_by_lion(mu_dtype="int8", in_place=in_place))
    assert np.mean(exact == ours) >= 0.93


def linear_compress(x):
    blocks = x.reshape(-1, momentum.BLOCK_SIZE)
    scales = jnp.abs(blocks).max(axis=-1)
    safe = jnp.where(scales == 0, 1, scales)[:, None]
    return jnp.round(127 * blocks / safe).astype(jnp.int8), scales


def linear_expand(stored):
    codes, scales = stored
    return (codes * (scales / 127)[:, None]).reshape(-1)


def sign_agreement(compress, expand):
    """Mean over steps and entries, gradient scales over three decades in a block."""
    num_blocks, num_steps, b1, b2 = 10, 200, 0.9, 0.99
    size = num_blocks * momentum.BLOCK_SIZE
    key_scale, key_mean, key_noise = jax.random.split(jax.random.key(0), 3)
    scales = 10.0 ** jax.random.uniform(key_scale, (size,), minval=-3.0, maxval=0.0)
    means = 0.3 * jax.random.normal(key_mean, (size,))

    def step(carry, key):
        exact, stored = carry
        g = scales * (means + jax.random.normal(key, (size,)))
        m = expand(stored)
        directions = [jnp.sign(b1 * m + (1 - b1) * g) for m in (exact, m)]
        carry = b2 * exact + (1 - b2) * g, compress(b2 * m + (1 - b2) * g)
        return carry, jnp.mean(directions[0] == directions[1])

    start = jnp.zeros(size), compress(jnp.zeros(size))
    keys = jax.random.split(key_noise, num_steps)
    return float(jax.lax.scan(step, start, keys)[1].mean())


def test_signs_agree_with_float32_momentum_and_linear_levels_do_not():
    assert sign_agreement(momentum.compress, momentum.expand) >= 0.93
    assert sign_agreement(linear_compress, linear_expand) < 0.90


def test_state_survives_a_checkpoint(tmp_path):
    params = {"w": jnp.ones((20, 30))}
    tx = lion.lion(1e-3, mu_dtype="int8")
    _, state = tx.update({"w": jnp.ones((20, 30))}, tx.init(params), params)
    with Checkpointer(tmp_path) as checkpoints:
        checkpoints.save(1, state)
    with Checkpointer(tmp_path) as checkpoints:
        restored = checkpoints.restore(tx.init(params))
    assert isinstance(restored[0].mu, lion.Int8Momentum)
    jax.tree.map(np.testing.assert_array_equal, restored, state)


def test_codes_and_scales_have_the_structure_of_the_parameters():
    params = {"w": jnp.ones((20, 30)), "b": [jnp.ones(()), None]}
    mu = lion.scale_by_lion(mu_dtype="int8").init(params).mu
    for tree in mu:
        assert jax.tree.structure(tree) == jax.tree.structure(params)
    jax.tree.map(lambda code, p: chex.assert_shape(code, p.shape), mu.codes, params)
    specs = {"w": "rows", "b": ["none", None]}
    placed = optax.tree.map_params(
        tx := lion.lion(1e-3, mu_dtype="int8"),
        lambda _, spec: spec,
        tx.init(params),
        specs,
        transform_non_params=lambda _: "none",
    )
    assert placed[0].mu == lion.Int8Momentum(specs, specs)
    assert placed[0].count == "none"


def test_an_optimizer_of_flax_keeps_the_structure_of_its_state():
    """It boxes every leaf of a state, in which it would not know a pair again."""
    nnx = pytest.importorskip("flax.nnx")

    class Model(nnx.Module):
        def __init__(self):
            self.w = nnx.Param(jnp.ones(3))

    model = Model()
    optimizer = nnx.Optimizer(model, lion.lion(1e-2, mu_dtype="int8"), wrt=nnx.Param)
    graph, state = nnx.split((model, optimizer))

    def step(state, x):
        model, optimizer = nnx.merge(graph, state)
        gradient = nnx.grad(lambda model: (model.w[...] * x).sum())(model)
        optimizer.update(model, gradient)
        return nnx.state((model, optimizer)), None

    state, _ = jax.lax.scan(step, state, jnp.ones((4, 3)))
    nnx.update((model, optimizer), state)
    decayed = np.float64(1.0)
    for _ in range(4):
        decayed -= 1e-2 * (1.0 + 1e-3 * decayed)
    np.testing.assert_allclose(model.w[...], decayed * np.ones(3), rtol=1e-6)


def test_eight_bits_train_like_float32_on_a_quadratic():
    def final_loss(mu_dtype):
        tx = lion.lion(optax.cosine_decay_schedule(0.03, 300), mu_dtype=mu_dtype)
        target = jnp.linspace(-1.0, 1.0, 500)

        def step(carry, _):
            params, state = carry
            grads = jax.grad(lambda p: jnp.sum((p - target) ** 2))(params)
            updates, state = tx.update(grads, state, params)
            return (optax.apply_updates(params, updates), state), None

        params = jnp.zeros(500)
        (params, _), _ = jax.lax.scan(step, (params, tx.init(params)), length=300)
        return float(jnp.sum((params - target) ** 2))

    assert final_loss("int8") <= 1e-3 * float(jnp.sum(jnp.linspace(-1, 1, 500) ** 2))


@pytest.mark.parametrize(
    "mu_dtype",
    ["int16", jnp.int32, "uint8", bool, "int4", "float8_e4m3fn", "bfloat17", 3],
)
def test_a_dtype_that_cannot_hold_the_momentum_is_refused(mu_dtype):
    choices = (
        r"mu_dtype must be None, 'int8', or a floating-point .* such as 'bfloat16'"
    )
    for make in (lion.scale_by_lion, functools.partial(lion.lion, 1e-3)):
        with pytest.raises(ValueError, match=rf"^{choices}, got ") as caught:
            make(mu_dtype=mu_dtype)
        assert str(caught.value).endswith(f"got {mu_dtype!r}.")


@pytest.mark.parametrize(
    "mu_dtype", [None, "float16", jnp.bfloat16, float, np.dtype("float32"), "f2"]
)
def test_floating_point_dtypes_are_those_of_optax_lion(mu_dtype):
    params, grad = jnp.ones(2), jnp.array([1.0, -2.0])

    def momentum_after_a_step(tx):
        return tx.update(grad, tx.init(params))[1].mu

    got = momentum_after_a_step(lion.scale_by_lion(mu_dtype=mu_dtype))
    wanted = momentum_after_a_step(optax.scale_by_lion(mu_dtype=mu_dtype))
    assert got.dtype == wanted.dtype
    np.testing.assert_array_equal(got, wanted)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_updates_have_the_dtype_that_optax_gives_them(dtype):
    """With codes, which are expanded to float32, that of the gradient."""
    g = {"w": jnp.ones(3, dtype)}

    def dtype_of_update(tx):
        return jax.eval_shape(tx.update, g, tx.init(g))[0]["w"].dtype

    for mu_dtype in (None, "bfloat16", "float32"):
        ours = dtype_of_update(lion.scale_by_lion(mu_dtype=mu_dtype))
        assert ours == dtype_of_update(optax.scale_by_lion(mu_dtype=mu_dtype)), mu_dtype
    assert dtype_of_update(lion.scale_by_lion(mu_dtype="int8")) == dtype
