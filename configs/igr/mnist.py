"""Regularised training on MNIST, from the public files or those in `data_dir`.

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
    config.label_noise = 0.0  # fraction of wrong training labels
    config.seed = 0

    config.model = "mlp"  # mlp, cnn or vit
    config.hidden = (400, 400)  # widths (mlp) or channels (cnn)
    config.activation = "tanh"  # tanh, gelu, softplus or relu; relu has no curvature
    config.patch_size = 4  # pixels (vit)
    config.width = 64  # of the residual stream (vit)
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
    config.num_steps = 10000
    config.batch_size = 128

    config.log_every = 100  # steps
    config.evaluate_every = 1000  # steps, on the validation split
    config.checkpoint_every = 1000  # steps
    config.mesh = "data"  # data, data:N, fsdp or fsdp:N
    smoke = {
        "dataset": "synthetic:28x28x1:10",
        "data_dir": "",
        "train_split": "train",
        "validation_split": "validation",
        "test_split": "test",
        "num_steps": 2,
        "hidden": (8,),
        "width": 8,
        "depth": 1,
    }
    return config_lib.apply(config, arg, smoke=smoke)
