"""Lion pre-trains a small Chinese character encoder on masked reviews.

AdamW at an equal budget: `:optimizer=adamw,b1=0.9,learning_rate=2e-3,
weight_decay=0.01`. Compare `validation_perplexity`, the exponential of the mean loss
over masked characters, under one mask that all runs share; the unigrams have 472.
"""

import ml_collections

from expkit import config as config_lib


def get_config(arg=""):
    config = ml_collections.ConfigDict()
    config.dataset = "reviews"  # any source of expkit.data with text
    config.data_dir = ""  # folder with the raw files, for sources that need one
    config.train_split = "train"
    config.validation_split = "validation"
    config.test_split = "test"
    config.seed = 0

    config.max_length = 64  # characters; longer texts are cut
    config.max_vocabulary = 4096  # ids at most, from the training split
    config.min_count = 2  # occurrences of a character that gets an id of its own
    config.packed = False  # rows cut from all texts joined, not one for each text
    config.mask_rate = 0.2  # probability that a character is masked
    config.model = "rotary"  # or encoder, which expkit.text loads
    config.width = 128  # of the residual stream
    config.depth = 3  # blocks
    config.num_heads = 4  # of the attention; width / num_heads is even
    config.dropout = 0.0  # probability of dropping a unit

    config.optimizer = "lion"  # lion, adamw or sgd
    config.learning_rate = 3e-4  # peak; at 6e-4 earlier runs stayed at the unigrams
    config.weight_decay = 0.1  # on matrices only; multiplied by the learning rate
    config.b1 = 0.95  # lion and adamw; for language models the authors have 0.95 and
    config.b2 = 0.98  # 0.98 in Lion, and in AdamW 0.9 and 0.99
    config.adamw_b2 = 0.99
    config.momentum = 0.9  # sgd
    config.warmup_fraction = 0.05  # of the steps, linear from 0
    config.num_steps = 3000  # cosine decay to 0 at the end
    config.batch_size = 32

    config.log_every = 20  # steps
    config.evaluate_every = 200  # steps, on the validation split
    config.checkpoint_every = 500  # steps
    config.mesh = "data"  # data, data:N, fsdp or fsdp:N
    smoke = {
        "train_split": "train[:200]",
        "validation_split": "validation[:50]",
        "test_split": "test[:50]",
        "max_length": 16,
        "max_vocabulary": 500,
        "num_steps": 2,
        "width": 8,
        "depth": 1,
    }
    return config_lib.apply(config, arg, smoke=smoke)
