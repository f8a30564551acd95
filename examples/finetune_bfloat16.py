"""Fine-tune 30 % of a network in bfloat16: ChildTuning, Lion, rounding, MultiSteps.

A network that knows upright digits learns transposed ones. Only the weights with the
largest Fisher information move; and since most steps are smaller than half the spacing
of bfloat16, they are rounded at random. Run: python examples/finetune_bfloat16.py
"""

import jax
import jax.numpy as jnp
import optax

import childtuning
import lion
from expkit import data

STEPS = 200


def loss_fn(params, batch):
    """Mean cross-entropy of a perceptron, in the precision of its weights."""
    h = jax.nn.gelu(batch["image"].astype(params["w"].dtype) @ params["w"])
    logits = (h @ params["head"]).astype(jnp.float32)
    cross_entropy = optax.losses.softmax_cross_entropy_with_integer_labels
    return cross_entropy(logits, batch["label"]).mean()


def fit(tx, params, batches):
    """Trains; precision, masks and accumulation are the optimizer's business."""

    @jax.jit
    def step(params, state, batch):
        grads = jax.grad(loss_fn)(params, batch)
        updates, state = tx.update(grads, state, params)
        return optax.apply_updates(params, updates), state

    state = tx.init(params)
    for number in range(STEPS):
        params, state = step(params, state, batches[number])
    return params


def digits(split, axes):
    """Images as rows of 64 numbers in [0, 1]; `axes` says which side comes first."""
    table = data.load("digits", split)
    images = table["image"].transpose(0, *axes, 3) / 16.0
    return {"image": images.reshape(-1, 64), "label": table["label"]}


def main():
    """Returns the loss on transposed digits before and after, and what has moved."""
    upright, turned = digits("train", (1, 2)), digits("train", (2, 1))
    keys = jax.random.split(jax.random.key(0), 3)
    w = jax.random.normal(keys[0], (64, 128)) / 8
    params = {"w": w, "head": jax.random.normal(keys[1], (128, 10)) / 8}
    params = fit(optax.adam(1e-3), params, data.Batches(upright, 64, seed=0))

    fisher = childtuning.fisher_information(loss_fn, params, [turned])
    mask = childtuning.fisher_mask(fisher, 0.3)
    tx = optax.chain(
        childtuning.child_tuning_d(mask),
        lion.lion(optax.cosine_decay_schedule(1e-3, STEPS // 2), weight_decay=0.1),
        childtuning.child_tuning_d(mask),  # so that weight decay moves nothing else
        lion.stochastic_rounding(keys[2]),  # last: what follows would round again
    )
    tx = optax.MultiSteps(tx, every_k_schedule=2)  # 2 batches of 32 are a step
    start = jax.tree.map(lambda p: p.astype(jnp.bfloat16), params)
    end = fit(tx, start, data.Batches(turned, 32, seed=1))

    before, after = (float(loss_fn(p, digits("test", (2, 1)))) for p in (start, end))
    moved = jax.tree.map(lambda a, b: a != b, start, end)
    stray = jax.tree.map(lambda m, kept: (m & ~kept).any(), moved, mask)
    share = childtuning.trainable_fraction(moved)
    print(f"test loss on transposed digits: {before:.2f} -> {after:.2f}")
    print(f"{share:.1%} of the {end['w'].dtype} weights moved; the mask has 30 %")
    return before, after, share, any(map(bool, stray.values()))


if __name__ == "__main__":
    main()
