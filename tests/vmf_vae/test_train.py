"""Tasks from configs, training, resuming, and errors in one line."""

import json

import jax
import numpy as np
import pytest

from expkit import config as config_lib
from expkit import data, loop
from vmf_vae import train

SENTENCES = ("这家酒店很好", "这本书不好看", "房间太小了,不值", "我喜欢这本书!")


@pytest.fixture
def load(repository_root):
    return lambda ref: config_lib.load(f"{repository_root}/configs/vmf_vae/{ref}")


@pytest.fixture
def corpus(monkeypatch):
    """Four sentences, over and over."""

    def rows(name, split, *, data_dir=None):
        del name, data_dir
        n = {"train": 64, "validation": 20, "test": 9}[split.partition("[")[0]]
        texts = [SENTENCES[i % 4] for i in range(n)]
        return {"text": np.array(texts, object), "label": np.zeros(n)}

    monkeypatch.setattr(data, "load", rows)


def trained(config, num_steps):
    task = train.make_task(config)
    optimizer = train.make_optimizer(config)
    step = jax.jit(train.make_step(task.model, optimizer, config.kl_warmup_steps))
    init_key, key = jax.random.split(jax.random.key(0))
    state = loop.init_state(task.model.init(init_key), optimizer, key)
    batches = data.Batches(task.splits["train"], config.batch_size, seed=0)
    rows = []
    for i in range(num_steps):
        state, metrics = step(state, batches[i])
        rows.append({k: float(v) for k, v in metrics.items()})
    return task, state.params, rows


@pytest.mark.slow
@pytest.mark.usefixtures("corpus")
def test_a_text_model_learns_the_sentences(load):
    config = load(
        "reviews.py:smoke,max_length=12,min_count=1,width=16,learning_rate=1e-2"
    )
    _, _, rows = trained(config, 60)
    assert rows[-1]["loss"] < 0.6 * rows[0]["loss"]
    kl = [row["kl"] for row in rows]
    np.testing.assert_allclose(kl, kl[0], rtol=1e-6)  # the concentration is fixed


@pytest.mark.slow
def test_an_image_model_learns_and_is_evaluated_on_fixed_pixels(load):
    config = load("digits.py:model=gaussian,latent_dim=3,hidden=(32,)")
    task, params, rows = trained(config, 60)
    assert rows[-1]["loss"] < 0.8 * rows[0]["loss"]
    assert set(np.unique(task.splits["test"]["x"])) == {0.0, 1.0}
    assert len(np.unique(task.splits["train"]["x"])) > 2
    evaluate = train.make_evaluation(task, num_samples=20)
    got = evaluate(params, "test")
    assert got == evaluate(params, "test")
    loss = got["test_kl"] - got["test_reconstruction"]
    np.testing.assert_allclose(got["test_loss"], loss, rtol=1e-5)
    assert -got["test_loss"] < got["test_log_likelihood"] < 0
    assert 0 <= got["test_active_units"] <= 3


def test_annealing_changes_the_loss_and_not_the_kl_at_first(load):
    config = load("digits.py:model=gaussian,hidden=(8,)")
    task, optimizer = train.make_task(config), train.make_optimizer(config)
    state = loop.init_state(
        task.model.init(jax.random.key(0)), optimizer, jax.random.key(1)
    )
    batch = {"x": task.splits["train"]["x"][:16]}

    @jax.jit
    def first_step(warmup):
        return train.make_step(task.model, optimizer, warmup)(state, batch)[1]

    plain, annealed = first_step(0), first_step(10)
    assert annealed["kl"] == plain["kl"] > 0
    np.testing.assert_allclose(annealed["loss"], -plain["reconstruction"], rtol=1e-6)
    whole = plain["kl"] - plain["reconstruction"]
    np.testing.assert_allclose(plain["loss"], whole, rtol=1e-6)


@pytest.mark.slow
def test_a_run_that_was_stopped_ends_in_the_same_bits(load, tmp_path, monkeypatch):
    tiny = "digits.py:hidden=(8,),latent_dim=3,batch_size=8,importance_samples=2"
    tiny += ",num_steps=6,log_every=1,evaluate_every=0,checkpoint_every=2,mesh=data:1"
    config = load(tiny)
    whole = train.run(config, tmp_path / "whole")

    class Stopped(Exception):
        pass

    class Failing(data.Batches):
        def __getitem__(self, step):
            if step == 5:
                raise Stopped
            return super().__getitem__(step)

    with monkeypatch.context() as patch:
        patch.setattr(data, "Batches", Failing)
        with pytest.raises(Stopped):
            train.run(config, tmp_path / "parts")
    assert train.run(config, tmp_path / "parts") == whole
    rows = [
        [
            {k: v for k, v in json.loads(line).items() if "seconds" not in k}
            for line in (tmp_path / name / "metrics.jsonl").read_text().splitlines()
        ]
        for name in ("whole", "parts")
    ]
    assert rows[0] == rows[1]
    assert {"loss", "reconstruction", "kl", "step"} <= rows[0][0].keys()


@pytest.mark.usefixtures("corpus")
@pytest.mark.parametrize("model", train.LATENTS)
def test_every_latent_has_a_text_model(load, model):
    task = train.make_task(load(f"reviews.py:smoke,model={model}"))
    assert task.model.latent.dim == 17


@pytest.mark.parametrize(
    ("reference", "message"),
    [
        ("digits.py:dataset=reviews", "'reviews' has .* needs image"),
        ("reviews.py:dataset=digits", "'digits' has .* needs text"),
        ("digits.py:model=vfm", "model='vfm' is unknown; did you mean 'vmf'"),
        ("digits.py:concentration=big", "number >= 0, got 'big'"),
        ("digits.py:concentration=-3", "number >= 0, got -3.0"),
        ("digits.py:latent_dim=1", "integer >= 2, got 1"),
        ("digits.py:model=batch_norm,scale=0.0", "scale must be positive, got 0.0"),
        ("digits.py:encoder=vit", "encoder must be one of mlp, cnn, got 'vit'"),
        ("digits.py:hidden=(0,)", r"hidden must be sizes of at least 1, got .* \(0,\)"),
        ("digits.py:likelihood=poisson", "got 'poisson'"),
        ("digits.py:noise_scale=-1.0", "noise_scale must be positive, got -1.0"),
        ("digits.py:learning_rate=-1.0", "learning_rate must be at least 0, got -1.0"),
        ("digits.py:weight_decay=-1.0", "weight_decay must be at least 0, got -1.0"),
        ("digits.py:kl_warmup_steps=-1", "kl_warmup_steps must be at least 0, got -1"),
        ("digits.py:importance_samples=0", "importance_samples must be at least 1"),
        ("reviews.py:smoke,word_dropout=1.0", r"must be in \[0, 1\), got 1.0"),
        ("reviews.py:smoke,width=0", "width must be at least 1, got 0"),
    ],
)
def test_a_config_that_cannot_be_used_is_refused_in_one_line(
    load, tmp_path, reference, message
):
    with pytest.raises(config_lib.ConfigError, match=message) as error:
        train.run(load(reference), tmp_path / "run")
    assert "\n" not in str(error.value)
    assert not (tmp_path / "run").exists()
