"""R-Drop on GLUE with the settings of the authors' code: RTE with BERT-base.

Of https://github.com/dropreg/R-Drop, huggingface_transformer_src, are learning rate,
batch size, steps and warm-up of RTE, and the constant 0.25 on the sum of the
divergence. Adam there has b2 0.98 and epsilon 1e-6, here those of optax.

Neither the data nor BERT-base comes with the package. The error without the data names
the command that prepares it, and `--config.encoder=DIR` takes the folder of
google-bert/bert-base-uncased. Another task of GLUE: `:dataset=glue/mrpc`. Its tests
have no public labels, so the validation split stands for both.
"""

import ml_collections

from expkit import config as config_lib


def get_config(arg=""):
    config = ml_collections.ConfigDict()
    config.dataset = "glue/rte"  # prepared by TFDS
    config.data_dir = ""  # folder with the raw files, for sources that need one
    config.train_split = "train"
    config.validation_split = "validation"
    config.test_split = "validation"  # the labels of the test split are not public
    config.text_columns = ("sentence1", "sentence2")  # one, or two for pairs
    config.label_column = "label"  # integers for classes, numbers for a regression
    config.num_labels = 0  # training rows that keep their label; 0 is all
    config.max_length = 128  # tokens; longer texts are cut
    config.seed = 0  # of the labelled rows, the head and the training

    config.encoder = "bert-base-uncased"  # the folder of a BERT
    config.num_layers = 0  # the first layers that are used; 0 is all
    config.pretrained = True  # False draws the encoder anew
    config.dropout = 0.1  # probability of dropping a unit, everywhere

    config.regularizer = "rdrop"  # none, rdrop, gradient_penalty, adversarial, vat
    config.strength = 0.5  # alpha, coefficient, radius, or weight
    config.convention = "hf_bert"  # of R-Drop; see rdrop/README.md
    config.unlabelled_regularizer = "none"  # none, rdrop or vat, on texts without label
    config.unlabelled_strength = 1.0  # its weight
    config.radius = 1.0  # of the perturbation of vat, over all embeddings of a text

    config.learning_rate = 1e-5  # peak
    config.weight_decay = 0.01  # on matrices only; multiplied by the learning rate
    config.clip_norm = 1.0  # global norm of the gradient at most
    config.warmup_fraction = 0.06  # of the steps; then linear decay to 0
    config.num_steps = 2036  # 6.5 epochs of RTE
    config.batch_size = 8  # and as many unlabelled texts

    config.log_every = 10  # steps
    config.evaluate_every = 100  # steps, on the validation split
    config.checkpoint_every = 100  # steps
    config.mesh = "data"  # data, data:N, fsdp or fsdp:N
    smoke = {
        "dataset": "reviews",
        "text_columns": ("text",),
        "encoder": "zh_char",
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
