"""Lion on MNIST, from the public files or those in `data_dir`.

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

    config.model = "mlp"  # mlp, cnn, vit or linear
    config.hidden = (256, 256)  # widths (mlp) or channels (cnn)
    config.patch_size = 4  # pixels (vit)
    config.width = 64  # of the residual stream (vit)
    config.depth = 4  # blocks (vit)
    config.num_heads = 4  # of the attention; divides the width (vit)
    config.dropout = 0.1  # probability of dropping a unit

    config.optimizer = "lion"  # lion, adamw or sgd
    config.learning_rate = 3e-4  # peak, reached after the warm-up
    config.weight_decay = 1.0  # on matrices only; multiplied by the learning rate
    config.b1 = 0.9  # lion and adamw
    config.b2 = 0.99  # lion
    config.adamw_b2 = 0.999
    config.momentum = 0.9  # sgd
    config.warmup_fraction = 0.05  # of the steps, linear from 0
    config.num_steps = 4000  # cosine decay to 0 at the end
    config.batch_size = 128

    config.log_every = 50  # steps
    config.evaluate_every = 500  # steps, on the validation split
    config.checkpoint_every = 500  # steps
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
