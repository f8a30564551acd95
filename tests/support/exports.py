"""Export ahead of time, and which public names have nothing to export."""

import functools
import importlib
import inspect
from collections.abc import Callable
from typing import Any

import jax

PLATFORMS = ("cpu", "cuda", "rocm", "tpu")

ON_HOST = "takes or returns Python objects, so it cannot be traced"
NOT_EXPORTED = {
    "rdrop.CONVENTIONS": "a table of names",
    "rdrop.convention_scale": "a Python number of Python numbers",
    "childtuning.in_layers": "a predicate of a string",
    "childtuning.trainable_fraction": "a Python number",
    "cosent.best_class_weights": "the number of sweeps depends on the data",
    "cosent.encode_once": "iterates over batches and jits its function itself",
    "gp_kl.LinearChainCRF.num_tags": "a Python number of Python numbers",
    "vmf_vae.PowerSpherical.batch_shape": "a tuple of Python numbers",
    "vmf_vae.PowerSpherical.dim": "a Python number",
    "vmf_vae.VonMisesFisher.batch_shape": "a tuple of Python numbers",
    "vmf_vae.VonMisesFisher.dim": "a Python number",
} | {
    f"gp_kl.{name}": ON_HOST
    for name in (
        *("bio_to_spans", "decode_spans", "span_counts", "span_f1"),
        *("span_indices", "span_labels", "spans_to_bio"),
    )
}
IN_NO_CASE = ("tree_flatten", "tree_flatten_with_keys", "tree_unflatten")
"""Methods that JAX calls, in every case that takes such an object."""
RECORDS = ("decoder_net", "encoder_net", "latent")
"""Attributes of the models that hold functions; their methods call them."""


def public_members(package: str) -> set[str]:
    """What a package offers: functions and data, and of classes what they can do."""
    module, found = importlib.import_module(package), set()
    for name in module.__all__:
        value = getattr(module, name)
        if not inspect.isclass(value):
            found.add(f"{package}.{name}")
            continue
        found |= {
            f"{package}.{name}.{member}"
            for parent in value.__mro__
            if parent.__module__.partition(".")[0] == package
            for member, entry in vars(parent).items()
            if not member.startswith("_") and member not in (*IN_NO_CASE, *RECORDS)
            if inspect.isroutine(entry)
            or isinstance(entry, property | functools.cached_property)
        }
    return found


def export(fn: Callable, args: tuple[Any, ...], **options: Any) -> jax.export.Exported:
    """Lowers a function for every platform, and reads it back as another process would.

    Arguments and results are flat, so that the file needs no class to be registered.
    """
    leaves, structure = jax.tree.flatten(args)

    def flat(*leaves):
        return jax.tree.leaves(fn(*structure.unflatten(leaves)))

    jitted = jax.jit(flat, **options)
    artifact = jax.export.export(jitted, platforms=PLATFORMS)(*leaves)
    return jax.export.deserialize(artifact.serialize())
