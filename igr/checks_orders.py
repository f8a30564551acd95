"""What gradient descent, plain and stochastic, follows, to its order of accuracy."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax

import igr
from expkit.claims import Context, Finding
from igr import checks_accuracy as accuracy


def check_local_orders(context: Context) -> Finding:
    """Orders in which one step differs from the flows of order 1, 2 and 3."""
    with jax.enable_x64(True):
        loss, params = accuracy.problem()
        rates = accuracy.rates(0.08)
        gradient = np.asarray(jax.jit(jax.grad(loss))(params))
        steps = [np.asarray(params) - h * gradient for h in rates]

        def errors(make_field):
            field = accuracy.compiled(make_field)
            return [
                accuracy.distance(accuracy.follow(field(h), params, h), step)
                for h, step in zip(rates, steps, strict=True)
            ]

        flows = {
            f"flow of order {k}": errors(lambda h, k=k: igr.modified_flow(loss, h, k))
            for k in (1, 2, 3)
        }
        double = errors(lambda h: igr.modified_flow(loss, 2 * h, 2))
    accuracy.draw_errors(
        context,
        "local_errors",
        rates,
        flows,
        "Distance between one step of gradient descent and its flows after a time h.",
    )
    orders = [accuracy.order(values) for values in flows.values()]
    controls = {"twice the penalty": (accuracy.order(double), 2)}
    return accuracy.finding(orders, (2, 3, 4), controls)


def check_global_orders(context: Context) -> Finding:
    """Orders of the distances to the gradient flow and the modified flow at a time."""
    del context
    time, first = 0.32, 4
    with jax.enable_x64(True):
        loss, params = accuracy.problem()
        gradient = jax.jit(jax.grad(loss))
        rates = accuracy.rates(time / first)
        ends = []
        for halvings, rate in enumerate(rates):
            point = params
            for _ in range(first * 2**halvings):
                point = point - rate * gradient(point)
            ends.append(np.asarray(point))
        orders = []
        for k in (1, 2):
            field = accuracy.compiled(lambda h, k=k: igr.modified_flow(loss, h, k))
            errors = [
                accuracy.distance(accuracy.follow(field(h), params, time), end)
                for h, end in zip(rates, ends, strict=True)
            ]
            orders.append(accuracy.order(errors))
    return accuracy.finding(orders, (1, 2), {})


def check_stochastic_order(context: Context) -> Finding:
    """Order in which the mean over all orders of 4 batches follows Smith's loss."""
    num_batches = 4
    with jax.enable_x64(True):
        loss, params, batches = accuracy.batched_problem(num_batches)
        rates = accuracy.rates(0.01)
        epoch = jax.jit(lambda h: _mean_epoch(loss, params, batches, h))
        ends = [np.asarray(epoch(h)) for h in rates]

        def mean_loss(p):
            return jnp.mean(jax.vmap(lambda b: loss(p, b))(batches))

        def stochastic(h):
            return lambda p: igr.stochastic_modified_loss(loss, h)(p, batches)

        losses = {
            "each batch's gradient": stochastic,
            "the mean gradient": lambda h: igr.modified_loss(mean_loss, h),
            "no gradient": lambda h: mean_loss,
        }
        errors = {}
        for name, make in losses.items():
            field = accuracy.compiled(lambda h, make=make: accuracy.descent(make(h)))
            errors[name] = [
                accuracy.distance(
                    accuracy.follow(field(h), params, num_batches * h), end
                )
                for h, end in zip(rates, ends, strict=True)
            ]
    accuracy.draw_errors(
        context,
        "epoch_errors",
        rates,
        errors,
        "Distance between the mean end of an epoch over all 24 orders of 4 batches and "
        "flows after a time 4 h, by what the loss of the flow penalises.",
    )
    orders = {name: accuracy.order(values) for name, values in errors.items()}
    order = orders.pop("each batch's gradient")
    controls = {f"penalty on {name}": (k, 2) for name, k in orders.items()}
    return accuracy.finding([order], (3,), controls)


def check_momentum_order(context: Context) -> Finding:
    """Order in which heavy ball follows its modified loss after the transient."""
    del context
    momentum, num_steps = 0.5, 52  # 0.5 ** 52 is one rounding error
    with jax.enable_x64(True):
        loss, params = accuracy.problem()

        @jax.jit
        def last_points(rate):
            optimizer = optax.sgd(rate, momentum=momentum)

            def step(carry, _):
                point, state = carry
                updates, state = optimizer.update(jax.grad(loss)(point), state)
                return (point + updates, state), point + updates

            carry = (params, optimizer.init(params))
            return jax.lax.scan(step, carry, length=num_steps)[1][-2:]

        rates = accuracy.rates(0.002)
        points = [np.asarray(last_points(h)) for h in rates]

        def order(make_loss):
            field = accuracy.compiled(lambda h: accuracy.descent(make_loss(h)))
            return accuracy.order(
                [
                    accuracy.distance(
                        accuracy.follow(field(h), before, h / (1 - momentum)), after
                    )
                    for h, (before, after) in zip(rates, points, strict=True)
                ]
            )

        own = order(lambda h: igr.modified_loss(loss, h, momentum=momentum))
        plain = order(lambda h: igr.modified_loss(loss, h / (1 - momentum)))
    return accuracy.finding([own], (3,), {"the penalty of plain descent": (plain, 2)})


def _mean_epoch(loss, params, batches, rate):
    """End of an epoch, the mean over all orders of the batches."""
    orders = list(itertools.permutations(range(len(batches[0]))))

    def step(p, k):
        batch = jax.tree.map(lambda x: x[k], batches)
        return p - rate * jax.grad(loss)(p, batch), None

    def epoch(order):
        return jax.lax.scan(step, params, order)[0]

    return jnp.mean(jax.vmap(epoch)(jnp.array(orders)), axis=0)
