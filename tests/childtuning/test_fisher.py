"""Fisher information: the two conventions, their memory, and bad input."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

import childtuning
from childtuning import fisher
from expkit import testing
from expkit.per_example import dense_fisher
from expkit.text.encoder import EncoderConfig, apply_encoder, init_encoder

RNG = np.random.default_rng(0)


def make_params():
    rng = np.random.default_rng(1)
    return {
        "w": jnp.asarray(rng.normal(size=(5, 4)), jnp.float32),
        "layer": [jnp.asarray(rng.normal(size=(4, 3)), jnp.float32), jnp.zeros(3)],
    }


def make_batch(size, seed=0):
    rng = np.random.default_rng(seed)
    return {
        "x": jnp.asarray(rng.normal(size=(size, 5)), jnp.float32),
        "y": jnp.asarray(rng.integers(0, 3, size)),
    }


def loss_fn(params, batch):
    w, b = params["layer"]
    logits = jnp.tanh(batch["x"] @ params["w"]) @ w + b[None]
    picked = jnp.take_along_axis(jax.nn.log_softmax(logits), batch["y"][:, None], 1)
    return -jnp.mean(picked)


def numpy_gradients(params, batch):
    """Gradients of single examples by the chain rule, in float64: lists by leaf."""
    w0, (w1, b1) = np.float64(params["w"]), map(np.float64, params["layer"])
    x, y = np.float64(batch["x"]), np.asarray(batch["y"])
    h = np.tanh(x @ w0)
    z = h @ w1 + b1
    p = np.exp(z - z.max(1, keepdims=True))
    delta = p / p.sum(1, keepdims=True) - np.eye(3)[y]
    before = (delta @ w1.T) * (1 - h**2)
    return {
        "w": np.einsum("ni,nj->nij", x, before),
        "layer": [np.einsum("ni,nj->nij", h, delta), delta],
    }


def assert_close(got, wanted, rtol=2e-6):
    testing.assert_trees_close(got, wanted, "Fisher", rtol=rtol, atol=1e-9)


def test_the_papers_form_is_the_mean_of_squared_gradients_of_examples():
    params, batches = make_params(), [make_batch(6), make_batch(3, 1), make_batch(6, 2)]
    got = childtuning.fisher_information(loss_fn, params, batches)
    grads = [numpy_gradients(params, batch) for batch in batches]
    wanted = jax.tree.map(lambda *g: np.mean(np.concatenate(g) ** 2, axis=0), *grads)
    assert_close(got, wanted)
    means = jax.tree.map(lambda *g: np.mean(np.concatenate(g), axis=0) ** 2, *grads)
    with pytest.raises(AssertionError):  # the control: the square of the mean
        assert_close(got, means, rtol=0.1)


@pytest.mark.parametrize("clip_norm", [1.0, 0.05, None])
def test_the_authors_form_is_the_mean_of_squared_clipped_batch_gradients(clip_norm):
    params, batches = make_params(), [make_batch(6), make_batch(3, 1)]
    got = childtuning.fisher_information(
        loss_fn, params, batches, convention="authors", clip_norm=clip_norm
    )

    def clipped_square(g):
        mean = g.mean(axis=0)
        factor = 1.0
        if clip_norm is not None:
            factor = min(1.0, clip_norm / (np.sqrt((mean**2).sum()) + 1e-6))
        return (factor * mean) ** 2

    squares = [
        jax.tree.map(clipped_square, numpy_gradients(params, b)) for b in batches
    ]
    assert_close(got, jax.tree.map(lambda a, b: (a + b) / 2, *squares))


def test_torch_clips_a_tensor_by_the_same_factor():
    torch = pytest.importorskip("torch", reason="in no lock: see CONTRIBUTING.md")
    params, batch = make_params(), make_batch(6)
    got = childtuning.fisher_information(
        loss_fn, params, [batch], convention="authors", clip_norm=0.05
    )
    mean = numpy_gradients(params, batch)["w"].mean(axis=0)
    weight = torch.nn.Parameter(torch.zeros(5, 4, dtype=torch.float64))
    weight.grad = torch.tensor(mean)
    torch.nn.utils.clip_grad_norm_(weight, 0.05)
    wanted = weight.grad.numpy() ** 2
    np.testing.assert_allclose(got["w"], wanted, rtol=2e-6, atol=1e-9)


def test_a_dense_network_has_the_same_in_closed_form():
    rng = np.random.default_rng(3)
    sizes = [(6, 8), (8, 8), (8, 3)]
    layers = [
        (jnp.asarray(rng.normal(size=s), jnp.float32), jnp.zeros(s[1])) for s in sizes
    ]
    x, y = jnp.asarray(rng.normal(size=(7, 6)), jnp.float32), jnp.arange(7) % 3

    def losses(out, labels):
        picked = jnp.take_along_axis(jax.nn.log_softmax(out), labels[:, None], axis=1)
        return -picked[:, 0]

    def mean_loss(params, batch):
        h, labels = batch
        for w, b in params[:-1]:
            h = jnp.tanh(h @ w + b[None])
        return jnp.mean(losses(h @ params[-1][0] + params[-1][1][None], labels))

    got = childtuning.fisher_information(mean_loss, layers, [(x, y)])
    closed = dense_fisher(layers, x, lambda out: losses(out, y), jnp.tanh)
    assert_close(got, closed, rtol=1e-5)


@pytest.mark.parametrize("convention", fisher.CONVENTIONS)
@pytest.mark.parametrize(
    "num_devices",
    [
        pytest.param(1, marks=pytest.mark.slow),
        pytest.param(2, marks=pytest.mark.slow),
        4,
    ],
)
def test_examples_sharded_over_devices_give_the_same(convention, num_devices):
    params, batches = make_params(), [make_batch(8), make_batch(4, 1)]
    expected = childtuning.fisher_information(
        loss_fn, params, batches, convention=convention
    )
    mesh = jax.make_mesh(
        (num_devices,),
        ("data",),
        axis_types=(AxisType.Auto,),
        devices=jax.devices()[:num_devices],
    )
    by_example = NamedSharding(mesh, PartitionSpec("data"))
    got = childtuning.fisher_information(
        loss_fn,
        jax.device_put(params, NamedSharding(mesh, PartitionSpec())),
        jax.device_put(batches, by_example),
        convention=convention,
    )
    assert_close(got, jax.tree.map(np.asarray, expected), rtol=1e-6)


@pytest.mark.optimized
def test_each_device_takes_only_its_own_examples():
    params, batch = make_params(), make_batch(8)
    mesh = jax.make_mesh((4,), ("data",), axis_types=(AxisType.Auto,))
    placed = jax.device_put(batch, NamedSharding(mesh, PartitionSpec("data")))
    replicated = jax.device_put(params, NamedSharding(mesh, PartitionSpec()))
    zeros = jax.tree.map(jnp.zeros_like, replicated)
    lowered = fisher._add_examples.lower(
        loss_fn, replicated, zeros, placed, fisher._placement(placed)
    )
    text = lowered.compile().as_text()
    assert '"known_trip_count":{"n":"2"}' in text
    assert "all-gather" not in text


@pytest.mark.parametrize("convention", fisher.CONVENTIONS)
def test_equal_shapes_compile_once_also_in_a_later_call(convention):
    params = make_params()
    sizes = [4, 4, 3, 4, 3]
    batches = [make_batch(n, seed) for seed, n in enumerate(sizes)]
    traces = testing.TraceCounter()
    counted = traces.wrap(loss_fn)
    run = functools.partial(
        childtuning.fisher_information, counted, params, convention=convention
    )
    run(batches[:3])
    first = traces.count
    with testing.count_compilations() as log:
        run(batches)
    assert traces.count == first
    assert not log.names


def test_the_same_bits_come_twice():
    params, batches = make_params(), [make_batch(6)]
    runs = [childtuning.fisher_information(loss_fn, params, batches) for _ in range(2)]
    testing.assert_trees_equal(runs[0], runs[1], "Fisher")


def encoder_problem(num_examples=8):
    config = EncoderConfig(
        vocab_size=300,
        hidden_size=48,
        num_layers=1,
        num_heads=2,
        intermediate_size=96,
        max_positions=8,
    )
    params = jax.eval_shape(lambda key: init_encoder(config, key), jax.random.key(0))

    def loss(params, batch):
        hidden = apply_encoder(config, params, batch["ids"], batch["ids"] > 0)
        log_probabilities = jax.nn.log_softmax(hidden[:, 0])
        return -jnp.mean(
            jnp.take_along_axis(log_probabilities, batch["y"][:, None], axis=1)
        )

    rows = jax.ShapeDtypeStruct((num_examples, 4), jnp.int32)
    labels = jax.ShapeDtypeStruct((num_examples,), jnp.int32)
    return loss, params, {"ids": rows, "y": labels}


def gradients_in_memory(fn, loss, params, batch):
    """Temporary memory of a step over a batch, in units of one gradient."""
    analysis = fn(loss, params, params, batch, None).compile().memory_analysis()
    size = sum(4 * leaf.size for leaf in jax.tree.leaves(params))
    # The sum that goes in is the one that comes out.
    assert analysis.alias_size_in_bytes == size
    return analysis.temp_size_in_bytes / size


@pytest.mark.optimized
def test_one_gradient_is_in_memory_beside_the_model_and_the_result():
    loss, params, batch = encoder_problem()
    of_scan = gradients_in_memory(fisher._add_examples.lower, loss, params, batch)
    assert of_scan <= 1.2

    def by_vmap(params, total, batch):
        def squares(example):
            example = jax.tree.map(lambda leaf: leaf[None], example)
            return jax.tree.map(jnp.square, jax.grad(loss)(params, example))

        every = jax.vmap(squares)(batch)
        return jax.tree.map(lambda t, s: t + s.sum(axis=0), total, every)

    def lower(_, params, total, batch, __):
        return jax.jit(by_vmap, donate_argnums=1).lower(params, total, batch)

    assert gradients_in_memory(lower, loss, params, batch) > 4  # the control


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_low_precision_parameters_give_float32_and_integers_zero(dtype):
    params = {"w": jnp.ones(3, dtype), "i": jnp.arange(3), "none": None}
    x = jnp.asarray(RNG.normal(size=(4, 3)), dtype)
    got = childtuning.fisher_information(
        lambda p, x: jnp.mean(x @ p["w"]).astype(jnp.float32), params, [x]
    )
    assert got["w"].dtype == got["i"].dtype == jnp.float32
    np.testing.assert_allclose(got["w"], np.mean(np.float32(x) ** 2, axis=0), rtol=5e-7)
    np.testing.assert_array_equal(got["i"], 0.0)
    assert got["none"] is None


@pytest.mark.parametrize("convention", ["paper", "authors"])
def test_complex_parameters_have_none(convention):
    """Their gradient has two parts; the square of the real one depends on a phase."""
    params = {"c": jnp.complex64(2 + 1j), "r": jnp.float32(3.0)}

    def loss_fn(params, batch):
        return jnp.mean(jnp.abs(params["c"] * batch) ** 2) + params["r"] ** 2

    got = childtuning.fisher_information(
        loss_fn, params, [jnp.ones(4)], convention=convention, clip_norm=None
    )
    assert got["c"].dtype == jnp.float32
    assert got == {"c": 0.0, "r": 36.0}


def test_it_works_inside_jit_and_with_a_loss_over_a_traced_array():
    params, batch = make_params(), make_batch(4)

    @jax.jit
    def scaled(params, batch, scale):
        def loss(p, b):
            return scale * loss_fn(p, b)

        return childtuning.fisher_information(loss, params, [batch])

    plain = childtuning.fisher_information(loss_fn, params, [batch])
    for scale in (1.0, 3.0):
        wanted = jax.tree.map(lambda f, s=scale: np.float64(f) * s**2, plain)
        assert_close(scaled(params, batch, scale), wanted)


@pytest.mark.parametrize("convention", fisher.CONVENTIONS)
def test_a_loss_that_is_not_finite_is_refused_by_batch(convention):
    params = make_params()
    bad = make_batch(4)
    bad["x"] = bad["x"].at[2, 0].set(jnp.nan)
    with pytest.raises(ValueError, match="loss_fn is not finite on batch 1: nan"):
        childtuning.fisher_information(
            loss_fn, params, [make_batch(4), bad], convention=convention
        )


def test_a_gradient_that_is_not_finite_is_refused_by_path():
    with pytest.raises(ValueError, match=r"gradient is not finite at .*'w'"):
        childtuning.fisher_information(
            lambda p, x: jnp.mean(x) * jnp.sum(jnp.sqrt(p["w"])),
            {"w": jnp.zeros(2)},
            [jnp.ones((2, 1))],
        )


@pytest.mark.parametrize(
    ("batches", "options", "message"),
    [
        ([], {}, "at least one example, got none"),
        ([make_batch(0)], {}, "at least one example, got none"),
        ([make_batch(0)], {"convention": "authors"}, "at least one example"),
        ([make_batch(2), make_batch(0)], {}, "^batch 1 must hold at least one example"),
        (make_batch(2), {}, "got one dict; put it in a list"),
        (jnp.ones((2, 5)), {}, r"got one array of shape .2, 5.; put it in a list"),
        (
            (np.ones((2, 5)), np.ones(2)),
            {},
            r"got a tuple .*; put it in .* \[\(x, y\)\]",
        ),
        (None, {}, "^batches must be an iterable of batches, got None; put"),
        ([{"x": jnp.ones((2, 5)), "y": jnp.ones(3)}], {}, r"batch 0 .* of one B"),
        ([{"x": jnp.ones((2, 5)), "y": 1.0}], {}, r"batch 0 .* of one B"),
        ([{}], {}, r"batch 0 .* of one B"),
        (  # the first five are shown
            [{name: jnp.ones(i) for i, name in enumerate("abcdefg")}],
            {},
            r"\['d'\]\": \(3,\), \"\['e'\]\": \(4,\)\}\.$",
        ),
        ([make_batch(2)], {"convention": "code"}, "one of paper, authors, got 'code'"),
        ([make_batch(2)], {"clip_norm": 0.0}, "clip_norm must be above 0 or None"),
    ],
)
def test_bad_input_is_one_error(batches, options, message):
    with pytest.raises(ValueError, match=message):
        childtuning.fisher_information(loss_fn, make_params(), batches, **options)


@pytest.mark.parametrize("convention", fisher.CONVENTIONS)
@pytest.mark.parametrize(
    ("output", "found"),
    [
        (lambda loss: (loss, {"aux": loss}), r"\('float32\[\]', "),
        (lambda loss: jnp.stack([loss, loss]), r"float32\[2\]"),
        (lambda loss: loss > 0, r"bool\[\]"),
    ],
)
def test_a_loss_that_is_no_scalar_is_refused(convention, output, found):
    message = f"^loss_fn must return one floating-point scalar, got {found}.*; take a m"
    with pytest.raises(ValueError, match=message):
        childtuning.fisher_information(
            lambda p, batch: output(loss_fn(p, batch)),
            make_params(),
            [make_batch(2)],
            convention=convention,
        )


def test_batches_may_be_tuples_and_come_from_any_iterable():
    """Gradient of w x at two rows: the mean of x^2 is 5."""
    x, y = jnp.array([1.0, 3.0]), jnp.zeros(2)
    one = jnp.array([1.0]), jnp.zeros(1)
    two = jnp.array([3.0]), jnp.zeros(1)
    for batches in ([(x, y)], ((x, y),), (one, two), iter([one, two])):
        got = childtuning.fisher_information(
            lambda p, batch: jnp.mean(p * batch[0]) + 0.0 * jnp.sum(batch[1]),
            jnp.float32(2.0),
            batches,
        )
        assert got == 5.0


def test_a_loss_without_a_hash_compiles_once():
    @dataclasses.dataclass
    class Loss:
        scale: float

        def __call__(self, params, batch):
            return self.scale * jnp.mean(batch["x"] @ params)

    loss, params, batch = Loss(2.0), jnp.ones(5), make_batch(3)
    with pytest.raises(TypeError, match="unhashable"):
        hash(loss)
    got = childtuning.fisher_information(loss, params, [batch])
    np.testing.assert_allclose(got, np.mean(4 * batch["x"] ** 2, axis=0), rtol=1e-5)
    with testing.count_compilations() as log:
        childtuning.fisher_information(loss, params, [batch])
    assert not log.names
