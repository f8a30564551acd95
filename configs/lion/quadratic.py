"""Lion on least squares with a condition number of 10,000: where a sign step stalls."""

import ml_collections

from expkit import config as config_lib


def get_config(arg=""):
    config = ml_collections.ConfigDict()
    config.dataset = "synthetic:linear:32"  # 32 features, exact linear targets
    config.data_dir = ""
    config.train_split = "train"
    config.validation_split = "validation"
    config.test_split = "test"
    config.seed = 0

    config.model = "linear"
    config.optimizer = "lion"  # lion, adamw or sgd
    config.learning_rate = 3e-3  # peak, reached after the warm-up
    config.weight_decay = 0.0  # multiplied by the learning rate
    config.b1 = 0.9  # lion and adamw
    config.b2 = 0.99  # lion
    config.adamw_b2 = 0.999
    config.momentum = 0.9  # sgd
    config.warmup_fraction = 0.0  # of the steps, linear from 0
    config.num_steps = 2000  # cosine decay to 0 at the end
    config.batch_size = 64

    config.log_every = 20  # steps
    config.evaluate_every = 200  # steps, on the validation split
    config.checkpoint_every = 500  # steps
    config.mesh = "data"  # data, data:N, fsdp or fsdp:N
    return config_lib.apply(config, arg, smoke={"num_steps": 2})
