"""Regularised training on 8x8 handwritten digits: seconds, the default experiment."""

import ml_collections

from expkit import config as config_lib


def get_config(arg=""):
    config = ml_collections.ConfigDict()
    config.dataset = "digits"  # any source of expkit.data with image and label
    config.data_dir = ""  # folder with the raw files, for sources that need one
    config.train_split = "train"
    config.validation_split = "validation"
    config.test_split = "test"
    config.label_noise = 0.0  # fraction of wrong training labels
    config.seed = 0

    config.model = "mlp"  # mlp, cnn or vit
    config.hidden = (128, 128)  # widths (mlp) or channels (cnn)
    config.activation = "tanh"  # tanh, gelu, softplus or relu; relu has no curvature
    config.patch_size = 2  # pixels (vit)
    config.width = 32  # of the residual stream (vit)
    config.depth = 2  # blocks (vit)
    config.num_heads = 4  # of the attention; divides the width (vit)
    config.dropout = 0.0  # probability of dropping a unit

    config.regularizer = "parameter_penalty"  # or none, two_batch_penalty,
    # input_penalty, flooding, fgm, noise, vat
    config.strength = 0.025  # coefficient, level or radius; learning_rate / 4 doubles
    # the implicit penalty of gradient descent

    config.optimizer = "sgd"  # sgd or adam
    config.learning_rate = 0.1  # constant
    config.momentum = 0.0  # sgd
    config.weight_decay = 0.0  # on matrices only; multiplied by the learning rate
    config.num_steps = 1000
    config.batch_size = 64

    config.log_every = 10  # steps
    config.evaluate_every = 100  # steps, on the validation split
    config.checkpoint_every = 200  # steps
    config.mesh = "data"  # data, data:N, fsdp or fsdp:N
    return config_lib.apply(
        config, arg, smoke={"num_steps": 2, "hidden": (8,), "width": 8, "depth": 1}
    )
