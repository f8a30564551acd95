"""A hyperspherical VAE on 8x8 digits: seconds to train, the default experiment.

Its normal counterpart, with as many degrees of freedom: `:model=gaussian,latent_dim=5`.
"""

import ml_collections

from expkit import config as config_lib


def get_config(arg=""):
    config = ml_collections.ConfigDict()
    config.dataset = "digits"  # any source of expkit.data with image
    config.data_dir = ""  # folder with the raw files, for sources that need one
    config.train_split = "train"
    config.validation_split = "validation"
    config.test_split = "test"
    config.seed = 0

    config.model = "vmf"  # vmf, gaussian or batch_norm
    config.latent_dim = 6  # coordinates of z; the sphere has one dimension less
    config.concentration = "learned"  # learned, shared or a number (vmf)
    config.scale = 0.5  # gamma, of the normalised means (batch_norm)
    config.encoder = "mlp"  # mlp or cnn, for the decoder too
    config.hidden = (256, 128)  # widths (mlp) or channels (cnn) of the encoder
    config.likelihood = "bernoulli"  # bernoulli (pixels drawn anew) or gaussian
    config.noise_scale = 0.1  # standard deviation of a pixel in [0, 1] (gaussian)

    config.learning_rate = 1e-3  # of Adam, as the authors
    config.weight_decay = 0.0  # on matrices only; multiplied by the learning rate
    config.kl_warmup_steps = 0  # over which the weight of the KL rises to 1
    config.num_steps = 2000
    config.batch_size = 64

    config.importance_samples = 500  # of the log-likelihood at the end
    config.log_every = 20  # steps
    config.evaluate_every = 200  # steps, on the validation split
    config.checkpoint_every = 500  # steps
    config.mesh = "data"  # data, data:N, fsdp or fsdp:N
    smoke = {"num_steps": 2, "hidden": (8,), "importance_samples": 3}
    return config_lib.apply(config, arg, smoke=smoke)
