"""Networks: shapes, sizes, a forward pass in numpy, dropout, and purity."""

import functools
import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from expkit import nets

IMAGE = (8, 6, 2)
NETS = {
    "mlp": lambda **options: nets.mlp(IMAGE, (16, 12), 5, **options),
    "linear": lambda **options: nets.mlp(IMAGE, (), 5, **options),
    "cnn": lambda **options: nets.cnn(IMAGE, (4, 8), 5, **options),
    "vit": lambda **options: nets.vit(
        IMAGE, 5, patch_size=2, width=8, depth=1, num_heads=2, **options
    ),
}
every_net = pytest.mark.parametrize("name", NETS)
# A linear network is a perceptron without hidden layers.
most_nets = pytest.mark.parametrize(
    "name", ["mlp", pytest.param("linear", marks=pytest.mark.slow), "cnn", "vit"]
)
every_net_with_dropout = pytest.mark.parametrize("name", ["mlp", "cnn", "vit"])


@pytest.fixture
def images():
    return jax.random.normal(jax.random.key(9), (3, *IMAGE))


@functools.cache
def compiled(name):
    """The two functions of a network, jitted once for all tests."""
    net = NETS[name]()
    return nets.Net(jax.jit(net.init), jax.jit(net.apply))


@functools.cache
def initial(name, seed=0):
    return compiled(name).init(jax.random.key(seed))


def leaf_types(tree):
    if isinstance(tree, dict):
        return set().union(*map(leaf_types, tree.values()))
    return {type(tree)}


@every_net
def test_outputs_are_batch_by_outputs_and_params_are_plain_dicts(name, images):
    params = initial(name)
    assert type(params) is dict
    assert all(issubclass(kind, jax.Array) for kind in leaf_types(params))
    out = compiled(name).apply(params, images)
    assert out.shape == (3, 5)
    assert out.dtype == jnp.float32
    alone = compiled(name).apply(params, images[:1])
    np.testing.assert_allclose(alone, out[:1], atol=1e-5)


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=pytest.mark.slow) for name in ("mlp", "linear")]
    + ["cnn", "vit"],
)
def test_jit_is_eager_and_repeats_itself(name, images):
    net = NETS[name](**({} if name == "linear" else {"dropout": 0.3}))
    params = initial(name)
    for key in (None, jax.random.key(1)):
        eager = net.apply(params, images, key)
        np.testing.assert_array_equal(net.apply(params, images, key), eager)
        jitted = jax.jit(net.apply)(params, images, key)
        np.testing.assert_allclose(jitted, eager, rtol=1e-5, atol=1e-6)


@most_nets
def test_applying_leaves_the_params_alone_and_init_depends_on_the_key_alone(
    name, images
):
    init, apply = compiled(name)
    first, again, other = (init(jax.random.key(seed)) for seed in (0, 0, 1))
    # Arrays cannot change; a dict that did would hold tracers.
    jax.eval_shape(lambda x: NETS[name]().apply(first, x), images)
    jax.tree.map(np.testing.assert_array_equal, first, again)
    assert not np.allclose(apply(first, images), apply(other, images))


@most_nets
def test_gradients_have_the_structure_of_params_and_reach_every_leaf(name, images):
    net, params = NETS[name](), initial(name)
    grads = jax.jit(jax.grad(lambda p: jnp.sum(net.apply(p, images) ** 2)))(params)
    assert jax.tree.structure(grads) == jax.tree.structure(params)
    assert jax.tree.map(jnp.shape, grads) == jax.tree.map(jnp.shape, params)
    for path, grad in jax.tree_util.tree_leaves_with_path(grads):
        # A constant added to all keys does not change a softmax.
        is_key_bias = "'key'" in str(path) and "'bias'" in str(path)
        assert np.any(grad) or is_key_bias, path


@most_nets
def test_vmap_over_params_is_the_loop(name, images):
    params = [initial(name, seed) for seed in range(3)]
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *params)
    together = jax.jit(jax.vmap(NETS[name]().apply, in_axes=(0, None)))
    for one, out in zip(params, together(stacked, images), strict=True):
        alone = compiled(name).apply(one, images)
        np.testing.assert_allclose(out, alone, rtol=1e-5, atol=1e-5)


def test_vmap_of_init_is_the_loop():
    keys = jax.random.split(jax.random.key(0), 3)
    stacked = jax.jit(jax.vmap(NETS["linear"]().init))(keys)
    for i, key in enumerate(keys):
        expected = compiled("linear").init(key)["out"]["kernel"]
        np.testing.assert_allclose(stacked["out"]["kernel"][i], expected, rtol=1e-6)


def mlp_size(*widths, bias=1):
    return sum((n + bias) * m for n, m in itertools.pairwise(widths))


def vit_size(*, patch_values, num_patches, width, depth, num_outputs):
    norm = 2 * width
    attention = 4 * (width * width + width)
    perceptron = width * 4 * width + 4 * width + 4 * width * width + width
    block = 2 * norm + attention + perceptron
    embedding = patch_values * width + width + num_patches * width
    return embedding + depth * block + norm + (width + 1) * num_outputs


@pytest.mark.parametrize(
    ("net", "expected"),
    [
        (nets.mlp((8, 8, 1), (128, 128), 10), mlp_size(64, 128, 128, 10)),
        (nets.mlp((7,), (), 1, use_bias=False), mlp_size(7, 1, bias=0)),
        (nets.mlp((7,), (3,), 2, use_bias=False), mlp_size(7, 3, 2, bias=0)),
        (
            nets.cnn((8, 8, 3), (4, 6), 10),
            9 * 3 * 4 + 4 + 9 * 4 * 6 + 6 + mlp_size(6, 10),
        ),
        (
            nets.vit((8, 6, 2), 5, patch_size=2, width=12, depth=3, num_heads=3),
            vit_size(patch_values=8, num_patches=12, width=12, depth=3, num_outputs=5),
        ),
    ],
)
def test_the_number_of_parameters_is_the_closed_formula(net, expected):
    params = jax.eval_shape(net.init, jax.random.key(0))
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) == expected


GELU = math.sqrt(2 / math.pi)
ACTIVATIONS = {
    "gelu": lambda x: 0.5 * x * (1 + np.tanh(GELU * (x + 0.044715 * x**3))),
    "relu": lambda x: np.maximum(x, 0),
    "softplus": lambda x: np.log1p(np.exp(x)),
    "tanh": np.tanh,
}


@pytest.mark.parametrize("activation", sorted(nets.ACTIVATIONS))
def test_an_mlp_is_the_forward_pass_written_in_numpy(activation, images):
    net = nets.mlp(IMAGE, (16, 12), 5, activation=activation)
    params = jax.tree.map(lambda p: p + 0.1, initial("mlp"))  # biases start at 0
    params = jax.tree.map(lambda p: np.asarray(p, np.float64), params)
    h = np.asarray(images, np.float64).reshape(3, -1)
    for layer in (params["hidden"][0], params["hidden"][1]):
        h = ACTIVATIONS[activation](h @ layer["kernel"] + layer["bias"])
    expected = h @ params["out"]["kernel"] + params["out"]["bias"]
    np.testing.assert_allclose(net.apply(params, images), expected, rtol=1e-4)


@every_net_with_dropout
def test_dropout_acts_with_a_key_only_and_differs_between_keys(name, images):
    apply, plain = jax.jit(NETS[name](dropout=0.5).apply), compiled(name).apply
    params, keys = initial(name), jax.random.split(jax.random.key(1))
    without = apply(params, images)
    np.testing.assert_array_equal(plain(params, images), without)
    np.testing.assert_array_equal(plain(params, images, keys[0]), without)
    drawn = [apply(params, images, key) for key in keys]
    assert not np.allclose(drawn[0], without)
    assert not np.allclose(drawn[0], drawn[1])


@pytest.mark.parametrize("rate", [0.1, pytest.param(0.5, marks=pytest.mark.slow), 0.9])
def test_dropout_keeps_the_mean(rate, images):
    # One hidden layer: the output is linear in what is dropped, so the means agree.
    net = nets.mlp(IMAGE, (16,), 5, dropout=rate)
    params = jax.jit(net.init)(jax.random.key(0))
    keys = jax.random.split(jax.random.key(1), 4000)
    draws = jax.jit(jax.vmap(net.apply, (None, None, 0)))(params, images, keys)
    bound = 4 * draws.std(axis=0) / math.sqrt(len(keys))
    gap = jnp.abs(draws.mean(axis=0) - jax.jit(net.apply)(params, images))
    assert np.all(gap < bound)
    # The sample variance is that of Bernoulli masks: h^2 rate / (1 - rate) a unit.
    hidden = params["hidden"][0]
    h = jax.nn.gelu(images.reshape(3, -1) @ hidden["kernel"] + hidden["bias"][None])
    variance = h**2 @ params["out"]["kernel"] ** 2 * rate / (1 - rate)
    np.testing.assert_allclose(draws.var(axis=0), variance, rtol=0.25)


def swap_patches(images):
    """Exchanges the first two 2x2 patches of every image."""
    first, second = images[:, :2, :2], images[:, :2, 2:4]
    return images.at[:, :2, :2].set(second).at[:, :2, 2:4].set(first)


def test_a_vit_knows_the_order_of_patches_through_its_positions_alone(images):
    apply, params = compiled("vit").apply, dict(initial("vit"))
    params["positions"] = jax.random.normal(jax.random.key(3), (12, 8))
    before, after = (apply(params, x) for x in (images, swap_patches(images)))
    assert not np.allclose(before, after, atol=1e-3)
    params["positions"] = jnp.zeros_like(params["positions"])
    before, after = (apply(params, x) for x in (images, swap_patches(images)))
    np.testing.assert_allclose(before, after, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: nets.vit(IMAGE, 5, patch_size=4), "patch_size=4 .* image 8x6"),
        (lambda: nets.vit(IMAGE, 5, patch_size=0), "patch_size .* got 0"),
        (lambda: nets.vit(IMAGE, 5, width=7, num_heads=2), "width=7 .* num_heads=2"),
        (lambda: nets.vit(IMAGE, 5, depth=-1), "depth .* got -1"),
        (lambda: nets.mlp(IMAGE, (4, 0), 5), r"hidden .* got \(4, 0\)"),
        (lambda: nets.cnn(IMAGE, (-1,), 5), r"channels .* got \(-1,\)"),
        (lambda: nets.mlp(IMAGE, (4,), 5, dropout=1.0), r"dropout .* got 1\.0"),
        (lambda: nets.cnn(IMAGE, (4,), 5, dropout=-0.1), r"dropout .* got -0\.1"),
        (lambda: nets.mlp(IMAGE, (4,), 5, activation="gelo"), "gelu.* got 'gelo'"),
    ],
)
def test_arguments_out_of_range_are_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()
