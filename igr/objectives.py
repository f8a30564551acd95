"""The training objectives of the experiments: one loss, regularised in many ways.

Each is `(problem, params, batch, key, strength) -> (objective, figures)`. The strength
is a coefficient, a level or a radius, as the comments at `OBJECTIVES` say, and may be
traced; figures hold the `cross_entropy` of the same parameters and the `accuracy`::

    problem = objectives.Problem(net.apply, lambda images: images / 255.0)
    loss, figures = objectives.OBJECTIVES["fgm"](problem, params, batch, key, 0.1)
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

import igr

Batch = dict[str, Any]
Figures = dict[str, jax.Array]
Objective = Callable[..., tuple[jax.Array, Figures]]


class Problem(NamedTuple):
    """A classifier and its inputs.

    Attributes:
        apply: `(params, x, key) -> logits`; without a key dropout is off.
        prepare: images to what the network sees; input gradients and perturbations are
            of that.
    """

    apply: Callable[..., jax.Array]
    prepare: Callable[[jax.Array], jax.Array]

    def loss(
        self, params: Any, x: jax.Array, labels: jax.Array, key: jax.Array | None = None
    ) -> tuple[jax.Array, Figures]:
        """Mean cross-entropy and accuracy of prepared inputs.

        Args:
            params: of the network.
            x: prepared inputs [batch, ...].
            labels: classes [batch].
            key: of the dropout, or None.

        Returns:
            The mean loss, and `cross_entropy` and `accuracy`.
        """
        logits = self.apply(params, x, key)
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
        accuracy = jnp.mean(logits.argmax(axis=-1) == labels)
        return losses.mean(), {"cross_entropy": losses.mean(), "accuracy": accuracy}

    def loss_of_one(
        self, params: Any, x: jax.Array, label: jax.Array, key: jax.Array | None = None
    ) -> tuple[jax.Array, Figures]:
        """As `loss`, of one example.

        Args:
            params: of the network.
            x: one prepared input.
            label: its class.
            key: of the dropout, or None.

        Returns:
            As `loss`.
        """
        return self.loss(params, x[None], label[None], key)


def _plain(problem, params, batch, key, strength):
    """The mean cross-entropy."""
    del strength
    return problem.loss(params, problem.prepare(batch["image"]), batch["label"], key)


def _parameter_penalty(problem, params, batch, key, strength):
    """The squared norm of the gradient of the batch (as in Smith et al.)."""
    penalised = igr.with_gradient_penalty(problem.loss, strength, has_aux=True)
    return penalised(params, problem.prepare(batch["image"]), batch["label"], key)


def _two_batch_penalty(problem, params, batch, key, strength):
    """The squared norm of the full gradient, from two halves, without bias."""
    x, labels = problem.prepare(batch["image"]), batch["label"]
    size = len(labels) - len(labels) % 2
    first, second = [(x[i:size:2], labels[i:size:2]) for i in range(2)]

    def loss_fn(params, batch, *, key):
        return problem.loss(params, *batch, key)[0]

    penalised = igr.two_batch_gradient_penalty(loss_fn, strength)
    _, figures = problem.loss(params, x, labels, key)
    return penalised(params, first, second, key=key), figures


def _input_penalty(problem, params, batch, key, strength):
    """The mean squared norm of the gradient of every example in its input."""
    penalised = igr.with_per_example_gradient_penalty(
        problem.loss_of_one, strength, argnum=1, has_aux=True
    )
    x, labels = problem.prepare(batch["image"]), batch["label"]
    value, figures = penalised(params, x, labels, _keys_of_each(key, len(labels)))
    return value, jax.tree.map(jnp.mean, figures)


def _flooding(problem, params, batch, key, strength):
    """The loss, turned round below a level."""
    loss, figures = _plain(problem, params, batch, key, strength)
    return igr.flood(loss, strength), figures


def _fgm(problem, params, batch, key, strength):
    """The mean of the loss and of that at inputs moved along their gradients."""
    x, labels = problem.prepare(batch["image"]), batch["label"]
    keys = _keys_of_each(key, len(labels))

    def one(x, label, key):
        def loss_fn(x):
            return problem.loss_of_one(params, x, label, key)

        moved = x + igr.fast_gradient_perturbation(lambda x: loss_fn(x)[0], x, strength)
        loss, figures = loss_fn(x)
        return 0.5 * (loss + loss_fn(moved)[0]), figures

    # Both losses of an example and its direction are those of one dropout mask.
    losses, figures = jax.vmap(one)(x, labels, keys)
    return losses.mean(), jax.tree.map(jnp.mean, figures)


def _noise(problem, params, batch, key, strength):
    """The loss at inputs with Gaussian noise; figures without it."""
    x, labels = problem.prepare(batch["image"]), batch["label"]
    noise_key, net_key = _two_keys(key)
    moved = x + igr.gaussian_perturbation(noise_key, x, strength)
    _, figures = problem.loss(params, x, labels, net_key)
    return problem.loss(params, moved, labels, net_key)[0], figures


def _vat(problem, params, batch, key, strength):
    """The loss and the divergence to the outputs at virtual adversarial inputs."""
    x, labels = problem.prepare(batch["image"]), batch["label"]
    direction_key, net_key = _two_keys(key)
    loss, figures = problem.loss(params, x, labels, net_key)
    divergence = igr.virtual_adversarial_loss(
        lambda x: problem.apply(params, x, net_key),
        x,
        direction_key,
        epsilon=strength,
    )
    return loss + divergence.mean(), figures


def _two_keys(key):
    """One for the perturbation, one for the network: none if it had none."""
    if key is None:
        return jax.random.key(0), None
    first, second = jax.random.split(key)
    return first, second


def _keys_of_each(key, size):
    """One for the dropout of every example: none if there is none."""
    return None if key is None else jax.random.split(key, size)


OBJECTIVES: dict[str, Objective] = {
    "none": _plain,
    "parameter_penalty": _parameter_penalty,  # coefficient of the squared norm
    "two_batch_penalty": _two_batch_penalty,  # coefficient of the product
    "input_penalty": _input_penalty,  # coefficient of the squared norm
    "flooding": _flooding,  # level, in nats
    "fgm": _fgm,  # L2 length of the perturbation
    "noise": _noise,  # standard deviation
    "vat": _vat,  # L2 length of the perturbation
}
