"""The conformance suite of a loss.

Example, one test per property::

    logits, labels = jax.random.normal(jax.random.key(0), (6, 3)), jnp.arange(6) % 3

    @pytest.mark.parametrize(
        "check",
        loss_checks(
            mean_cross_entropy,
            (logits, labels),
            kwargs={"where": jnp.arange(6) < 4},
            mask_name="where",
        ),
        ids=lambda check: check.name,
    )
    def test_cross_entropy_conforms(check):
        check()

or all of them in one call: `check_loss(mean_cross_entropy, (logits, labels), ...)`.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from expkit.testing import loss_execution, loss_numerics
from expkit.testing.checks import Check, bind_checks, run_checks
from expkit.testing.loss_case import LossCase, is_floating

_CHECKS = (*loss_numerics.CHECKS, *loss_execution.CHECKS)


def loss_checks(
    loss_fn: Callable[..., Any],
    example_args: Sequence[Any],
    *,
    kwargs: Mapping[str, Any] | None = None,
    argnums: int | Sequence[int] = 0,
    wrap: Callable[[Callable[..., Any]], Callable[..., Any]] | None = None,
    mask_name: str | None = None,
    masked_argnums: Sequence[int] | None = None,
    empty_value: float | None = 0.0,
    extremes: Sequence[float] = (0.0, 1e4, -1e4),
    elementwise: bool = False,
    second_order: bool = False,
    gradient_rtol: float = 1e-9,
    rtol: float = 1e-5,
    atol: float = 1e-6,
    exempt: Mapping[str, str] | None = None,
) -> list[Check]:
    """Lists the properties of a loss as callables, for `parametrize`.

    Args:
        loss_fn: `loss_fn(*example_args, **kwargs)`, an array or a pytree of arrays; of
            several outputs the sum is differentiated.
        example_args: positional arguments, at a point where the loss is smooth. Arrays
            are traced, everything else is static.
        kwargs: keyword arguments, treated likewise.
        argnums: position or positions of the pytrees to differentiate.
        wrap: for functions of a loss, such as a penalty: the loss under test is
            `wrap(loss_fn)`, and `closes_over_traced_arrays` puts a traced array into
            what is wrapped.
        mask_name: keyword of a boolean mask in `kwargs`, with True and False in it.
        masked_argnums: positions of the arguments that the mask covers; by default all
            whose leading axes are those of the mask, or with which it broadcasts.
        empty_value: value of every output under an all-False mask; None: any finite.
        extremes: values to fill the inputs with, alone and the largest alternating with
            the smallest. Restrict them to the domain of the loss.
        elementwise: outputs keep a low-precision dtype instead of being float32.
        second_order: also check the second derivative.
        gradient_rtol: relative tolerance of the finite differences in float64.
        rtol: relative tolerance between two float32 programs for the same arithmetic.
        atol: absolute tolerance, likewise.
        exempt: why a property does not apply, by its name.

    Returns:
        The checks that apply, in a fixed order.

    Raises:
        ValueError: if `exempt` names no check or gives no reason, if `kwargs` has no
            `mask_name`, or if no floating-point array is differentiated.
    """
    case = LossCase(
        loss_fn=loss_fn,
        wrap=wrap if wrap is not None else lambda fn: fn,
        args=tuple(example_args),
        kwargs=dict(kwargs or {}),
        argnums=(argnums,) if isinstance(argnums, int) else tuple(argnums),
        mask_name=mask_name,
        masked_argnums=None if masked_argnums is None else tuple(masked_argnums),
        empty_value=empty_value,
        extremes=tuple(extremes),
        elementwise=elementwise,
        second_order=second_order,
        gradient_rtol=gradient_rtol,
        rtol=rtol,
        atol=atol,
    )
    _validate(case)
    inapplicable = {}
    if not mask_name:
        inapplicable |= dict.fromkeys(
            ("masked_entries_have_no_influence", "empty_mask"), "no mask"
        )
    if not second_order:
        inapplicable["second_derivative_matches_finite_differences"] = "not requested"
    return bind_checks(_CHECKS, case, {**inapplicable, **(exempt or {})})


def check_loss(
    loss_fn: Callable[..., Any], example_args: Sequence[Any], **options: Any
) -> None:
    """Checks every property of a loss and reports all failures together.

    Args:
        loss_fn: the loss.
        example_args: positional arguments, at a point where the loss is smooth.
        **options: those of `loss_checks`.

    Raises:
        AssertionError: naming each property that fails, with what was got and what
            was expected.
        ValueError: as `loss_checks`.
    """
    run_checks(loss_checks(loss_fn, example_args, **options))


def _validate(case: LossCase) -> None:
    if case.mask_name is not None and case.mask_name not in case.kwargs:
        raise ValueError(
            f"kwargs must hold an example mask named {case.mask_name!r}, got "
            f"{sorted(case.kwargs)}."
        )
    if not any(is_floating(leaf) for leaf in case.inputs()):
        raise ValueError(
            f"argnums={case.argnums!r} selects no floating-point array of example_args."
        )
