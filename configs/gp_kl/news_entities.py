"""Names of persons, places and organisations in Chinese news, by Global Pointer.

`:head=efficient` is the Efficient Global Pointer, `:head=crf` a linear-chain CRF;
`:rotary=False` leaves the positions of the head out. `:regularizer=rdrop` lets two
passes with dropout agree, `vat` a pass and one at moved embeddings.
"""

import ml_collections

from expkit import config as config_lib


def get_config(arg=""):
    config = ml_collections.ConfigDict()
    config.dataset = "news_entities"  # any source with texts and spans
    config.data_dir = ""  # folder with the raw files, for sources that need one
    config.train_split = "train"
    config.validation_split = "validation[:200]"
    config.test_split = "test[:500]"
    config.text_column = "text"
    config.span_column = "spans"  # (type, start, end) in characters, end inclusive
    config.num_labels = 0  # training texts that are used, drawn by seed; 0 is all
    config.max_length = 64  # tokens; longer texts are cut between spans
    config.seed = 0  # of the texts, the head and the training

    config.encoder = "zh_char"  # zh_char, minilm, or the folder of a BERT
    config.num_layers = 0  # the first layers that are used; 0 is all
    config.pretrained = True  # False draws the encoder anew
    config.dropout = 0.1  # probability of dropping a unit, everywhere

    config.head = "global_pointer"  # global_pointer, efficient or crf
    config.head_size = 64  # width of queries and keys, of the pointers
    config.rotary = True  # relative positions in the scores of the pointers
    config.chain_multiplier = 10.0  # of the learning rate, for the transitions of crf

    config.regularizer = "none"  # none, rdrop, rdrop_softmax or vat
    config.strength = 1.0  # alpha of R-Drop, or weight of VAT
    config.reduction = "sum"  # of the divergence over the cells: sum or mean
    config.radius = 1.0  # of the perturbation of vat, over all embeddings of a text

    config.learning_rate = 5e-4  # peak
    config.weight_decay = 0.01  # on matrices only; multiplied by the learning rate
    config.clip_norm = 1.0  # global norm of the gradient at most
    config.warmup_fraction = 0.1  # of the steps; then linear decay to 0
    config.num_steps = 40
    config.batch_size = 16  # windows of at most max_length tokens

    config.log_every = 5  # steps
    config.evaluate_every = 100  # steps, on the validation split
    config.checkpoint_every = 100  # steps
    config.mesh = "data"  # data, data:N, fsdp or fsdp:N
    smoke = {
        "train_split": "train[:60]",
        "validation_split": "validation[:20]",
        "test_split": "test[:20]",
        "num_steps": 2,
        "batch_size": 4,
        "max_length": 32,
        "num_layers": 1,
    }
    return config_lib.apply(config, arg, smoke=smoke)
