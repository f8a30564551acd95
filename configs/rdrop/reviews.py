"""Sentiment of Chinese reviews with few labels: R-Drop and its rivals.

Supervised, 1 % of the labels: the default. Semi-supervised:
`:regularizer=none,unlabelled_regularizer=rdrop` or `vat`. All labels: `:num_labels=0,
num_steps=2000`.
"""

import ml_collections

from expkit import config as config_lib


def get_config(arg=""):
    config = ml_collections.ConfigDict()
    config.dataset = "reviews"  # any source of expkit.data with texts and labels
    config.data_dir = ""  # folder with the raw files, for sources that need one
    config.train_split = "train"
    config.validation_split = "validation[:500]"
    config.test_split = "test[:1000]"
    config.text_columns = ("text",)  # one, or two for pairs
    config.label_column = "label"  # integers for classes, numbers for a regression
    config.num_labels = 140  # training rows that keep their label; 0 is all
    config.max_length = 32  # tokens; longer texts are cut
    config.seed = 0  # of the labelled rows, the head and the training

    config.encoder = "zh_char"  # zh_char, minilm, or the folder of a BERT
    config.num_layers = 0  # the first layers that are used; 0 is all
    config.pretrained = True  # False draws the encoder anew
    config.dropout = 0.1  # probability of dropping a unit, everywhere

    config.regularizer = "rdrop"  # none, rdrop, gradient_penalty, adversarial, vat
    config.strength = 4.0  # alpha, coefficient, radius, or weight
    config.convention = "paper"  # of R-Drop; see rdrop/README.md
    config.unlabelled_regularizer = "none"  # none, rdrop or vat, on texts without label
    config.unlabelled_strength = 1.0  # its weight
    config.radius = 1.0  # of the perturbation of vat, over all embeddings of a text

    config.learning_rate = 5e-4  # peak
    config.weight_decay = 0.01  # on matrices only; multiplied by the learning rate
    config.clip_norm = 1.0  # global norm of the gradient at most
    config.warmup_fraction = 0.1  # of the steps; then linear decay to 0
    config.num_steps = 40
    config.batch_size = 16  # and as many unlabelled texts

    config.log_every = 5  # steps
    config.evaluate_every = 100  # steps, on the validation split
    config.checkpoint_every = 100  # steps
    config.mesh = "data"  # data, data:N, fsdp or fsdp:N
    smoke = {
        "train_split": "train[:60]",
        "validation_split": "validation[:20]",
        "test_split": "test[:20]",
        "num_labels": 20,
        "num_steps": 2,
        "batch_size": 4,
        "max_length": 16,
        "num_layers": 1,
    }
    return config_lib.apply(config, arg, smoke=smoke)
