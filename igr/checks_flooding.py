"""What two steps of flooding amount to, and with which optimizers they do."""

import jax
import jax.numpy as jnp
import optax

import igr
from expkit.claims import Context, Finding
from igr import checks_accuracy as accuracy

LARGEST = 0.05


def check_flooding_order(context: Context) -> Finding:
    """Order in which a step down and a step up are one step on the penalty."""
    del context
    optimizers = {
        "plain": optax.sgd,
        "momentum 0.9": lambda rate: optax.sgd(rate, momentum=0.9),
        "Adam": optax.adam,
    }
    with jax.enable_x64(True):
        loss, params = accuracy.problem()
        penalised = igr.with_gradient_penalty(loss, 1.0)

        def distance(make_optimizer, rate):
            penalty = jax.grad(penalised)(params) - jax.grad(loss)(params)
            point = _two_steps(make_optimizer(rate), loss, params)
            return jnp.linalg.norm(point - (params - rate**2 / 2 * penalty))

        orders = {}
        for name, make in optimizers.items():
            run = jax.jit(lambda h, make=make: distance(make, h))
            errors = [float(run(h)) for h in accuracy.rates(LARGEST)]
            orders[name] = accuracy.order(errors)
    controls = {name: (orders[name], 1) for name in ("momentum 0.9", "Adam")}
    return accuracy.finding([orders["plain"]], (3,), controls)


def check_unequal_steps_order(context: Context) -> Finding:
    """Order in which a long step down and a short one up descend a penalised loss."""
    del context
    with jax.enable_x64(True):
        loss, params = accuracy.problem()
        gradient = jax.grad(loss)

        @jax.jit
        def distance(factor, down):
            up = 0.4 * down
            middle = params - down * gradient(params)
            coefficient = factor * down * up / (2 * (down - up))
            penalised = igr.with_gradient_penalty(loss, coefficient)
            wanted = params - (down - up) * jax.grad(penalised)(params)
            return jnp.linalg.norm(middle + up * gradient(middle) - wanted)

        rates = accuracy.rates(LARGEST)
        right, half = (
            accuracy.order([float(distance(factor, h)) for h in rates])
            for factor in (1.0, 0.5)
        )
    return accuracy.finding([right], (3,), {"half the coefficient": (half, 2)})


def _two_steps(optimizer, loss, params):
    """A step down and a step up: the level lies between the losses of the two."""
    state = optimizer.init(params)
    first, _ = optimizer.update(jax.grad(loss)(params), state, params)
    level = (loss(params) + loss(params + first)) / 2
    for _ in range(2):
        gradient = jax.grad(lambda p: igr.flood(loss(p), level))(params)
        updates, state = optimizer.update(gradient, state, params)
        params = params + updates
    return params
