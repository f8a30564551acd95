"""The von Mises-Fisher distribution and the hyperspherical VAE (Davidson et al. 2018).

The distribution needs JAX alone. The models are built with Flax, so they are imported
only when they are asked for: `import vmf_vae` stays light.
"""

from typing import TYPE_CHECKING, Any

from vmf_vae.bessel import bessel_ratio, inverse_bessel_ratio, log_iv
from vmf_vae.density import concentration_for_kl, kl_to_uniform, log_normalizer
from vmf_vae.distribution import VonMisesFisher, fit
from vmf_vae.divergence import kl
from vmf_vae.sampler import sample_radial, sample_vmf
from vmf_vae.spherical import PowerSpherical, SphericalUniform
from vmf_vae.table import FixedConcentrationSampler

if TYPE_CHECKING:
    from vmf_vae.evaluation import importance_log_likelihood
    from vmf_vae.models import VMFVAE, BatchNormVAE, GaussianVAE

__all__ = [
    "VMFVAE",
    "BatchNormVAE",
    "FixedConcentrationSampler",
    "GaussianVAE",
    "PowerSpherical",
    "SphericalUniform",
    "VonMisesFisher",
    "bessel_ratio",
    "concentration_for_kl",
    "fit",
    "importance_log_likelihood",
    "inverse_bessel_ratio",
    "kl",
    "kl_to_uniform",
    "log_iv",
    "log_normalizer",
    "sample_radial",
    "sample_vmf",
]

_MODELS = ("BatchNormVAE", "GaussianVAE", "VMFVAE")


def __getattr__(name: str) -> Any:
    """Imports a model when it is first used."""
    try:
        if name in _MODELS:
            from vmf_vae import models

            return getattr(models, name)
        if name == "importance_log_likelihood":
            from vmf_vae.evaluation import importance_log_likelihood

            return importance_log_likelihood
    except ModuleNotFoundError as error:  # the methods are installed without the rest
        raise ModuleNotFoundError(
            f"vmf_vae.{name} needs {error.name!r}, which is not installed: run `pip "
            "install '.[experiments]'` in the repository.",
            name=error.name,
        ) from error
    raise AttributeError(f"module 'vmf_vae' has no attribute {name!r}")


def __dir__():
    """The public names, those imported on use included."""
    return sorted({*globals(), *__all__})
