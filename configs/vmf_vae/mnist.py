"""A hyperspherical VAE on MNIST, from the public files or those in `data_dir`.

Davidson et al. (2018, section 5.2): pixels drawn anew, two hidden layers, 500
importance samples. Their S-VAE on the sphere in 11 coordinates reaches -93.16 nats.

With the test pair alone at hand, split that:
`--config.data_dir=DIR --config.train_split=test[:8000]
--config.validation_split=test[8000:9000] --config.test_split=test[9000:]`.
"""

import ml_collections

from expkit import config as config_lib


def get_config(arg=""):
    config = ml_collections.ConfigDict()
    config.dataset = "mnist"
    config.data_dir = ""  # folder with the idx .gz files; empty downloads them
    config.train_split = "train[:55000]"
    config.validation_split = "train[55000:]"
    config.test_split = "test"
    config.seed = 0

    config.model = "vmf"  # vmf, gaussian or batch_norm
    config.latent_dim = 11  # coordinates of z; the sphere has one dimension less
    config.concentration = "learned"  # learned, shared or a number (vmf)
    config.scale = 0.5  # gamma, of the normalised means (batch_norm)
    config.encoder = "mlp"  # mlp or cnn, for the decoder too
    config.hidden = (256, 128)  # widths (mlp) or channels (cnn) of the encoder
    config.likelihood = "bernoulli"  # bernoulli (pixels drawn anew) or gaussian
    config.noise_scale = 0.1  # standard deviation of a pixel in [0, 1] (gaussian)

    config.learning_rate = 1e-3  # of Adam, as the authors
    config.weight_decay = 0.0  # on matrices only; multiplied by the learning rate
    config.kl_warmup_steps = 0  # over which the weight of the KL rises to 1
    config.num_steps = 40_000  # the authors stop early
    config.batch_size = 64

    config.importance_samples = 500  # of the log-likelihood at the end
    config.log_every = 100  # steps
    config.evaluate_every = 1000  # steps, on the validation split
    config.checkpoint_every = 2000  # steps
    config.mesh = "data"  # data, data:N, fsdp or fsdp:N
    smoke = {
        "dataset": "synthetic:28x28x1:10",
        "data_dir": "",
        "train_split": "train",
        "validation_split": "validation",
        "test_split": "test",
        "num_steps": 2,
        "hidden": (8,),
        "importance_samples": 3,
    }
    return config_lib.apply(config, arg, smoke=smoke)
