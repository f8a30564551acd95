"""A VAE of Chinese reviews, character by character, where the KL of a normal vanishes.

The four that are compared: `:model=gaussian`, with annealing
`:model=gaussian,kl_warmup_steps=1000`, `:model=batch_norm`, and the default. Watch `kl`
in `metrics.jsonl`.
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

    config.model = "vmf"  # vmf, gaussian or batch_norm
    config.latent_dim = 17  # coordinates of z; a sphere has one dimension less
    config.concentration = "30"  # learned, shared or a number (vmf)
    config.scale = 0.6  # gamma, of the normalised means (batch_norm)
    config.max_length = 32  # characters; longer texts are cut
    config.max_vocabulary = 1500  # ids at most, from the training split
    config.min_count = 2  # occurrences of a character that gets an id of its own
    config.width = 128  # of embeddings and states
    config.word_dropout = 0.0  # probability of hiding a character from the decoder

    config.learning_rate = 2e-3  # of Adam
    config.weight_decay = 0.0  # on matrices only; multiplied by the learning rate
    config.kl_warmup_steps = 0  # over which the weight of the KL rises to 1
    config.num_steps = 3000
    config.batch_size = 32

    config.importance_samples = 100  # of the log-likelihood at the end
    config.log_every = 20  # steps
    config.evaluate_every = 500  # steps, on the validation split
    config.checkpoint_every = 500  # steps
    config.mesh = "data"  # data, data:N, fsdp or fsdp:N
    smoke = {
        "train_split": "train[:200]",
        "validation_split": "validation[:50]",
        "test_split": "test[:50]",
        "max_length": 8,
        "max_vocabulary": 200,
        "num_steps": 2,
        "width": 8,
        "importance_samples": 3,
    }
    return config_lib.apply(config, arg, smoke=smoke)
