"""Text: characters and tokens as ids, BERT encoders, sentence embeddings."""

from expkit.text.characters import (
    MASK,
    NUM_SPECIAL,
    PAD,
    UNKNOWN,
    CharVocabulary,
    build_vocabulary,
    encode,
    mask_tokens,
    unigram_log_probabilities,
)
from expkit.text.embeddings import mean_pool, sentence_embeddings
from expkit.text.encoder import EncoderConfig, apply_encoder, init_encoder
from expkit.text.tokenizer import (
    LENGTHS,
    Tokenizer,
    Tokens,
    static_length,
)
from expkit.text.tokenizer_files import load_tokenizer, save_char_tokenizer
from expkit.text.weights import encoder_tensors, load_encoder, save_encoder

__all__ = [
    "LENGTHS",
    "MASK",
    "NUM_SPECIAL",
    "PAD",
    "UNKNOWN",
    "CharVocabulary",
    "EncoderConfig",
    "Tokenizer",
    "Tokens",
    "apply_encoder",
    "build_vocabulary",
    "encode",
    "encoder_tensors",
    "init_encoder",
    "load_encoder",
    "load_tokenizer",
    "mask_tokens",
    "mean_pool",
    "save_char_tokenizer",
    "save_encoder",
    "sentence_embeddings",
    "static_length",
    "unigram_log_probabilities",
]
