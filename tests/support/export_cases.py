"""The cases of `tests/test_export.py`: what each public function is traced with.

A case is named `package.name` or `package.Class.member`, and after a blank which
variant of it; it makes a pure function and its arguments, which may be shapes alone.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

import childtuning
import cosent
import gp_kl
import igr
import lion
import rdrop
import vmf_vae

Case = tuple[Callable[..., Any], tuple[Any, ...]]


def normal(*shape: int) -> np.ndarray:
    """The same numbers at every call."""
    return np.random.default_rng(0).standard_normal(shape).astype(np.float32)


def key() -> jax.Array:
    return jax.random.key(0)


def call(fn: Callable, *args: Any, **static: Any) -> Case:
    """A function of arrays; floats are traced as arrays too."""
    return functools.partial(fn, **static), jax.tree.map(jnp.asarray, args)


def step(optimizer: optax.GradientTransformation, **extra: Any) -> Case:
    """One update of two leaves, from the state that `init` makes."""
    params = {"w": normal(4, 16), "b": normal(3)}

    def update(params, state, gradient):
        optimizer_ = optax.with_extra_args_support(optimizer)
        updates, state = optimizer_.update(gradient, state, params, **extra)
        return optax.apply_updates(params, updates), state

    params = jax.tree.map(jnp.asarray, params)
    return update, (params, optimizer.init(params), params)


def loss(params: Any, x: jax.Array) -> jax.Array:
    """A mean over a batch, smooth in both."""
    return jnp.mean(jnp.sum(jnp.tanh(x @ params), axis=-1) ** 2)


def of_loss(make: Callable, *args: Any, batches: int = 1, **static: Any) -> Case:
    """Value and gradient of what is made from a loss."""
    made = make(loss, *args, **static)
    both = jax.value_and_grad(lambda *xs: jnp.sum(made(*xs)))
    return call(both, normal(3, 4), *[normal(8, 3)] * batches)


def scored(fn: Callable, *args: Any, **static: Any) -> Case:
    """Value and gradient in the first argument of a loss."""
    both = jax.value_and_grad(lambda *xs: jnp.sum(fn(*xs, **static)))
    return call(both, *args)


LAYERS = [(normal(3, 4), normal(4)), (normal(4, 2), normal(2))]
DIRECTION = np.eye(8, dtype=np.float32)[:2]
LABELS = np.array([0, 2, 1, 2, 0, 1, 1, 0])
IS_TRUE = LABELS > 0
MASK = {"w": normal(4, 16) > 0, "b": normal(3) > 0}
SPANS = normal(2, 3, 5, 5)
TOKENS = np.ones((2, 5), bool)


def inequality(fn: Callable, **static: Any) -> Case:
    static |= {"fn": jnp.sum, "activation": "tanh"}
    return call(lambda p, x: fn(p, x, **static), LAYERS, normal(3))


def of_counts(name: str) -> Case:
    return call(lambda *x: getattr(gp_kl.SpanCounts(*x), name), *np.arange(3))


def slack(layers: Any, x: jax.Array) -> jax.Array:
    return igr.penalty_inequality(layers, x, jnp.sum, "relu", norm="spectral").slack


def fisher(params: Any, x: jax.Array, **static: Any) -> Any:
    return childtuning.fisher_information(loss, params, [x, x], **static)


def dropped(params: jax.Array, x: jax.Array, key: jax.Array) -> jax.Array:
    return jnp.where(jax.random.bernoulli(key, 0.9, (len(x), 1)), x @ params, 0.0)


def of_pair(fn: Callable, *args: Any) -> Case:
    params = jax.eval_shape(lambda key: cosent.init_sentence_bert(key, 3, 3), key())
    return fn, (params, normal(8, 3), -normal(8, 3), *args)


def virtual(fn: Callable) -> Case:
    def made(params, x, key):
        return fn(lambda x: x @ params, x, key, epsilon=0.1)

    return call(made, normal(3, 4), normal(8, 3), key())


def of_head(head: Any, method: str) -> Case:
    params = jax.eval_shape(head.init, key())
    if method == "init":
        return head.init, (key(),)
    args = [normal(2, 5, 16), TOKENS]
    if method == "log_likelihood":
        args.insert(1, np.ones((2, 5), np.int32))
    return getattr(head, method), (params, *args)


def of_law(make: Callable, method: str, *extra: Any) -> Case:
    """A method of a distribution, which is made from traced arrays."""
    parameters = (DIRECTION, np.float32([3.0, 50.0]))

    def made(parameters, *extra):
        return getattr(make(*parameters), method)(*extra)

    return call(made, parameters, *extra)


def of_model(name: str, method: str) -> Case:
    """A method of an image model; its parameters are shapes alone."""
    model = getattr(vmf_vae, name)((4, 4, 1), 3, (8,))
    params = jax.eval_shape(model.init, key())
    images, latent = normal(2, 4, 4, 1) > 0, normal(2, 3)
    images = images.astype(np.float32)
    args = {
        "sample": (key(),),
        "decode": (latent,),
        "mean": (latent,),
        "log_likelihood": (images, latent),
        "elbo": (images, key()),
        "apply": (images, key()),
    }.get(method, (images,))
    if method == "init":
        return model.init, (key(),)
    if method == "sample":
        return functools.partial(model.sample, num_samples=2), (params, *args)
    return getattr(model, method), (params, *args)


def importance() -> Case:
    model = vmf_vae.VMFVAE((4, 4, 1), 3, (8,))
    params = jax.eval_shape(model.init, key())
    estimate = functools.partial(
        vmf_vae.importance_log_likelihood, model, num_samples=20
    )
    return estimate, (params, np.ones((2, 4, 4, 1), np.float32), key())


def of_table(method: str) -> Case:
    table = vmf_vae.FixedConcentrationSampler(8, 5.0)
    if method == "sample":
        return lambda table, *x: table.sample(*x, (3,)), (table, key(), DIRECTION)
    return lambda table, key: table.sample_angle(key, (3,)), (table, key())


def of_uniform(method: str, *args: Any) -> Case:
    return call(lambda *x: getattr(vmf_vae.SphericalUniform(8), method)(*x), *args)


OPTIMIZERS: dict[str, Callable[[], Case]] = {
    "lion.lion": lambda: step(lion.lion(1e-3)),
    "lion.lion in place": lambda: step(lion.lion(1e-3, in_place=True)),
    "lion.lion cautious": lambda: step(lion.lion(1e-3, cautious=True)),
    "lion.lion bfloat16": lambda: step(lion.lion(1e-3, mu_dtype="bfloat16")),
    "lion.lion int8": lambda: step(lion.lion(1e-3, mu_dtype="int8", in_place=True)),
    "lion.scale_by_lion": lambda: step(lion.scale_by_lion()),
    "lion.stochastic_rounding": lambda: step(lion.stochastic_rounding(key())),
    "childtuning.child_adamw": lambda: step(childtuning.child_adamw(1e-3, MASK)),
    "childtuning.child_tuning_d": lambda: step(childtuning.child_tuning_d(MASK)),
    "childtuning.child_tuning_f": lambda: step(childtuning.child_tuning_f(0.3, key())),
    "childtuning.update_dropout": lambda: step(childtuning.update_dropout(0.3, key())),
    "igr.track_gradient_norm": lambda: step(igr.track_gradient_norm(0.1)),
    "igr.track_gradient_norm curvature": lambda: step(
        igr.track_gradient_norm(curvature_every=2),
        grad_fn=lambda params: jax.tree.map(jnp.tanh, params),
    ),
}
IGR: dict[str, Callable[[], Case]] = {
    "igr.Inequality.slack": lambda: call(slack, LAYERS, normal(3)),
    "igr.fast_gradient_perturbation": lambda: call(
        lambda p, x: igr.fast_gradient_perturbation(lambda x: loss(p, x), x, 0.1),
        *(normal(3, 4), normal(8, 3)),
    ),
    "igr.flood": lambda: scored(igr.flood, 1.0, 0.5),
    "igr.gaussian_perturbation": lambda: call(
        igr.gaussian_perturbation, key(), normal(8, 3), 0.1
    ),
    "igr.implicit_regularizer": lambda: of_loss(igr.implicit_regularizer),
    "igr.input_gradient_bound": lambda: inequality(igr.input_gradient_bound),
    "igr.modified_flow": lambda: call(
        igr.modified_flow(loss, 0.1, order=3), normal(3, 4), normal(8, 3)
    ),
    "igr.modified_loss": lambda: of_loss(igr.modified_loss, 0.1),
    "igr.penalty_inequality": lambda: inequality(igr.penalty_inequality),
    "igr.penalty_inequality spectral": lambda: inequality(
        igr.penalty_inequality, norm="spectral"
    ),
    "igr.stochastic_modified_loss": lambda: call(
        igr.stochastic_modified_loss(loss, 0.1), normal(3, 4), normal(2, 8, 3)
    ),
    "igr.two_batch_gradient_penalty": lambda: of_loss(
        igr.two_batch_gradient_penalty, 0.1, batches=2
    ),
    "igr.virtual_adversarial_loss": lambda: virtual(igr.virtual_adversarial_loss),
    "igr.virtual_adversarial_perturbation": lambda: virtual(
        igr.virtual_adversarial_perturbation
    ),
    "igr.with_per_example_gradient_penalty": lambda: of_loss(
        igr.with_per_example_gradient_penalty, 0.1
    ),
} | {
    f"igr.with_gradient_penalty {mode}": lambda mode=mode: of_loss(
        igr.with_gradient_penalty, 0.1, mode=mode
    )
    for mode in ("exact", "nested", "finite_difference")
}
RDROP: dict[str, Callable[[], Case]] = {
    "rdrop.consistency_loss": lambda: scored(
        rdrop.consistency_loss, normal(8, 3), -normal(8, 3)
    ),
    "rdrop.convert_alpha": lambda: call(
        lambda alpha: rdrop.convert_alpha(alpha, "paper", "vit", 8), 1.0
    ),
    "rdrop.rdrop_loss": lambda: scored(
        rdrop.rdrop_loss, normal(8, 3), -normal(8, 3), LABELS, 1.0
    ),
    "rdrop.rdrop_regression_loss": lambda: scored(
        rdrop.rdrop_regression_loss, normal(8), -normal(8), LABELS, 1.0
    ),
    "rdrop.symmetric_kl": lambda: scored(
        rdrop.symmetric_kl, normal(8, 3), -normal(8, 3)
    ),
    "rdrop.two_passes": lambda: call(
        lambda *args: rdrop.two_passes(dropped, *args),
        *(normal(3, 4), normal(8, 3), key()),
    ),
}
CHILDTUNING: dict[str, Callable[[], Case]] = {
    "childtuning.fisher_information paper": lambda: call(
        fisher, normal(3, 4), normal(8, 3)
    ),
    "childtuning.fisher_information authors": lambda: call(
        fisher, normal(3, 4), normal(8, 3), convention="authors"
    ),
    "childtuning.fisher_mask exact": lambda: call(
        lambda fisher: childtuning.fisher_mask(fisher, 0.3), np.abs(normal(64))
    ),
    "childtuning.fisher_mask keep": lambda: call(
        lambda fisher: childtuning.fisher_mask(fisher, 0.3, ties="keep"),
        np.abs(normal(64)),
    ),
}
COSENT: dict[str, Callable[[], Case]] = {
    "cosent.average_ranks": lambda: call(cosent.average_ranks, normal(8)),
    "cosent.best_threshold": lambda: call(cosent.best_threshold, normal(8), IS_TRUE),
    "cosent.best_threshold f1": lambda: call(
        lambda *x: cosent.best_threshold(*x, "f1"), normal(8), IS_TRUE
    ),
    "cosent.binary_cosent_loss": lambda: scored(
        cosent.binary_cosent_loss, normal(8), IS_TRUE
    ),
    "cosent.bisect_threshold": lambda: call(
        cosent.bisect_threshold, normal(8), IS_TRUE, num_iterations=3
    ),
    "cosent.cosent_loss all pairs": lambda: scored(
        cosent.cosent_loss, normal(8), LABELS
    ),
    "cosent.cosent_loss sorted": lambda: scored(
        cosent.cosent_loss, normal(512), np.tile(LABELS, 64)
    ),
    "cosent.cosine_matrix": lambda: scored(
        cosent.cosine_matrix, normal(8, 3), normal(4, 3)
    ),
    "cosent.cosine_mse_loss": lambda: scored(
        cosent.cosine_mse_loss, normal(8, 3), -normal(8, 3), normal(8)
    ),
    "cosent.in_batch_contrastive_loss": lambda: scored(
        cosent.in_batch_contrastive_loss, normal(8, 3), -normal(8, 3)
    ),
    "cosent.init_sentence_bert": lambda: call(
        lambda key: cosent.init_sentence_bert(key, 3, 3), key()
    ),
    "cosent.pair_features": lambda: call(
        cosent.pair_features, normal(8, 3), -normal(8, 3)
    ),
    "cosent.pairwise_cosine": lambda: scored(
        cosent.pairwise_cosine, normal(8, 3), -normal(8, 3)
    ),
    "cosent.sentence_bert_logits": lambda: of_pair(cosent.sentence_bert_logits),
    "cosent.sentence_bert_loss": lambda: of_pair(cosent.sentence_bert_loss, LABELS),
    "cosent.spearman": lambda: call(cosent.spearman, normal(8), LABELS),
    "cosent.top_k": lambda: call(
        lambda *x: cosent.top_k(*x, 2, block_size=4), normal(2, 3), normal(9, 3)
    ),
    "cosent.unit_vectors": lambda: scored(cosent.unit_vectors, normal(8, 3)),
}
GP_KL: dict[str, Callable[[], Case]] = {
    f"gp_kl.{name}.{method}": lambda name=name, method=method: of_head(
        getattr(gp_kl, name)(16, 3), method
    )
    for name, methods in {
        "EfficientGlobalPointer": ("apply", "init"),
        "GlobalPointer": ("apply", "init"),
        "LinearChainCRF": ("decode", "init", "log_likelihood"),
    }.items()
    for method in methods
} | {
    "gp_kl.SpanCounts.f1": lambda: of_counts("f1"),
    "gp_kl.SpanCounts.precision": lambda: of_counts("precision"),
    "gp_kl.SpanCounts.recall": lambda: of_counts("recall"),
    "gp_kl.multilabel_cross_entropy": lambda: scored(
        gp_kl.multilabel_cross_entropy, SPANS, SPANS > 1.0, axis=(-2, -1)
    ),
    "gp_kl.rotary": lambda: scored(gp_kl.rotary, normal(2, 5, 8), np.arange(5)),
    "gp_kl.score_counts": lambda: call(gp_kl.score_counts, SPANS, SPANS > 1.0),
    "gp_kl.span_divergence": lambda: scored(gp_kl.span_divergence, SPANS, -SPANS),
    "gp_kl.span_mask": lambda: call(gp_kl.span_mask, TOKENS),
    "gp_kl.span_rdrop_loss": lambda: scored(
        gp_kl.span_rdrop_loss, SPANS, -SPANS, SPANS > 1.0, 1.0
    ),
    "gp_kl.sparse_multilabel_cross_entropy": lambda: scored(
        gp_kl.sparse_multilabel_cross_entropy, normal(2, 8), np.array([[0, 2], [7, -1]])
    ),
}
LAW_METHODS = ("covariance", "entropy", "kl_to_uniform", "mean", "mode")
VMF_VAE: dict[str, Callable[[], Case]] = (
    {
        f"vmf_vae.{name}.{method}": lambda name=name, method=method: of_model(
            name, method
        )
        for name in ("BatchNormVAE", "GaussianVAE", "VMFVAE")
        for method in (
            *("apply", "center", "decode", "elbo", "encode", "freeze_statistics"),
            *("init", "log_likelihood", "mean", "sample"),
        )
    }
    | {
        f"vmf_vae.VonMisesFisher.{method}": lambda method=method: of_law(
            vmf_vae.VonMisesFisher, method
        )
        for method in LAW_METHODS
    }
    | {
        f"vmf_vae.PowerSpherical.{method}": lambda method=method: of_law(
            vmf_vae.PowerSpherical, method
        )
        for method in LAW_METHODS
    }
    | {
        f"vmf_vae.{name} {dim}": lambda name=name, dim=dim: scored(
            functools.partial(getattr(vmf_vae, name), dim), np.float32([0.5, 0.9])
        )
        for dim in (3, 300)
        for name in (
            *("bessel_ratio", "concentration_for_kl", "inverse_bessel_ratio"),
            *("kl_to_uniform", "log_iv", "log_normalizer"),
        )
    }
    | {
        "vmf_vae.VonMisesFisher.log_prob": lambda: of_law(
            vmf_vae.VonMisesFisher, "log_prob", DIRECTION
        ),
        "vmf_vae.VonMisesFisher.sample": lambda: of_law(
            vmf_vae.VonMisesFisher, "sample", key()
        ),
        "vmf_vae.PowerSpherical.log_prob": lambda: of_law(
            vmf_vae.PowerSpherical, "log_prob", DIRECTION
        ),
        "vmf_vae.PowerSpherical.sample": lambda: of_law(
            vmf_vae.PowerSpherical, "sample", key()
        ),
        "vmf_vae.FixedConcentrationSampler.sample": lambda: of_table("sample"),
        "vmf_vae.FixedConcentrationSampler.sample_angle": lambda: of_table(
            "sample_angle"
        ),
        "vmf_vae.SphericalUniform.entropy": lambda: of_uniform("entropy"),
        "vmf_vae.SphericalUniform.log_prob": lambda: of_uniform("log_prob", DIRECTION),
        "vmf_vae.SphericalUniform.sample": lambda: of_uniform("sample", key()),
        "vmf_vae.fit": lambda: call(vmf_vae.fit, DIRECTION),
        "vmf_vae.importance_log_likelihood": importance,
        "vmf_vae.kl": lambda: scored(
            vmf_vae.kl, DIRECTION, np.float32(3.0), -DIRECTION, np.float32(50.0)
        ),
        "vmf_vae.sample_radial": lambda: scored(
            lambda concentration, key: vmf_vae.sample_radial(key, 8, concentration),
            *(np.float32(3.0), key()),
        ),
        "vmf_vae.sample_vmf": lambda: scored(
            lambda kappa, mu, key: vmf_vae.sample_vmf(key, mu, kappa, (3,)),
            *(np.float32(3.0), DIRECTION, key()),
        ),
    }
)
CASES = OPTIMIZERS | IGR | RDROP | CHILDTUNING | COSENT | GP_KL | VMF_VAE
# The third image model has the same methods.
ALIKE = [
    name
    for name in CASES
    if name.startswith(("vmf_vae.BatchNormVAE.", "vmf_vae.GaussianVAE."))
]
