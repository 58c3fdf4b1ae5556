"""From a configuration to its encoder."""

from canal.config import CompactConfig, PerformerConfig, ScAnnoNetConfig
from canal.model.encoders.compact import CompactEncoder
from canal.model.encoders.contract import Encoder
from canal.model.encoders.performer import PerformerEncoder
from canal.model.encoders.scannonet import ScAnnoNetEncoder


def build_encoder(config: CompactConfig | PerformerConfig | ScAnnoNetConfig, n_genes: int) -> Encoder:
    """Return a freshly initialised encoder; the global torch seed decides its weights."""
    match config:
        case CompactConfig():
            return CompactEncoder(config, n_genes)
        case PerformerConfig():
            return PerformerEncoder(config, n_genes)
        case ScAnnoNetConfig():
            return ScAnnoNetEncoder(config, n_genes)
