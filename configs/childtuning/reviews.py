"""ChildTuning on the sentiment of Chinese reviews, with few labels."""

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
    config.label_column = "label"  # classes, numbered from 0
    config.num_labels = 144  # 1 %, whole batches of training rows; 0 is all
    config.max_length = 32  # tokens; longer texts are cut
    config.seed = 0  # of the labelled rows, the head and the training

    config.encoder = "zh_char"  # zh_char, minilm, or the folder of a BERT
    config.num_layers = 0  # the first layers that are used; 0 is all
    config.pretrained = True  # False draws the encoder anew
    config.dropout = 0.1  # probability of dropping a unit, everywhere

    config.method = "d"  # none, f, d or update_dropout (f after the optimizer)
    config.reserve_p = 0.3  # fraction of the gradient that is kept
    config.fisher = "paper"  # of d: paper (per example) or authors (per batch)
    config.competing = "layers"  # layers or all; what does not compete is trained
    config.regularizer = "none"  # none or rdrop
    config.alpha = 4.0  # of R-Drop

    config.optimizer = "adamw"  # adamw, lion, or child_adamw (the authors' arithmetic)
    config.decay = "all"  # of child_adamw: all, or child spares what is masked
    config.learning_rate = 5e-4  # peak
    config.weight_decay = 0.01  # multiplied by the learning rate
    config.clip_norm = 1.0  # global norm of the gradient at most
    config.warmup_fraction = 0.1  # of the steps; then linear decay to 0
    config.num_steps = 40
    config.batch_size = 16

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
