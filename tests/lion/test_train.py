"""Tasks from configs, and their evaluation against a loop in numpy."""

import functools
import hashlib
import json

import jax
import numpy as np
import pytest
import scipy.special

from expkit import config as config_lib
from expkit import data, loop, supervised, text
from lion import train

TINY = "smoke,num_steps=30,batch_size=16,max_length=12"
SENTENCES = ("这家酒店很好", "这本书不好看", "房间太小了,不值", "我喜欢这本书!")


@pytest.fixture
def load(repository_root):
    return lambda ref: config_lib.load(f"{repository_root}/configs/lion/{ref}")


@pytest.fixture
def corpus(monkeypatch):
    """Four sentences, over and over; the lengths differ."""

    def rows(name, split, *, data_dir=None):
        del name, data_dir
        n = {"train": 64, "validation": 70, "test": 9}[split.partition("[")[0]]
        texts = [SENTENCES[i % 4] for i in range(n)]
        return {"text": np.array(texts, object), "label": np.zeros(n)}

    monkeypatch.setattr(data, "load", rows)


def unigram_entropy(task):
    ids = task.splits["train"]["ids"]
    counts = np.bincount(ids[ids != text.PAD])
    p = counts[counts > 0] / counts.sum()
    return -np.sum(p * np.log(p))


@pytest.mark.usefixtures("corpus")
def test_the_loss_starts_at_the_unigram_entropy_and_falls_far_below_it(load):
    config = load(f"zh_char.py:{TINY},width=32,num_heads=2,learning_rate=5e-3")
    task = train.make_task(config)
    entropy = unigram_entropy(task)
    optimizer = train.make_optimizer(config)
    init_key, key = jax.random.split(jax.random.key(0))
    state = loop.init_state(task.net.init(init_key), optimizer, key)
    evaluate = supervised.make_evaluation(task)
    np.testing.assert_allclose(
        evaluate(state.params, "validation")["validation_loss"], entropy, atol=0.25
    )
    step = jax.jit(loop.make_step(task.loss_fn, optimizer))
    batches = data.Batches(task.splits["train"], config.batch_size, seed=0)
    for i in range(config.num_steps):
        state, _ = step(state, batches[i])
    assert evaluate(state.params, "validation")["validation_loss"] < 0.7 * entropy


@pytest.mark.usefixtures("corpus")
def test_evaluation_is_the_mean_over_all_masked_positions(load):
    task = train.make_task(load(f"zh_char.py:{TINY}"))
    params = task.net.init(jax.random.key(1))
    arrays = task.splits["validation"]
    assert len(arrays["ids"]) % task.evaluation_rows  # the last batch is padded
    corrupted = np.where(arrays["selected"], text.MASK, arrays["ids"])
    logits = np.asarray(jax.jit(task.net.apply)(params, corrupted), np.float64)
    losses, hits = [], []
    for i, j in zip(*np.nonzero(arrays["selected"]), strict=True):
        true = arrays["ids"][i, j]
        losses.append(scipy.special.logsumexp(logits[i, j]) - logits[i, j, true])
        hits.append(logits[i, j].argmax() == true)
    expected = {"loss": np.mean(losses), "accuracy": np.mean(hits)}
    expected["perplexity"] = np.exp(expected["loss"])
    got = supervised.make_evaluation(task)(params, "validation")
    assert got.keys() == {f"validation_{name}" for name in expected}
    for name, value in expected.items():
        np.testing.assert_allclose(got[f"validation_{name}"], value, rtol=1e-4)
    other = supervised.make_evaluation(task._replace(evaluation_rows=7))
    for name, value in other(params, "validation").items():
        np.testing.assert_allclose(value, got[name], rtol=1e-5)


def test_evaluation_of_a_classifier_is_the_mean_over_all_rows(load):
    task = train.make_task(load("digits.py:smoke"))._replace(evaluation_rows=100)
    params = task.net.init(jax.random.key(0))
    arrays = task.splits["test"]
    loss, metrics = jax.jit(task.loss_fn)(params, arrays, None)
    got = supervised.make_evaluation(task)(params, "test")
    assert len(arrays["label"]) % 100
    np.testing.assert_allclose(got["test_loss"], loss, rtol=1e-5)
    np.testing.assert_allclose(got["test_accuracy"], metrics["accuracy"], rtol=1e-5)


@pytest.mark.usefixtures("corpus")
def test_held_out_masks_do_not_depend_on_the_seed_of_the_run(load):
    tasks = [train.make_task(load(f"zh_char.py:{TINY},seed={s}")) for s in (0, 1)]
    selected = [task.splits["test"]["selected"] for task in tasks]
    np.testing.assert_array_equal(*selected)


@pytest.mark.parametrize(
    ("reference", "message"),
    [
        ("digits.py:smoke,dataset=reviews", "'reviews' has texts"),
        ("zh_char.py:dataset=digits", "'digits' has no texts"),
        ("zh_char.py:smoke,mask_rate=0.0", r"rate must be in \(0, 1\], got 0.0"),
        ("zh_char.py:smoke,max_length=0", "max_length must be at least 1, got 0"),
        ("imagenet.py", "'imagenet2012' is not prepared"),
    ],
)
def test_a_config_that_cannot_be_used_is_refused_in_one_line(
    load, tmp_path, reference, message
):
    with pytest.raises(config_lib.ConfigError, match=message) as error:
        train.run(load(reference), tmp_path / "run")
    assert "\n" not in str(error.value)
    assert not (tmp_path / "run").exists()


def test_images_of_many_shapes_are_refused(load, monkeypatch):
    images = np.empty(2, object)
    images[:] = [np.zeros((4, 5, 3), np.uint8), np.zeros((6, 4, 3), np.uint8)]
    rows = {"image": images, "label": np.array([0, 1])}
    monkeypatch.setattr(data, "load", lambda *args, **options: rows)
    with pytest.raises(ValueError, match="'imagenet2012' differ in shape"):
        train.make_task(load("imagenet.py"))


def test_the_imagenet_model_is_a_vit_b_16(load):
    config = load("imagenet.py")
    make = functools.partial(supervised.MODELS["vit"], config, (224, 224, 3), 1000)
    params = jax.eval_shape(make().init, jax.random.key(0))
    size = sum(leaf.size for leaf in jax.tree.leaves(params))
    # 86,567,656 (timm's vit_base_patch16_224) less the class token and its position.
    assert size == 86_567_656 - 2 * 768


@pytest.mark.slow
@pytest.mark.usefixtures("corpus")
def test_a_pre_trained_encoder_is_written_and_is_the_model_of_the_run(load, tmp_path):
    pytest.importorskip("tokenizers")
    safetensors_numpy = pytest.importorskip("safetensors.numpy")
    config = load("zh_char.py:smoke,model=encoder,max_length=12,num_heads=2")
    figures = train.run(config, tmp_path)
    sizes, params = text.load_encoder(tmp_path / "encoder")
    tokenizer = text.load_tokenizer(tmp_path / "encoder")
    characters = set("".join(SENTENCES)) - {"\n"}
    assert sizes.vocab_size == tokenizer.vocab_size
    assert (sizes.hidden_size, sizes.num_layers, sizes.is_rotary) == (8, 1, True)
    assert sizes.norm_first
    task = train.make_task(config)
    arrays = task.splits["test"]
    ids, _ = tokenizer.encode(list(SENTENCES), max_length=12)
    np.testing.assert_array_equal(arrays["ids"][:4], ids[:, :12])
    assert len(characters) >= sizes.vocab_size - 3
    # The figures of the run follow from the files, up to half precision.
    tensors = safetensors_numpy.load_file(tmp_path / "encoder" / "model.safetensors")
    assert tensors["output.bias"].dtype == np.float16
    whole = {"encoder": params, "bias": tensors["output.bias"].astype(np.float32)}
    again = supervised.make_evaluation(task)(whole, "test")
    assert again["test_loss"] == pytest.approx(figures["test_loss"], abs=0.01)
    content = json.loads((tmp_path / "encoder" / "pretraining.json").read_text())
    assert content["figures"] == pytest.approx(figures)
    assert [step for step, _ in content["losses"]] == [1, 2]
    rows = "\n".join(SENTENCES[i % 4] for i in range(64))
    assert content["training_texts"] == {
        "number": 64,
        "characters": len(rows) - 63,
        "sha256": hashlib.sha256(rows.encode()).hexdigest(),
    }


@pytest.mark.slow
@pytest.mark.usefixtures("corpus")
def test_other_models_write_no_encoder(load, tmp_path):
    train.run(load("zh_char.py:smoke,max_length=12"), tmp_path)
    assert not (tmp_path / "encoder").exists()


def test_the_encoder_starts_at_the_unigrams_and_hides_its_padding(load, corpus):
    del corpus
    config = load("zh_char.py:smoke,model=encoder,max_length=12,num_heads=2")
    task = train.make_task(config)
    params = task.net.init(jax.random.key(0))
    ids = task.splits["train"]["ids"][:8]
    assert (ids == text.PAD).any()
    logits = np.asarray(jax.jit(task.net.apply)(params, ids), float)
    p = scipy.special.softmax(logits, axis=-1)[ids != text.PAD]
    whole = task.splits["train"]["ids"]
    counts = np.bincount(whole[whole != text.PAD], minlength=p.shape[1])
    expected = (1 + counts) / (1 + counts).sum()
    assert np.abs(np.log(p / expected)).max() < 0.5
