"""Global Pointer: spans by multi-label scores, and their symmetric divergence."""

from gp_kl.crf import LinearChainCRF
from gp_kl.decoding import (
    SpanCounts,
    decode_spans,
    score_counts,
    span_counts,
    span_f1,
    span_indices,
    span_labels,
)
from gp_kl.divergence import span_divergence
from gp_kl.heads import EfficientGlobalPointer, GlobalPointer, rotary, span_mask
from gp_kl.losses import multilabel_cross_entropy, sparse_multilabel_cross_entropy
from gp_kl.regularizers import span_rdrop_loss
from gp_kl.tags import bio_to_spans, spans_to_bio

__all__ = [
    "EfficientGlobalPointer",
    "GlobalPointer",
    "LinearChainCRF",
    "SpanCounts",
    "bio_to_spans",
    "decode_spans",
    "multilabel_cross_entropy",
    "rotary",
    "score_counts",
    "span_counts",
    "span_divergence",
    "span_f1",
    "span_indices",
    "span_labels",
    "span_mask",
    "span_rdrop_loss",
    "spans_to_bio",
    "sparse_multilabel_cross_entropy",
]
