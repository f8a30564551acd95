"""Exact statements about Lion's rule, each with a control that must fail."""

import jax
import jax.numpy as jnp
import numpy as np
import optax

import lion
from expkit import claims, plots
from expkit import config as config_lib
from expkit.claims import Context, Finding
from lion import train


def check_state_memory(context: Context) -> Finding:
    """Bytes of optimizer state for each byte of parameters, of the default model."""
    del context
    config = config_lib.load("configs/lion/digits.py")
    params = jax.eval_shape(train.make_task(config).net.init, jax.random.key(0))

    def num_bytes(arrays):
        return sum(a.size * a.dtype.itemsize for a in arrays)

    def ratio(optimizer):
        # Counters are scalars: they do not grow with the model.
        state = jax.eval_shape(optimizer.init, params)
        arrays = [leaf for leaf in jax.tree.leaves(state) if leaf.ndim]
        return num_bytes(arrays) / num_bytes(jax.tree.leaves(params))

    ours, adamw = ratio(lion.lion(1e-4)), ratio(optax.adamw(1e-3))
    return claims.exact((ours, adamw) == (1.0, 2.0), ours, f"AdamW: {adamw:.3f}.")


def check_step_size(context: Context) -> Finding:
    """Largest deviation of |update| from the learning rate, over 7 decades of |g|."""
    del context
    learning_rate = 3e-4
    optimizer = lion.lion(learning_rate, weight_decay=0.0)
    adamw = optax.adamw(learning_rate, weight_decay=0.0)
    grads = _gradients(20, 1000)

    def deviation(tx):
        params = jnp.zeros(1000)
        updates = _updates(tx, params, grads)
        return float(jnp.abs(jnp.abs(updates) - jnp.float32(learning_rate)).max())

    measured, control = deviation(optimizer), deviation(adamw)
    return claims.exact(
        measured == 0.0 < control, measured, f"AdamW, the control: {control:.1e}."
    )


def check_zero_gradient(context: Context) -> Finding:
    """Largest update where the gradient has been 0 from the start."""
    del context
    grads = _gradients(20, 1000).at[:, ::2].set(0.0)
    updates = _updates(lion.lion(1e-3, weight_decay=0.0), jnp.zeros(1000), grads)
    still, moving = jnp.abs(updates[:, ::2]).max(), jnp.abs(updates[:, 1::2]).min()
    return claims.exact(
        still == 0.0 and moving > 0.0,
        float(still),
        f"Coordinates with a gradient, the control, move by at least {moving:.0e}.",
    )


def check_weight_bound(context: Context) -> Finding:
    """max |w| * weight decay after training from weights far outside the bound."""
    decay, learning_rate, steps = 2.0, 2e-3, 5000
    start = 20.0 * jax.random.normal(jax.random.key(0), (1000,))
    grads = 50.0 + _gradients(steps, 1000)

    def norms(optimizer):
        def body(carry, grad):
            params, state = carry
            updates, state = optimizer.update(grad, state, params)
            params = optax.apply_updates(params, updates)
            return (params, state), jnp.abs(jnp.asarray(params)).max() * decay

        carry = (start, optimizer.init(start))
        return np.asarray(jax.jit(lambda: jax.lax.scan(body, carry, grads)[1])())

    ours = norms(lion.lion(learning_rate, weight_decay=decay))
    sgd = norms(
        optax.chain(
            optax.add_decayed_weights(decay),
            optax.scale_by_learning_rate(learning_rate),
        )
    )
    shown = np.arange(0, steps, 20)
    curves = {
        "Lion": (shown, ours[shown], None, None),
        "SGD, decoupled decay": (shown, sgd[shown], None, None),
    }

    def draw(figure):
        axes = figure.subplots()
        plots.curves(axes, curves, ylabel="max |w| · weight decay", log_y=True)
        axes.axhline(1.0, color=axes.spines["left"].get_edgecolor(), zorder=0)

    context.figure(
        "weight_bound",
        draw,
        "Largest weight in units of 1/weight decay, from a start far outside and under "
        "a gradient that always pushes the same way. Lion ends on the line at 1.",
        f"Lion ends at {ours[-1]:.3f}, SGD at {sgd[-1]:.1f}.",
    )
    # The last approach stalls where a step is less than half a unit in the last place.
    rounding = float(jnp.finfo(jnp.float32).eps) / (learning_rate * decay)
    return claims.exact(
        ours[-1] <= 1.0 + rounding < sgd[-1],
        float(ours[-1]),
        f"Started at {np.abs(start).max() * decay:.0f}; SGD, the control, ends at "
        f"{sgd[-1]:.1f}.",
    )


def check_loss_scale(context: Context) -> Finding:
    """Parameters that differ in any bit when the loss is multiplied by 2**-20."""
    del context
    grads, params = _gradients(50, 1000), jnp.ones(1000)

    def differing(tx):
        bits = [
            np.asarray(_updates(tx, params, g)).view(np.uint32)
            for g in (grads, grads * 2.0**-20)
        ]
        return int((bits[0] != bits[1]).any(axis=0).sum())

    ours, adamw = differing(lion.lion(1e-3)), differing(optax.adamw(1e-3))
    return claims.exact(
        ours == 0 < adamw, ours, f"Of 1000; AdamW, the control: {adamw}."
    )


def _gradients(num_steps: int, size: int) -> jax.Array:
    """Normal gradients whose scale goes over seven decades from entry to entry."""
    scales = jnp.logspace(-6, 1, size, dtype=jnp.float32)
    return jax.random.normal(jax.random.key(1), (num_steps, size)) * scales[None]


def _updates(tx, params, grads):
    """Updates [num_steps, size] for given gradients, with the parameters moving."""

    def body(carry, grad):
        params, state = carry
        updates, state = tx.update(grad, state, params)
        return (optax.apply_updates(params, updates), state), updates

    return jax.jit(lambda g: jax.lax.scan(body, (params, tx.init(params)), g)[1])(grads)
