"""From a configuration to its encoder."""

from canal.config import CompactConfig, PerformerConfig
from canal.encoders.compact import CompactEncoder
from canal.encoders.contract import Encoder
from canal.encoders.performer import PerformerEncoder
from canal.encoders.scannonet import ScAnnoNetEncoder
from canal.scannonet_config import ScAnnoNetConfig


def build_encoder(config: CompactConfig | PerformerConfig | ScAnnoNetConfig, n_genes: int) -> Encoder:
    """Return a freshly initialised encoder; the global torch seed decides its weights."""
    match config:
        case CompactConfig():
            return CompactEncoder(config, n_genes)
        case PerformerConfig():
            return PerformerEncoder(config, n_genes)
        case ScAnnoNetConfig():
            return ScAnnoNetEncoder(config, n_genes)
