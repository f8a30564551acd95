"""Networks and tasks from configs: losses, padding, standardised images, refusals."""

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import pytest

from expkit import supervised

RNG = np.random.default_rng(0)
FIELDS = {
    "dataset": "here",
    "model": "mlp",
    "hidden": (4,),
    "dropout": 0.0,
    "patch_size": 2,
    "width": 8,
    "depth": 1,
    "num_heads": 2,
}


def make_config(**changes):
    """A config for every model; a change to None removes a field."""
    values = FIELDS | changes
    return ml_collections.ConfigDict({k: v for k, v in values.items() if v is not None})


def image_splits(num_rows=6, labels=(0, 1, 2)):
    rng = np.random.default_rng(1)
    return {
        name: {
            "image": rng.integers(0, 256, size=(num_rows, 4, 4, 1)).astype(np.uint8),
            "label": np.resize(labels, num_rows),
        }
        for name in ("train", "validation", "test")
    }


@pytest.mark.parametrize("model", ["mlp", "cnn", "vit"])
def test_figures_by_row_have_the_figures_of_the_split_as_their_means(model):
    task = supervised.classification_task(make_config(model=model), image_splits())
    prepare = supervised.standardizer(task.splits["train"]["image"])
    arrays = task.splits["test"]
    make_rows = supervised.make_row_figures(task)

    @jax.jit  # all in one, since each operation by itself would be compiled
    def compute(key):
        params = task.net.init(key)
        logits = task.net.apply(params, prepare(arrays["image"]))
        return params, make_rows(params, arrays), logits

    params, rows, logits = compute(jax.random.key(0))
    assert {name: x.shape for name, x in rows.items()} == {
        "loss": (6,),
        "accuracy": (6,),
    }
    whole = supervised.make_evaluation(task)(params, "test")
    for name, values in rows.items():
        np.testing.assert_allclose(values.mean(), whole[f"test_{name}"], rtol=1e-5)
    assert len(set(np.asarray(rows["loss"]).tolist())) == 6
    np.testing.assert_array_equal(
        rows["accuracy"], np.asarray(logits).argmax(-1) == arrays["label"]
    )


@pytest.mark.parametrize("model", supervised.MODELS)
def test_every_model_has_the_outputs_asked_for(model):
    net = supervised.make_net(make_config(model=model), (4, 4, 1), 3)
    params = jax.eval_shape(net.init, jax.random.key(0))
    logits = jax.eval_shape(net.apply, params, jnp.zeros((5, 4, 4, 1)))
    assert (logits.shape, logits.dtype) == ((5, 3), jnp.float32)


def test_the_linear_model_is_a_matrix():
    net = supervised.make_net(make_config(model="linear"), (2, 3), 4)
    params = net.init(jax.random.key(0))
    (matrix,) = jax.tree.leaves(params)
    x = RNG.normal(size=(5, 2, 3)).astype(np.float32)
    expected = x.reshape(5, 6).astype(float) @ np.asarray(matrix, float)
    np.testing.assert_allclose(net.apply(params, x), expected, rtol=1e-5, atol=1e-6)


def test_the_activation_is_that_of_the_config_or_gelu():
    def hidden(**changes):
        net = supervised.make_net(make_config(**changes), (3,), 2)
        params = net.init(jax.random.key(0))
        return np.asarray(net.apply(params, jnp.ones((1, 3)))), params

    tanh, params = hidden(activation="tanh")
    weights = jax.tree.map(lambda x: np.asarray(x, float), params)
    first, last = weights["hidden"][0], weights["out"]
    h = np.tanh(np.ones((1, 3)) @ first["kernel"] + first["bias"])
    np.testing.assert_allclose(tanh, h @ last["kernel"] + last["bias"], rtol=1e-5)
    np.testing.assert_array_equal(hidden()[0], hidden(activation="gelu")[0])
    assert (hidden()[0] != tanh).any()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": "mlpp"}, "model='mlpp' is unknown; did you mean 'mlp'"),
        ({"hidden": None}, "model='mlp' needs a field: .*hidden"),
        ({"model": "vit", "width": None}, "model='vit' needs a field: .*width"),
        ({"model": "cnn", "dropout": None}, "model='cnn' needs a field: .*dropout"),
        ({"hidden": (4, 0)}, r"hidden must be at least 1, got \(4, 0\)"),
        ({"dropout": 1.0}, r"dropout must be in \[0, 1\), got 1.0"),
        ({"activation": "elu"}, "activation must be one of .*, got 'elu'"),
        ({"model": "vit", "patch_size": 3}, "patch_size=3 does not divide"),
        ({"model": "vit", "num_heads": 3}, "does not divide into num_heads=3"),
    ],
)
def test_a_network_that_cannot_be_built_is_refused_in_one_line(changes, message):
    with pytest.raises(ValueError, match=message) as error:
        supervised.make_net(make_config(**changes), (4, 4, 1), 3)
    assert "\n" not in str(error.value)


def test_standardised_images_have_mean_0_and_variance_1_over_the_training_set():
    images = RNG.integers(0, 256, size=(50, 4, 4, 2)).astype(np.uint8)
    prepare = jax.jit(supervised.standardizer(images))
    got = np.asarray(prepare(images), float)
    np.testing.assert_allclose([got.mean(), got.std()], [0.0, 1.0], atol=1e-6)
    # One map for all pixels, also of other images: differences keep their ratio.
    other = np.asarray(prepare(np.arange(4, dtype=np.uint8)))
    np.testing.assert_allclose(np.diff(other), 1 / images.std(), rtol=1e-5)
    assert other.dtype == np.float32


def test_images_of_one_value_become_zeros():
    images = np.full((3, 2, 2, 1), 7, np.uint8)
    np.testing.assert_array_equal(supervised.standardizer(images)(images), 0.0)


@pytest.mark.parametrize("has_mask", [False, True])
def test_a_classifier_has_the_mean_cross_entropy_of_the_rows_kept(has_mask):
    splits = image_splits()
    task = supervised.classification_task(make_config(model="linear"), splits)
    params = task.net.init(jax.random.key(0))
    batch = dict(splits["test"])
    kept = np.array([True, True, False, True, False, True])
    if has_mask:
        batch["mask"] = kept
    loss, figures = task.loss_fn(params, batch, None)
    images = splits["train"]["image"]
    x = (batch["image"].reshape(6, -1) - images.mean()) / images.std()
    logits = x @ np.asarray(jax.tree.leaves(params)[0], float)
    rows = np.flatnonzero(kept) if has_mask else np.arange(6)
    labels = batch["label"][rows]
    terms = np.log(np.exp(logits[rows]).sum(axis=1))
    terms -= logits[rows, labels]
    np.testing.assert_allclose(loss, terms.mean(), rtol=1e-5)
    hits = np.mean(logits[rows].argmax(axis=1) == labels)
    np.testing.assert_allclose(figures["accuracy"], hits, rtol=1e-6)


@pytest.mark.parametrize("has_mask", [False, True])
def test_a_regression_has_half_the_mean_square_of_the_rows_kept(has_mask):
    x, y = RNG.normal(size=(5, 3)), RNG.normal(size=5)
    arrays = {"x": x.astype(np.float32), "y": y.astype(np.float32)}
    task = supervised.regression_task(
        make_config(model="linear"), dict.fromkeys(("train", "validation"), arrays)
    )
    params = task.net.init(jax.random.key(0))
    kept = np.array([True, False, True, True, False])
    batch = arrays | ({"mask": kept} if has_mask else {})
    loss, figures = task.loss_fn(params, batch, None)
    errors = x @ np.asarray(jax.tree.leaves(params)[0], float)[:, 0] - y
    rows = kept if has_mask else slice(None)
    np.testing.assert_allclose(loss, 0.5 * np.mean(errors[rows] ** 2), rtol=1e-5)
    assert figures == {}
    evaluate = supervised.make_evaluation(task._replace(evaluation_rows=2))
    got = evaluate(params, "validation")  # 2, 2 and a padded 1
    assert got.keys() == {"validation_loss"}
    expected = 0.5 * np.mean(errors**2)
    np.testing.assert_allclose(got["validation_loss"], expected, rtol=1e-5)


def test_classes_that_only_the_other_splits_have_are_counted():
    splits = image_splits()
    splits["train"] = image_splits(labels=(0, 1))["train"]
    task = supervised.classification_task(make_config(), splits)
    params = task.net.init(jax.random.key(0))
    figures = supervised.make_evaluation(task)(params, "test")
    assert np.isfinite(figures["test_loss"])


def test_negative_labels_are_refused():
    splits = image_splits()
    splits["test"]["label"] = np.full(6, -1)  # how some sources say: unknown
    with pytest.raises(ValueError, match="'here' has negative labels in 'test'"):
        supervised.classification_task(make_config(), splits)


def test_images_of_many_shapes_are_refused():
    splits = image_splits()
    splits["train"]["image"] = np.empty(6, object)
    with pytest.raises(ValueError, match="images of 'here' differ in shape"):
        supervised.classification_task(make_config(), splits)
