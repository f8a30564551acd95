"""What the sources say about the vMF distribution and its VAE, and how it is checked.

`python -m vmf_vae.claims --list` shows them, `--experiment=NAME --out=DIR` measures
those of one experiment.
"""

import functools

from expkit import claims
from expkit.claims import Claim
from vmf_vae import (
    checks_dimension,
    checks_models,
    checks_numerics,
    checks_sphere,
    checks_text,
)

DAVIDSON = "Davidson et al. 2018, {}. https://arxiv.org/abs/1804.00891"
XU = "Xu & Durrett 2018, {}. https://arxiv.org/abs/1808.10805"
ZHU = "Zhu et al. 2020, {}. https://arxiv.org/abs/2004.12585"
BOWMAN = "Bowman et al. 2016, {}. https://arxiv.org/abs/1511.06349"
AUTHORS = (
    "Authors' code. https://github.com/nicola-decao/s-vae-pytorch/blob/master/"
    "hyperspherical_vae/distributions/von_mises_fisher.py"
)
ESSAY = "Su 2021. https://kexue.fm/archives/8404"
BN_ESSAY = "Su 2020. https://kexue.fm/archives/7381"

CLAIMS = [
    Claim(
        "closed-form",
        "The divergence from the uniform law has a closed form.",
        DAVIDSON.format("section 3.2, eq. (14)"),
        checks_numerics.check_closed_form,
        "numerics",
    ),
    Claim(
        "printed-formula",
        "It is the formula that Xu & Durrett print.",
        XU.format("section 3.2"),
        checks_numerics.check_printed_formula,
        "numerics",
    ),
    Claim(
        "acceptance",
        "The acceptance rate does not fall with the dimension, and stays above .65.",
        DAVIDSON.format("section 3.3"),
        checks_numerics.check_acceptance,
        "numerics",
    ),
    Claim(
        "shortcut",
        "Above a concentration of 11, (d-1)/(4 kappa) can stand for the b of the "
        "proposal.",
        AUTHORS,
        checks_numerics.check_shortcut,
        "numerics",
    ),
    Claim(
        "pathwise",
        "The derivative of an accepted proposal needs a correction for the accept "
        "step: alone it is biased.",
        DAVIDSON.format("section 3.3"),
        checks_numerics.check_pathwise,
        "numerics",
    ),
    Claim(
        "table",
        "A table of quantiles gives unbiased draws at a fixed concentration.",
        ESSAY,
        checks_numerics.check_table,
        "numerics",
    ),
    Claim(
        "constant-kl",
        "With a fixed concentration the KL is the same for every input, and its "
        "gradient in the encoder is exactly 0.",
        ESSAY,
        checks_models.check_constant_kl,
        "models",
    ),
    Claim(
        "uniform-prior",
        "At concentration 0 the posterior is the uniform prior.",
        DAVIDSON.format("section 3.1"),
        checks_models.check_uniform_prior,
        "models",
    ),
    Claim(
        "kl-concentration",
        "The KL rises with the concentration, so that a target KL can be chosen.",
        XU.format("section 3"),
        checks_models.check_kl_in_concentration,
        "models",
    ),
    Claim(
        "batch-norm-bound",
        "Normalised means keep the mean KL above d gamma^2 / 2, whatever the encoder.",
        ZHU.format("section 3"),
        checks_models.check_batch_norm_bound,
        "models",
    ),
    Claim(
        "circle-recovered",
        "S-VAE recovers a latent circle from what a network and noise make of it.",
        DAVIDSON.format("section 5.1"),
        checks_sphere.check_recovered,
        "circle",
    ),
    Claim(
        "circle-normal",
        "N-VAE in the plane recovers it less well.",
        DAVIDSON.format("section 5.1"),
        checks_sphere.check_normal_recovers_less,
        "circle",
    ),
    Claim(
        "circle-likelihood",
        "On such data S-VAE has the higher likelihood.",
        DAVIDSON.format("section 5.1"),
        checks_sphere.check_likelihood,
        "circle",
    ),
    Claim(
        "small-dimension",
        "With few dimensions S-VAE has the higher likelihood (digits, m = 2).",
        DAVIDSON.format("section 5.2, table 1"),
        checks_dimension.check_small,
        "dimension",
    ),
    *(
        Claim(
            f"small-dimension-{dim}",
            "With a few dimensions more S-VAE has the higher likelihood too (digits, "
            f"m = {dim}).",
            DAVIDSON.format("section 5.2, table 1"),
            functools.partial(checks_dimension.check_between, dim),
            "dimension",
        )
        for dim in (5, 10)
    ),
    Claim(
        "large-dimension",
        "With many dimensions S-VAE has the lower likelihood (digits, m = 40).",
        DAVIDSON.format("section 5.2, table 1"),
        checks_dimension.check_large,
        "dimension",
    ),
    Claim(
        "neighbors",
        "In few dimensions its latents classify better from 100 labels (digits, 5 "
        "nearest neighbours, m = 2).",
        DAVIDSON.format("section 5.3"),
        checks_dimension.check_neighbors,
        "dimension",
    ),
    Claim(
        "text-collapse",
        "The KL of a Gaussian text VAE vanishes (Chinese reviews, by character).",
        BOWMAN.format("section 3.1"),
        checks_text.check_collapse,
        "text",
    ),
    Claim(
        "text-annealing",
        "Annealing the KL keeps some of it.",
        BOWMAN.format("section 3.1"),
        checks_text.check_annealing,
        "text",
    ),
    Claim(
        "text-floor",
        "A vMF with a fixed concentration keeps all of its KL in the same setting.",
        XU.format("section 3"),
        checks_text.check_floor,
        "text",
    ),
    Claim(
        "text-bound",
        "BN-VAE keeps its KL above the bound in the same setting.",
        BN_ESSAY,
        checks_text.check_bound,
        "text",
    ),
    *(
        Claim(
            f"text-likelihood-{arm}",
            f"{name} then fits the texts better than the Gaussian, annealed or not "
            "(Chinese reviews, by ELBO).",
            source,
            functools.partial(checks_text.check_likelihood, arm),
            "text",
        )
        for arm, name, source in (
            ("vmf", "The vMF VAE", XU.format("section 5")),
            ("batch_norm", "BN-VAE", ZHU.format("section 4")),
        )
    ),
    *(
        Claim(name, statement, source, claims.not_testable(needs), "published")
        for name, statement, source, needs in (
            (
                "mnist-likelihood",
                "MNIST with dynamic binarisation, S-VAE in 10 dimensions: a "
                "log-likelihood of -93.16 nats (500 importance samples).",
                DAVIDSON.format("section 5.2, table 1"),
                "the 60,000 training images; configs/vmf_vae/mnist.py is the run",
            ),
            (
                "ptb-perplexity",
                "Test perplexities of the vMF VAE: 98 on PTB, 54 on Yelp, 793 on 20 "
                "News and 529 on RCV1.",
                XU.format("section 5"),
                "the Penn Treebank, which is licensed, and the other three corpora",
            ),
        )
    ),
]

if __name__ == "__main__":
    claims.main(CLAIMS)
