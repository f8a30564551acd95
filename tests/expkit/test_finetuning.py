"""Data, model and optimizer of fine-tuning: what is loaded, drawn and refused."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import tiny_texts

from expkit import data, finetuning, labelled_texts, text

pytest.importorskip("tokenizers")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tiny_texts.write(tmp_path_factory.mktemp("texts"))


@pytest.fixture
def load(folder, repository_root):
    def call(arg="smoke", **options):
        reference = f"{repository_root}/configs/rdrop/reviews.py:{arg}"
        return tiny_texts.load(reference, folder, **options)

    return call


def test_rows_are_the_texts_of_the_splits_and_the_others_lose_their_label(load):
    config = load("smoke,num_layers=0")
    texts = finetuning.load_texts(config)
    rows = data.load_splits(config)
    train = texts.task.splits["train"]
    assert train["ids"].shape == (20, 16)
    assert set(texts.unlabelled) == {"ids"}
    whole = finetuning.load_texts(load("smoke,num_labels=0")).task.splits["train"]
    both = np.concatenate([train["ids"], texts.unlabelled["ids"]])
    assert sorted(map(tuple, both)) == sorted(map(tuple, whole["ids"]))
    ids = {c: i for i, c in enumerate(tiny_texts.CHARACTERS.characters, start=3)}
    for row, content in zip(whole["ids"], rows["train"]["text"], strict=True):
        assert row[row > 0].tolist() == [ids[c] for c in content]
    np.testing.assert_array_equal(whole["label"], np.arange(60) % 2)
    assert whole["label"].dtype == np.int32
    for split in ("validation", "test"):
        assert len(texts.task.splits[split]["label"]) == 20
    assert texts.params["head"]["kernel"].shape == (8, 2)
    assert texts.encoder.num_layers == 2


def test_only_the_head_and_the_labelled_rows_depend_on_the_seed(load):
    first, again, other = (
        finetuning.load_texts(load(f"smoke,seed={seed}")) for seed in (0, 0, 1)
    )
    jax.tree.map(np.testing.assert_array_equal, first.params, again.params)
    jax.tree.map(
        np.testing.assert_array_equal, first.params["encoder"], other.params["encoder"]
    )
    heads = [texts.params["head"]["kernel"] for texts in (first, other)]
    assert (heads[0] != heads[1]).all()
    rows = [texts.task.splits["train"]["ids"] for texts in (first, again, other)]
    np.testing.assert_array_equal(rows[0], rows[1])
    assert (rows[0] != rows[2]).any()


def test_numbers_that_are_not_whole_make_a_regression(load):
    config = load("smoke,train_split=train[:6],num_labels=0")
    config.label_column = "score"
    texts = finetuning.load_texts(config)
    train = texts.task.splits["train"]
    expected = data.load_splits(config)["train"]["score"].astype(float)
    np.testing.assert_allclose(train["label"], expected, rtol=1e-6)
    assert {rows["label"].dtype for rows in texts.task.splits.values()} == {
        np.dtype(np.float32)
    }
    assert texts.params["head"]["kernel"].shape == (8, 1)
    loss, figures = jax.jit(texts.task.loss_fn)(texts.params, train, None)
    outputs = jax.jit(texts.task.net.apply)(texts.params, {"ids": train["ids"]})
    assert outputs.shape == (6, 1)
    np.testing.assert_allclose(
        loss, np.square(outputs[:, 0] - expected).mean(), rtol=1e-5
    )
    assert figures == {}


def test_whole_numbers_among_others_are_numbers(load, folder, tmp_path):
    tiny_texts.write_lines(tmp_path, "train", ["text,label", "好,0.5", "坏,1"])
    for split in ("validation", "test"):
        tiny_texts.write_lines(tmp_path, split, ["text,label", "好,0", "坏,1"])
    config = load("smoke,num_labels=0,batch_size=2", data=tmp_path)
    for name in ("train", "validation", "test"):
        config[f"{name}_split"] = name
    splits = finetuning.load_texts(config).task.splits
    assert {rows["label"].dtype for rows in splits.values()} == {np.dtype(np.float32)}


@pytest.mark.parametrize("num_labels", [4, 7, 33])
@pytest.mark.parametrize("seed", [0, 1])
def test_the_labelled_rows_keep_the_shares_of_the_classes(num_labels, seed):
    labels = np.array([0] * 50 + [1] * 30 + [2] * 20)
    drawn, rest = labelled_texts.choose_labelled(labels, num_labels, seed)
    assert len(drawn) == num_labels
    np.testing.assert_array_equal(np.sort(np.r_[drawn, rest]), np.arange(100))
    expected = num_labels * np.array([0.5, 0.3, 0.2])
    assert np.abs(np.bincount(labels[drawn]) - expected).max() < 1
    again, _ = labelled_texts.choose_labelled(labels, num_labels, seed)
    other, _ = labelled_texts.choose_labelled(labels, num_labels, seed + 2)
    np.testing.assert_array_equal(drawn, again)
    assert drawn.tolist() != other.tolist()
    assert (np.diff(drawn) > 0).all()


@pytest.mark.parametrize("num_labels", [0, 6])
def test_all_rows_may_keep_their_label(num_labels):
    drawn, rest = labelled_texts.choose_labelled(np.arange(6) % 2, num_labels, seed=0)
    assert drawn.tolist() == list(range(6))
    assert rest.size == 0


def test_numbers_are_drawn_without_shares():
    labels = np.linspace(0, 1, 10)
    drawn, rest = labelled_texts.choose_labelled(labels, 1, seed=0)
    assert (len(drawn), len(rest)) == (1, 9)


@pytest.mark.parametrize("num_labels", [-1, 1, 9, 11])
def test_a_number_of_labels_that_cannot_be_is_refused(num_labels):
    with pytest.raises(ValueError, match=rf"0, 2\.\.8 or 10, got {num_labels}"):
        labelled_texts.choose_labelled(np.arange(10) % 2, num_labels, seed=0)


def test_the_first_layers_of_the_encoder_are_kept(load):
    _, whole = finetuning.load_encoder(load("smoke,num_layers=0"))
    sizes, params = finetuning.load_encoder(load("smoke,num_layers=1,dropout=0.25"))
    assert (sizes.num_layers, sizes.hidden_dropout, sizes.attention_dropout) == (
        1,
        0.25,
        0.25,
    )
    assert set(params["layer"]) == {0}
    jax.tree.map(
        np.testing.assert_array_equal, params, {**whole, "layer": params["layer"]}
    )
    jax.tree.map(np.testing.assert_array_equal, params["layer"][0], whole["layer"][0])


def test_an_encoder_that_is_not_pretrained_has_the_same_sizes(load):
    _, pretrained = finetuning.load_encoder(load())
    sizes, drawn = finetuning.load_encoder(load("smoke,pretrained=False"))
    shapes = functools.partial(jax.tree.map, jnp.shape)
    assert shapes(drawn) == shapes(pretrained)
    word, other = (p["embeddings"]["word"] for p in (pretrained, drawn))
    assert (word != other).all()
    _, seeded = finetuning.load_encoder(load("smoke,pretrained=False,seed=1"))
    assert (seeded["embeddings"]["word"] != other).all()
    assert sizes == finetuning.load_encoder(load())[0]


def test_pairs_have_kinds_of_tokens(load, tmp_path):
    config = load("smoke,num_layers=0")
    config.encoder, config.text_columns = None, ("text", "other")
    tokenizer = text.load_tokenizer(None)
    rows = {
        "text": ["one two", "three"],
        "other": ["four", "five six"],
        "label": [0, 1],
    }
    got = labelled_texts.encode_rows(config, tokenizer, rows, "train")
    ids, _, types = tokenizer.encode_pairs(
        rows["text"], rows["other"], max_length=16, lengths=None
    )
    assert ids.shape == (2, 16)
    np.testing.assert_array_equal(got["ids"], ids)
    np.testing.assert_array_equal(got["types"], types)


@pytest.mark.parametrize(
    ("warmup", "expected"),
    [(0.0, [1, 0.9, 0.5, 0.1, 0]), (0.2, [0, 0.5, 5 / 8, 1 / 8, 0])],
)
def test_the_schedule_is_a_triangle(load, warmup, expected):
    schedule = finetuning.linear_schedule(
        load(f"smoke,num_steps=10,warmup_fraction={warmup}")
    )
    got = [float(schedule(step)) for step in (0, 1, 5, 9, 10)]
    np.testing.assert_allclose(got, expected, atol=1e-6)


def test_the_optimizer_clips_and_decays_matrices_alone(load):
    """Against AdamW written out in numpy."""
    config = load(
        "smoke,num_steps=4,warmup_fraction=0,learning_rate=0.1,weight_decay=0.5,"
        "clip_norm=1.0"
    )
    rng = np.random.default_rng(0)
    params = {"w": rng.normal(size=(2, 3)), "b": rng.normal(size=3)}
    with jax.enable_x64(True):
        optimizer = finetuning.make_adamw(config)
        ours = jax.tree.map(jnp.asarray, params)
        state, update = optimizer.init(ours), jax.jit(optimizer.update)
        m, v = ({k: np.zeros_like(x) for k, x in params.items()} for _ in range(2))
        for t, scale in enumerate((10.0, 0.01, 1.0), start=1):
            grads = {k: scale * rng.normal(size=x.shape) for k, x in params.items()}
            updates, state = update(grads, state, ours)
            ours = optax.apply_updates(ours, updates)
            norm = np.sqrt(sum(np.square(g).sum() for g in grads.values()))
            rate = 0.1 * (1 - (t - 1) / 4)
            for k, g in grads.items():
                g = g / max(norm, 1.0)
                m[k], v[k] = 0.9 * m[k] + 0.1 * g, 0.999 * v[k] + 0.001 * g**2
                step = m[k] / (1 - 0.9**t) / (np.sqrt(v[k] / (1 - 0.999**t)) + 1e-8)
                params[k] = params[k] - rate * (step + 0.5 * (k == "w") * params[k])
        for k, value in params.items():
            np.testing.assert_allclose(ours[k], value, rtol=1e-6)


def test_another_peak_of_the_learning_rate_may_be_traced(load):
    config = load("smoke,warmup_fraction=0,weight_decay=0.0")

    @jax.jit
    def update(rate):
        optimizer = finetuning.make_adamw(config, rate)
        return optimizer.update(jnp.ones(3), optimizer.init(jnp.ones(3)), jnp.ones(3))[
            0
        ]

    np.testing.assert_allclose(update(0.7), -0.7, rtol=1e-3)
