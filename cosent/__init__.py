"""CoSENT: a ranking loss for sentence embeddings (Su 2022), thresholds, matching."""

from cosent.class_weights import best_class_weights
from cosent.losses import binary_cosent_loss, cosent_loss
from cosent.pair_losses import (
    cosine_mse_loss,
    in_batch_contrastive_loss,
    init_sentence_bert,
    pair_features,
    sentence_bert_logits,
    sentence_bert_loss,
)
from cosent.ranking import average_ranks, spearman
from cosent.retrieval import encode_once, top_k
from cosent.similarity import cosine_matrix, pairwise_cosine, unit_vectors
from cosent.thresholds import best_threshold, bisect_threshold

__all__ = [
    "average_ranks",
    "best_class_weights",
    "best_threshold",
    "binary_cosent_loss",
    "bisect_threshold",
    "cosent_loss",
    "cosine_matrix",
    "cosine_mse_loss",
    "encode_once",
    "in_batch_contrastive_loss",
    "init_sentence_bert",
    "pair_features",
    "pairwise_cosine",
    "sentence_bert_logits",
    "sentence_bert_loss",
    "spearman",
    "top_k",
    "unit_vectors",
]
