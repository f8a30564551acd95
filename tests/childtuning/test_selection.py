"""Fisher masks against numpy: how many, which, and wherever the entries lie."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

import childtuning
from childtuning import blocks, order

pytestmark = pytest.mark.optimized

FRACTIONS = [1e-3, 0.1, 0.3, 0.5, 0.77, 0.999, 1.0]


def numbers(kind, size, seed=0):
    """Non-negative float32 numbers of several distributions."""
    rng = np.random.default_rng(seed)
    normal = rng.standard_normal(size)
    values = {
        "squares": normal**2 * 1e-6,
        "decades": 10 ** rng.uniform(-44, 38, size),  # from subnormal to the largest
        "ties": rng.integers(0, 4, size),
        "mostly zero": np.where(rng.random(size) < 0.9, 0, normal**2),
        "zeros": np.zeros(size),
        "signed zeros": np.where(rng.random(size) < 0.5, 0.0, -0.0),
        "sorted": np.sort(normal**2),
        "periodic": np.tile([1.0, 2.0, 3.0, 1e-9], size // 4 + 1)[:size],
    }
    return np.float32(values[kind])


KINDS = [
    "squares",
    "decades",
    "ties",
    "mostly zero",
    "zeros",
    "signed zeros",
    "sorted",
    "periodic",
]


# Compiled as a whole it goes another way.
BOTH_WAYS = [(k, False) for k in KINDS] + [(k, True) for k in ("ties", "decades")]


def as_tree(values):
    """The same numbers in leaves of several shapes; some of them empty."""
    a, b, c = np.split(values, [7, len(values) // 2])
    rows = c[: len(c) // 3 * 3].reshape(-1, 3)
    rest = c[len(c) // 3 * 3 :]
    leaves = [a, b, np.zeros((0, 4), np.float32), rows, rest]
    return {f"leaf{i}": jnp.asarray(leaf) for i, leaf in enumerate(leaves)}


def flat(tree):
    return np.concatenate([np.asarray(x).reshape(-1) for x in jax.tree.leaves(tree)])


def first_of_the_largest(values, p):
    """A stable sort: the largest first, and of equal ones those that come first."""
    ranks = np.argsort(-values.astype(np.float64), kind="stable")
    mask = np.zeros(len(values), bool)
    mask[ranks[: round(p * len(values))]] = True
    return mask


@pytest.mark.parametrize(("kind", "jit"), BOTH_WAYS)
def test_exact_keeps_the_first_of_the_largest(kind, jit):
    values = numbers(kind, 999)
    for p in FRACTIONS[2:3] if jit else FRACTIONS:
        select = functools.partial(childtuning.fisher_mask, reserve_p=p)
        mask = flat((jax.jit(select) if jit else select)(as_tree(values)))
        assert mask.sum() == round(p * len(values))
        np.testing.assert_array_equal(mask, first_of_the_largest(values, p))


@pytest.mark.parametrize(("kind", "jit"), BOTH_WAYS)
def test_keep_is_the_percentile_rule_of_numpy(kind, jit):
    values = numbers(kind, 1001, 1)
    if jit and kind == "decades":
        values = np.maximum(values, 1e-30)  # compiled code flushes what is subnormal
    for p in FRACTIONS[2:3] if jit else FRACTIONS:
        select = functools.partial(childtuning.fisher_mask, reserve_p=p, ties="keep")
        mask = flat((jax.jit(select) if jit else select)(as_tree(values)))
        threshold = np.percentile(values, 100 * (1 - p))
        np.testing.assert_array_equal(mask, values >= threshold)


def test_keep_is_numpy_for_every_fraction_of_small_arrays():
    rng = np.random.default_rng(0)
    for size in (1, 2, 5):
        # Neighbours in float32, between which there is no room to interpolate.
        values = np.float32(1.0)
        series = [values := np.nextafter(values, np.float32(2)) for _ in range(size)]
        values = np.array(series)[rng.permutation(size)]
        for p in np.linspace(0.01, 1.0, 12).tolist():
            mask = childtuning.fisher_mask(jnp.asarray(values), p, ties="keep")
            threshold = np.percentile(values, 100 * (1 - p))
            np.testing.assert_array_equal(mask, values >= threshold)


@pytest.mark.parametrize("kind", ["squares", "ties", "sorted", "periodic", "decades"])
def test_large_arrays_begin_with_a_sample_and_end_exactly(kind, monkeypatch):
    monkeypatch.setattr(order, "SAMPLE", 2**9)
    values = numbers(kind, 3 * blocks.BLOCK + 77)
    tree = {"w": jnp.asarray(values)}
    for p in (0.1, 0.3):
        mask = flat(childtuning.fisher_mask(tree, p))
        np.testing.assert_array_equal(mask, first_of_the_largest(values, p))
        mask = flat(childtuning.fisher_mask(tree, p, ties="keep"))
        np.testing.assert_array_equal(
            mask, values >= np.percentile(values, 100 - 100 * p)
        )


def test_a_sample_that_misleads_changes_nothing(monkeypatch):
    monkeypatch.setattr(order, "SAMPLE", 2**9)
    values = numbers("squares", 2 * blocks.BLOCK)
    values[:: len(values) // 2**9] = 7.0  # all that the sample sees
    mask = flat(childtuning.fisher_mask(jnp.asarray(values), 0.3))
    np.testing.assert_array_equal(mask, first_of_the_largest(values, 0.3))


SPECS = {"rows": ("data",), "columns": (None, "data"), "whole": ()}


@pytest.mark.parametrize("num_devices", [1, 2, 4])
@pytest.mark.parametrize("spec", SPECS)
@pytest.mark.parametrize("kind", ["squares", "ties", "zeros"])
def test_the_mask_does_not_depend_on_the_sharding(num_devices, spec, kind):
    values = numbers(kind, 64 * 24).reshape(64, 24)
    mesh = jax.make_mesh(
        (num_devices,),
        ("data",),
        axis_types=(AxisType.Auto,),
        devices=jax.devices()[:num_devices],
    )
    sharding = NamedSharding(mesh, PartitionSpec(*SPECS[spec]))
    fisher = {"w": jax.device_put(values, sharding), "head": jnp.ones(5)}
    mask = childtuning.fisher_mask(fisher, 0.3, where={"w": True, "head": False})
    assert mask["w"].sharding.is_equivalent_to(sharding, 2)
    np.testing.assert_array_equal(
        np.asarray(mask["w"]).reshape(-1), first_of_the_largest(values.reshape(-1), 0.3)
    )
    keep = childtuning.fisher_mask(fisher["w"], 0.3, ties="keep")
    np.testing.assert_array_equal(keep, values >= np.percentile(values, 70.0))


def test_leaves_that_do_not_compete_are_kept_whole():
    fisher = {
        "encoder": {"layer": [jnp.array([4.0, 1.0]), jnp.array([3.0, 2.0])]},
        "LayerNorm": jnp.zeros(2),
        "head": jnp.full(3, 9.0),
        "none": None,
    }
    expected = [[True, False], [True, False]]
    prefix = {"encoder": True, "LayerNorm": False, "head": False, "none": None}
    for where in (childtuning.in_layers, prefix):
        mask = childtuning.fisher_mask(fisher, 0.5, where=where)
        got = [leaf.tolist() for leaf in mask["encoder"]["layer"]]
        assert got == expected
        assert mask["LayerNorm"].all()
        assert mask["head"].all()
        assert mask["none"] is None
        assert childtuning.trainable_fraction(mask) == pytest.approx(7 / 9)
    everything = childtuning.fisher_mask(fisher, 0.5)
    assert childtuning.trainable_fraction(everything) == pytest.approx(4 / 9)


def test_where_gets_the_paths_with_slashes():
    seen = []
    fisher = {"a": [jnp.ones(1), jnp.ones(1)], "b": {"c": jnp.ones(1)}}
    childtuning.fisher_mask(fisher, 0.5, where=lambda path: not seen.append(path))
    assert seen == ["a/0", "a/1", "b/c"]


def test_the_authors_rule_is_case_sensitive():
    assert childtuning.in_layers("bert/encoder/layer/0/query")
    assert not childtuning.in_layers("bert/embeddings/LayerNorm/weight")
    assert not childtuning.in_layers("pooler/dense")


def test_a_share_that_rounds_to_nothing_keeps_nothing():
    def select(fisher):
        return childtuning.fisher_mask(fisher, 0.1)

    assert not select(jnp.arange(3.0)).any()
    assert not jax.jit(select)(jnp.arange(3.0)).any()
    assert childtuning.fisher_mask(jnp.arange(5.0), 0.5).sum() == round(2.5)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_low_precision_is_compared_as_it_is(dtype):
    fisher = jnp.asarray(numbers("ties", 100), dtype)
    mask = childtuning.fisher_mask(fisher, 0.3)
    wanted = first_of_the_largest(np.float32(fisher), 0.3)
    np.testing.assert_array_equal(mask, wanted)


def test_it_batches_under_vmap():
    values = np.stack([numbers("ties", 50, seed) for seed in range(3)])
    masks = jax.vmap(lambda f: childtuning.fisher_mask(f, 0.3))(jnp.asarray(values))
    wanted = [first_of_the_largest(row, 0.3) for row in values]
    np.testing.assert_array_equal(masks, wanted)


def test_nothing_is_sorted_and_nothing_gathered():
    mesh = jax.make_mesh((4,), ("data",), axis_types=(AxisType.Auto,))
    sharding = NamedSharding(mesh, PartitionSpec("data"))
    fisher = jax.device_put(jnp.ones((64, 24)), sharding)
    lowered = jax.jit(lambda f: childtuning.fisher_mask(f, 0.3)).lower(fisher)
    text = lowered.compile().as_text()
    assert " sort(" not in text
    assert "all-gather" not in text
    assert "all-reduce" in text  # of the counts


@pytest.mark.parametrize("bad", [np.nan, -1.0, np.inf, -np.inf, -1e-44])
@pytest.mark.parametrize("ties", ["exact", "keep"])
def test_entries_that_are_no_fisher_information_are_refused_by_path(bad, ties):
    fisher = {"a": jnp.ones(4), "b": [jnp.ones(3), jnp.asarray(np.float32([1, bad]))]}
    with pytest.raises(ValueError, match=r"finite and at least 0, .* at 'b/1'"):
        childtuning.fisher_mask(fisher, 0.3, ties=ties)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"reserve_p": 0.0}, r"reserve_p must be in \(0, 1\]"),
        ({"reserve_p": 1.5}, r"reserve_p must be in \(0, 1\]"),
        ({"reserve_p": jnp.float32(0.3)}, "reserve_p must be a Python number"),
        ({"ties": "all"}, "ties must be one of exact, keep, got 'all'"),
        ({"ties": "kep"}, "got 'kep'. Did you mean 'keep'"),
        ({"where": lambda path: False}, r"select at least one entry.*2 leaves: a, b"),
        ({"where": {"a": False, "b": False}}, "select at least one entry"),
        ({"where": {"a": True}}, "where must be a function of a path, or a pytree"),
        ({"where": {"a": True, "b": 1}}, "where must hold bools, got 1 for 'b'"),
    ],
)
def test_bad_arguments_are_one_error(options, message):
    fisher = {"a": jnp.ones(2), "b": jnp.ones(2)}
    with pytest.raises(ValueError, match=message):
        childtuning.fisher_mask(fisher, **{"reserve_p": 0.3, **options})


def test_integers_and_empty_trees_are_refused():
    with pytest.raises(ValueError, match="floating-point arrays, got int32 at 'a'"):
        childtuning.fisher_mask({"a": jnp.arange(3)}, 0.3)
    with pytest.raises(ValueError, match="at least one entry"):
        childtuning.fisher_mask({}, 0.3)
    with pytest.raises(ValueError, match="mask must have at least one entry"):
        childtuning.trainable_fraction({})


@pytest.mark.parametrize(
    ("mask", "found"),
    [
        ({"a": True, "w": jnp.array([1, 5, 3])}, "int32 at 'w'"),
        ({"a": {"w": np.full(4, 0.5, np.float32)}}, "float32 at 'a/w'"),
        ([jnp.ones(2, bool), jnp.ones(2, jnp.uint8)], "uint8 at '1'"),  # packed
    ],
)
def test_a_fraction_of_anything_but_bools_is_refused_by_leaf(mask, found):
    message = f"^mask must hold bools, got {found}; pass the bool mask of fisher_mask"
    with pytest.raises(ValueError, match=message):
        childtuning.trainable_fraction(mask)


@pytest.mark.parametrize("ties", ["exact", "keep"])
def test_an_error_that_is_not_about_the_entries_is_not_blamed_on_one(ties, monkeypatch):
    def fail(*args, **options):
        raise ValueError("something else")

    monkeypatch.setattr(order, "select", fail)
    with pytest.raises(ValueError, match=r"^something else$"):
        childtuning.fisher_mask({"a": jnp.ones(4)}, 0.3, ties=ties)
    with pytest.raises(ValueError, match=r"^fisher must be finite .* at 'b'"):
        childtuning.fisher_mask({"a": jnp.ones(4), "b": -jnp.ones(1)}, 0.3, ties=ties)
