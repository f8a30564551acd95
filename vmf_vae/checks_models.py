"""What holds for the models without any training."""

import jax
import jax.numpy as jnp
import numpy as np
from scipy import stats

import vmf_vae
from expkit import claims, plots
from expkit.claims import Context, Finding

SHAPE, HIDDEN = (8, 8, 1), (32,)
DIMS = (3, 10, 40)


def check_constant_kl(context: Context) -> Finding:
    """The KL at a fixed concentration, and its gradient, against a learned one."""
    spread, gradient = _kl_and_gradient(20.0)
    learned_spread, learned_gradient = _kl_and_gradient("learned")
    is_true = spread == gradient == 0.0 < min(learned_spread, learned_gradient)
    return claims.exact(
        is_true,
        gradient,
        "Largest derivative of the KL in any weight of the encoder, on 64 random "
        f"images: {gradient:g}; largest difference of the KL between images: {spread:g}"
        f". Negative control with a learned concentration: {learned_gradient:.2g} and "
        f"{learned_spread:.2g}.",
    )


def _kl_and_gradient(concentration: float | str) -> tuple[float, float]:
    """Spread of the KL over images, and its largest derivative in the encoder."""
    model = vmf_vae.VMFVAE(SHAPE, 6, HIDDEN, concentration=concentration)
    params = model.init(jax.random.key(0))
    x = jax.random.uniform(jax.random.key(1), (64, *SHAPE))

    @jax.jit
    def kl_and_gradient(params):
        def total(params):
            kl = model.elbo(params, x, jax.random.key(2))[1]["kl"]
            return kl.sum(), kl

        return jax.grad(total, has_aux=True)(params)

    gradient, kl = kl_and_gradient(params)
    leaves = jax.tree.leaves(gradient["encoder"])
    return float(jnp.ptp(kl)), max(float(jnp.abs(leaf).max()) for leaf in leaves)


def check_uniform_prior(context: Context) -> Finding:
    """The posterior at concentration 0 against the uniform law: KL, density, draws."""
    worst, p_values, control = 0.0, [], []
    for dim in DIMS:
        direction = jnp.zeros(dim).at[0].set(1.0)
        uniform = vmf_vae.SphericalUniform(dim)
        draw = jax.jit(lambda key, mu, k: vmf_vae.sample_vmf(key, mu, k, (20_000,)))
        for kappa, found in ((0.0, p_values), (1.0, control)):
            q = vmf_vae.VonMisesFisher(direction, kappa)
            z = draw(jax.random.key(dim), direction, kappa)
            # One coordinate of a uniform point: (1 + z)/2 is Beta((d-1)/2, (d-1)/2).
            law = stats.beta((dim - 1) / 2, (dim - 1) / 2, loc=-1, scale=2)
            found.append(float(stats.kstest(np.asarray(z[:, 0]), law.cdf).pvalue))
            if kappa == 0.0:
                gap = jnp.abs(q.log_prob(z) - uniform.log_prob(z)).max()
                worst = max(worst, float(gap), abs(float(q.kl_to_uniform())))
    is_true = worst < 1e-5 and min(p_values) > 1e-4 and max(control) < 1e-4
    return claims.exact(
        is_true,
        worst,
        f"Largest of the KL and the difference of log densities in {DIMS} coordinates. "
        "Kolmogorov-Smirnov test of 20,000 draws against the uniform law: p at least "
        f"{min(p_values):.2g}; negative control, concentration 1: at most "
        f"{max(control):.1g}.",
    )


def check_kl_in_concentration(context: Context) -> Finding:
    """Whether the KL rises everywhere, and from the small to the large limit."""
    kappa = np.geomspace(1e-2, 1e4, 121)
    curves = {
        dim: np.asarray(vmf_vae.kl_to_uniform(dim, jnp.array(kappa)), float)
        for dim in DIMS
    }
    rises = min(float(np.diff(kl).min()) for kl in curves.values())
    small = [curves[dim][0] / (kappa[0] ** 2 / (2 * dim)) for dim in DIMS]
    slopes = [
        (curves[dim][-1] - curves[dim][-21]) / np.log(kappa[-1] / kappa[-21])
        for dim in DIMS
    ]
    ratios = [slope / ((dim - 1) / 2) for slope, dim in zip(slopes, DIMS, strict=True)]
    targets = jnp.array([0.1, 1.0, 10.0])
    back = [
        vmf_vae.kl_to_uniform(dim, vmf_vae.concentration_for_kl(dim, targets)) / targets
        for dim in DIMS
    ]
    error = max(float(jnp.abs(b - 1).max()) for b in back)

    def draw(figure):
        axes = figure.subplots()
        series = {
            f"{d} coordinates": (kappa, kl, None, None) for d, kl in curves.items()
        }
        plots.curves(axes, series, xlabel="concentration", ylabel="KL (nats)")
        axes.set_xscale("log")
        axes.set_yscale("log")

    context.figure(
        "kl_concentration",
        draw,
        "KL of a vMF posterior from the uniform prior: about kappa^2/2d while it is "
        "small, and (d-1)/2 log kappa in the end.",
        "; ".join(f"d={d}: {kl[-1]:.1f} nats at 10,000" for d, kl in curves.items()),
    )
    limits = np.abs(np.array([*small, *ratios]) - 1).max()
    return claims.exact(
        rises > 0 and limits < 0.02 and error < 1e-4,
        rises,
        f"Smallest rise between neighbours of 121 concentrations from .01 to 10,000 in "
        f"{DIMS} coordinates. Against kappa^2/2d at .01 and a slope of (d-1)/2 in "
        f"log kappa from 1,000 on: at most {100 * limits:.1f} % off. "
        "`concentration_for_kl` returns KLs of .1, 1 and 10 nats to a relative "
        f"{error:.0e}.",
    )


def check_batch_norm_bound(context: Context) -> Finding:
    """Smallest mean KL over the bound, for encoders that try to have none."""
    rng = np.random.default_rng(0)
    ratios, control = [], []
    for dim, scale in ((2, 0.3), (10, 0.6), (40, 1.0)):
        latent = vmf_vae.gaussian_latents.BatchNormLatent(dim, scale)
        plain = vmf_vae.gaussian_latents.GaussianLatent(dim)
        for size in (0.1, 1.0, 100.0):
            shift = jnp.array(rng.normal(0, 0.1, dim), jnp.float32)
            features = rng.normal(0, size, (64, 2 * dim))
            features[:, dim:] = np.log(np.e - 1)  # a standard deviation of 1
            features = jnp.array(features, jnp.float32)
            params = {"shift": shift}
            kl = latent.kl(latent.posterior(params, features)).mean()
            ratios.append(float(kl / latent.kl_bound(params)))
            kl = plain.kl(plain.posterior({}, features)).mean()
            control.append(float(kl / latent.kl_bound(params)))
    return claims.exact(
        min(ratios) > 1 - 1e-5 and min(control) < 0.1,
        min(ratios),
        "Smallest mean KL of a batch as a multiple of the bound, for features of "
        "sizes .1 to 100 with unit standard deviations, where the bound is met. The "
        "offset of the variance, 1e-8, takes up to 1e-6 of it. Negative control, the "
        f"same features without the normalisation: {min(control):.2g}.",
    )
