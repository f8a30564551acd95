"""R-Drop on the scores of spans: rdrop's two passes, gp_kl's divergence.

The scores of Global Pointer are no probabilities of one softmax, so the divergence is
the one made for them. Run: python examples/rdrop_on_spans.py
"""

import jax
import jax.numpy as jnp
import numpy as np
import optax

import gp_kl
import rdrop

TYPES, LENGTH, WIDTH, WORDS = 2, 12, 32, 20
head = gp_kl.GlobalPointer(WIDTH, TYPES, head_size=16)


def sentences(seed, count):
    """Tokens, and spans of type t from a token 2t to a token 2t + 1."""
    rng = np.random.default_rng(seed)
    tokens = rng.integers(2 * TYPES, WORDS, (count, LENGTH))
    spans = []
    for row in tokens:
        kind, start, end = rng.integers(TYPES), *sorted(rng.permutation(LENGTH)[:2])
        row[start], row[end] = 2 * kind, 2 * kind + 1
        spans.append([(int(kind), int(start), int(end))])
    labels = np.array([gp_kl.span_labels(s, TYPES, LENGTH) for s in spans])
    return jnp.array(tokens), labels, spans


def scores_fn(params, tokens, key=None):
    """Scores [batch, types, n, n]; with a key, half of the features are dropped."""
    hidden = params["words"][tokens]
    if key is not None:
        kept = jax.random.bernoulli(key, 0.5, hidden.shape)
        hidden = jnp.where(kept, 2.0 * hidden, 0.0)
    return head.apply(params["head"], hidden, jnp.ones(tokens.shape, bool))


@jax.jit
def train(alpha, tokens, labels):
    """Parameters and losses of 150 steps."""
    key, words_key, head_key = jax.random.split(jax.random.key(0), 3)
    words = 0.5 * jax.random.normal(words_key, (WORDS, WIDTH))
    params = {"words": words, "head": head.init(head_key)}
    tx = optax.adam(1e-2)

    def loss_fn(params, key):
        passes = rdrop.two_passes(scores_fn, params, tokens, key)
        return gp_kl.span_rdrop_loss(*passes, labels, alpha)

    def step(carry, key):
        loss, grads = jax.value_and_grad(loss_fn)(carry[0], key)
        updates, state = tx.update(grads, carry[1])
        return (optax.apply_updates(carry[0], updates), state), loss

    carry = params, tx.init(params)
    (params, _), losses = jax.lax.scan(step, carry, jax.random.split(key, 150))
    return params, losses


def main():
    """Returns losses, F1 on new sentences and the divergence of passes, by alpha."""
    (tokens, labels, _), (unseen, _, gold) = sentences(0, 64), sentences(1, 100)
    score, found = jax.jit(scores_fn), {}
    for alpha in (0.0, 1.0):
        params, losses = train(alpha, tokens, labels)
        predicted = map(gp_kl.decode_spans, np.array(score(params, unseen)))
        passes = rdrop.two_passes(score, params, unseen, jax.random.key(2))
        apart = float(gp_kl.span_divergence(*passes).mean())
        found[alpha] = losses, gp_kl.span_f1(list(predicted), gold), apart
        print(f"alpha {alpha}: loss {losses[0]:.1f} -> {losses[-1]:.2f},", end=" ")
        print(f"F1 {found[alpha][1]:.2f}, divergence of two passes {apart:.2f}")
    return found


if __name__ == "__main__":
    main()
