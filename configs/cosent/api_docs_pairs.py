"""How near two paragraphs of documentation are: CoSENT and its rivals, MiniLM.

Feature-based, one vector a text: `loss` is `cosent`, `sentence_bert`, `cosine_mse` or
`contrastive`. Interaction-based, both texts in one sequence: `:model=interaction,
loss=classification` or `regression`. On two cores a step takes half a second; with 64
tokens, which paragraphs are worth, a second.
"""

import ml_collections

from expkit import config as config_lib


def get_config(arg=""):
    config = ml_collections.ConfigDict()
    config.dataset = "api_docs_pairs"  # any source with two texts and a label
    config.data_dir = ""  # folder with the raw files, for sources that need one
    config.train_split = "train"
    config.validation_split = "validation[:100]"
    config.test_split = "test[:200]"
    config.text_columns = ("text_1", "text_2")
    config.label_column = "score"  # 0, 1, ... or 0.5, 1.0, ...; more is more alike
    config.positive_at = 2.0  # least label that counts as alike, for accuracy and F1
    config.num_labels = 0  # training pairs that are used, drawn by seed; 0 is all
    config.max_length = 32  # tokens of a text, or of both in the interaction model
    config.seed = 0  # of the rows, the head and the training

    config.encoder = "minilm"  # minilm, zh_char, or the folder of a BERT
    config.num_layers = 0  # the first layers that are used; 0 is all
    config.pretrained = True  # False draws the encoder anew
    config.dropout = 0.1  # probability of dropping a unit, everywhere

    config.model = "feature"  # feature or interaction
    config.loss = "cosent"  # see above
    config.scale = 20.0  # of the cosines, in cosent and contrastive

    config.learning_rate = 3e-5  # peak; 1e-4 makes the encoder forget
    config.weight_decay = 0.01  # on matrices only; multiplied by the learning rate
    config.clip_norm = 1.0  # global norm of the gradient at most
    config.warmup_fraction = 0.1  # of the steps; then linear decay to 0
    config.num_steps = 16
    config.batch_size = 16  # pairs; the loss of CoSENT grows with the logarithm of it

    config.log_every = 2  # steps
    config.evaluate_every = 100  # steps, on the validation split
    config.checkpoint_every = 100  # steps
    config.mesh = "data"  # data, data:N, fsdp or fsdp:N
    smoke = {
        "train_split": "train[:60]",
        "validation_split": "validation[:20]",
        "test_split": "test[:20]",
        "num_steps": 2,
        "batch_size": 4,
        "max_length": 16,
        "num_layers": 1,
    }
    return config_lib.apply(config, arg, smoke=smoke)
