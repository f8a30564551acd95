import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from vmf_vae import rejection

# One program, where an operation at a time would be many.
draw = jax.jit(rejection.draw, static_argnums=(1, 3))


@pytest.mark.parametrize("dim", [2, 3, 10, 768])
@pytest.mark.parametrize("kappa", [0.0, 1e-6, 1.0, 300.0, 1e6])
def test_moebius_parameter_is_woods(dim, kappa):
    """x0 = (1 - b) / (1 + b) with Wood's b, in float64."""
    b = (dim - 1) / (2 * kappa + np.sqrt(4 * kappa**2 + (dim - 1) ** 2))
    pull, gap = rejection.moebius(dim, jnp.float32(kappa))
    np.testing.assert_allclose(pull, (1 - b) / (1 + b), rtol=2e-6, atol=1e-7)
    np.testing.assert_allclose(gap, 2 * b / (1 + b), rtol=1e-6)


@pytest.mark.parametrize("dim", [2, 3, 7, pytest.param(500, marks=pytest.mark.slow)])
def test_both_uniform_coordinates_have_their_law(dim):
    keys = jax.random.split(jax.random.key(dim), 2)
    normal = jax.random.normal(keys[0], (20_000, dim))
    first, rest = rejection.from_normal(normal)
    wide = np.asarray(normal, float)
    y = wide[:, 0] / np.linalg.norm(wide, axis=-1)
    np.testing.assert_allclose(first.above - 1.0, y, atol=1e-6)
    np.testing.assert_allclose(rest, (wide[:, 1:] ** 2).sum(-1), rtol=1e-5)
    radius, turn = rejection.open_uniform(keys[1], (2, 20_000), jnp.float32)
    again = rejection.from_uniform(dim, radius, turn)
    law = stats.beta((dim - 1) / 2, (dim - 1) / 2)
    for uniform in (first, again):
        np.testing.assert_allclose(uniform.below + uniform.above, 2.0, atol=1e-6)
        assert (uniform.below >= 0).all()
        assert (uniform.above >= 0).all()
        assert stats.kstest(0.5 * np.asarray(uniform.below), law.cdf).pvalue > 1e-4


@pytest.mark.parametrize(
    ("dim", "kappa"),
    [
        (2, 5.0),
        pytest.param(2, 1e5, marks=pytest.mark.slow),
        pytest.param(5, 2.0, marks=pytest.mark.slow),
        pytest.param(10, 100.0, marks=pytest.mark.slow),
        pytest.param(768, 1e4, marks=pytest.mark.slow),
    ],
)
def test_acceptance_rate_is_the_integral(dim, kappa):
    """Of the accept probability over the proposal, by quadrature in the angle."""
    nodes, weights = np.polynomial.legendre.leggauss(2000)
    angle = 0.5 * np.pi * (nodes + 1)
    b = (dim - 1) / (2 * kappa + np.sqrt(4 * kappa**2 + (dim - 1) ** 2))
    x0 = (1 - b) / (1 + b)
    w = (np.cos(angle) + x0) / (1 + x0 * np.cos(angle))
    log_accept = kappa * (w - x0) + (dim - 1) * np.log((1 - x0 * w) / (1 - x0**2))
    assert log_accept.max() < 1e-6
    log_sine = (dim - 2) * np.log(np.sin(angle))
    proposal = weights * np.exp(log_sine - log_sine.max())
    exact = (proposal * np.exp(log_accept)).sum() / proposal.sum()
    n = 50_000
    t, info = draw(jax.random.key(1), dim, jnp.float32(kappa), n)
    assert t.shape == (n,)
    np.testing.assert_allclose(info.acceptance_rate, n / info.proposals, rtol=1e-6)
    # The number of proposals a sample is geometric.
    error = exact * np.sqrt((1 - exact) / n)
    assert abs(info.acceptance_rate - exact) < 5 * error
    assert info.acceptance_rate > 0.6577 - 5 * error
    assert info.rounds > 3


def test_nan_ends_the_loop_and_touches_nothing_else():
    kappa = jnp.array([1.0, jnp.nan] * 500)
    t, info = draw(jax.random.key(0), 5, kappa, 1000)
    assert np.isnan(t[1::2]).all()
    assert np.isfinite(t[::2]).all()
    clean, _ = draw(jax.random.key(0), 5, jnp.ones(1000), 1000)
    np.testing.assert_allclose(t[::2], clean[::2], rtol=1e-5)
    assert info.rounds < 100


def test_a_later_round_belongs_to_the_element():
    """What one sample draws does not depend on who else is rejected."""
    kappa = jnp.full(4000, 50.0)
    base, _ = draw(jax.random.key(3), 4, kappa, 4000)
    changed, _ = draw(jax.random.key(3), 4, kappa.at[:2000].set(1e-3), 4000)
    np.testing.assert_array_equal(base[2000:], changed[2000:])


@pytest.mark.parametrize(
    "n",
    [0, 1, 1025, *(pytest.param(n, marks=pytest.mark.slow) for n in (7, 1023, 40_000))],
)
def test_any_number_of_samples_is_completed(n):
    t, info = draw(jax.random.key(n), 3, jnp.float32(1e3), n)
    assert t.shape == (n,)
    assert np.isfinite(t).all()
    assert info.proposals >= n
    assert (info.rounds > 0) == (n > 0)


def served(bits, turns):
    """Rows (key, ticket) of an element that is rejected in every turn of the loop."""
    key = jax.random.key(0)
    turn = jnp.arange(turns, dtype=jnp.uint32)
    keys = jax.vmap(rejection._key_of_turn, (None, 0, None))(key, turn, bits)
    ticket = jnp.uint32(3) + (turn + 1) * jnp.uint32(2**bits)
    return np.column_stack([jax.random.key_data(keys), ticket])


@pytest.mark.parametrize("bits", [2, 27, 28, 30])
def test_no_round_of_an_element_repeats_its_numbers(bits):
    rows = served(bits, 200)
    assert len(np.unique(rows, axis=0)) == 200
    # The control: 32 bits hold the element and this many rounds.
    assert len(np.unique(rows[:, -1])) == min(200, 2 ** (32 - bits))
    first = np.asarray(jax.random.key_data(jax.random.key(0)))
    is_first = (rows[:, :-1] == first).all(axis=1)  # as for few samples
    np.testing.assert_array_equal(is_first, np.arange(200) < 2 ** (32 - bits))


def test_draws_with_one_bit_of_rounds_end_and_have_their_law(monkeypatch):
    """As of 2**30 samples, where an element in nine would be rejected for ever."""
    monkeypatch.setattr(rejection, "_element_bits", lambda n: 31)
    n = 20_000
    # Another function, since what is compiled is kept.
    t, info = jax.jit(lambda key, k: rejection.draw(key, 3, k, n))(
        jax.random.key(6), jnp.float32(200.0)
    )
    place = stats.truncexpon(400.0, scale=1 / 200.0).cdf(np.asarray(t, float))
    assert stats.kstest(place, "uniform").pvalue > 1e-4
    assert len(np.unique(t)) > 0.99 * n
    assert 0.6 < info.acceptance_rate < 0.8


def test_more_draws_than_are_counted_are_refused():
    def shaped(n):
        kappa = jax.ShapeDtypeStruct((), jnp.float32)
        return jax.eval_shape(
            lambda k: rejection.draw(jax.random.key(0), 5, k, n)[0], kappa
        )

    assert shaped(2**30).shape == (2**30,)
    with pytest.raises(
        ValueError, match=r"at most 1,073,741,824 draws in one call, got"
    ):
        shaped(2**30 + 1)


def test_open_uniform_has_no_ends():
    u = rejection.open_uniform(jax.random.key(0), (1_000_000,), jnp.float32)
    assert 0.0 < u.min() < u.max() < 1.0


@pytest.mark.parametrize("dim", [2, 3])
def test_draws_have_their_law_in_the_plane_and_on_the_sphere(dim):
    kappa = np.repeat([0.3, 200.0], 10_000)
    t, _ = draw(jax.random.key(5), dim, jnp.asarray(kappa, "float32"), 20_000)
    t = np.asarray(t, float)

    def place(kappa):  # of every draw under its own law
        if dim == 3:  # 1 - w is exponential up to 2
            return stats.truncexpon(2.0 * kappa, scale=1.0 / kappa).cdf(t)
        angle = 2.0 * np.arcsin(np.sqrt(0.5 * t))
        return 2.0 * stats.vonmises(kappa).cdf(angle) - 1.0

    for half in (slice(10_000), slice(10_000, None)):
        assert stats.kstest(place(kappa)[half], "uniform").pvalue > 1e-4
        assert stats.kstest(place(1.2 * kappa + 0.1)[half], "uniform").pvalue < 1e-4


def test_the_acceptance_rate_keeps_its_digits_in_a_million_dimensions():
    dim, kappa, n = 2**20, 1e5, 50_000
    _, info = draw(jax.random.key(2), dim, jnp.float32(kappa), n)
    b = (dim - 1) / (2 * kappa + np.sqrt(4 * kappa**2 + (dim - 1) ** 2))
    nodes, weights = np.polynomial.legendre.leggauss(200)
    y = 10.0 / np.sqrt(dim) * nodes  # a uniform vector's first coordinate
    weights = weights * np.exp(0.5 * (dim - 3) * np.log1p(-y * y))
    s = y * (1 - b) / (1 + b)
    accept = np.exp((dim - 1) * (s / (1 + s) - np.log1p(s)))
    exact = np.average(accept, weights=weights)
    error = np.sqrt(exact * (1 - exact) / n)
    assert abs(info.acceptance_rate - exact) < 5 * error
    assert 10 * error < 1 - exact < 0.01  # the control


def test_an_extreme_concentration_keeps_its_scale():
    """In three dimensions kappa t is exponential with mean 1."""
    kappa = jnp.float32(1e25)
    t, info = draw(jax.random.key(0), 3, kappa, 4096)
    scaled = np.asarray(t, np.float64) * 1e25
    assert stats.kstest(scaled, "expon").pvalue > 1e-3
    assert info.acceptance_rate > 0.6
