"""Lion on 8x8 handwritten digits: seconds to train, the default experiment."""

import ml_collections

from expkit import config as config_lib


def get_config(arg=""):
    config = ml_collections.ConfigDict()
    config.dataset = "digits"  # any source of expkit.data with image and label
    config.data_dir = ""  # folder with the raw files, for sources that need one
    config.train_split = "train"
    config.validation_split = "validation"
    config.test_split = "test"
    config.seed = 0

    config.model = "mlp"  # mlp, cnn, vit or linear
    config.hidden = (128, 128)  # widths (mlp) or channels (cnn)
    config.patch_size = 2  # pixels (vit)
    config.width = 64  # of the residual stream (vit)
    config.depth = 2  # blocks (vit)
    config.num_heads = 4  # of the attention; divides the width (vit)
    config.dropout = 0.0  # probability of dropping a unit

    config.optimizer = "lion"  # lion, adamw or sgd
    config.learning_rate = 2e-3  # peak, reached after the warm-up
    config.weight_decay = 10.0  # on matrices only; multiplied by the learning rate
    config.b1 = 0.9  # lion and adamw
    config.b2 = 0.99  # lion
    config.adamw_b2 = 0.999
    config.momentum = 0.9  # sgd
    config.warmup_fraction = 0.05  # of the steps, linear from 0
    config.num_steps = 1000  # cosine decay to 0 at the end
    config.batch_size = 64

    config.log_every = 10  # steps
    config.evaluate_every = 100  # steps, on the validation split
    config.checkpoint_every = 200  # steps
    config.mesh = "data"  # data, data:N, fsdp or fsdp:N
    return config_lib.apply(
        config, arg, smoke={"num_steps": 2, "hidden": (8,), "width": 8, "depth": 1}
    )
