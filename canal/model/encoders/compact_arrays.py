"""The compact network on NumPy arrays: the same weights without torch.

Annotating needs no gradient, and importing torch takes longer than annotating ten thousand cells. What is computed is
`canal.model.encoders.compact` in evaluation mode with a linear classifier behind it; logits differ by rounding only,
about 1e-5.

Shapes: B cells, G genes of the panel, S of them that a file measures, H hidden, D representation, C types.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from scipy.special import erf

# A unit profile of some thousand genes has entries near 0.03; this brings them to where initial weights fit.
SCALE = 10.0
EPSILON = 1e-5  # of torch's layer normalisation
SHORTEST = 1e-12  # of torch's normalisation of rows
ROOT_HALF = np.float32(np.sqrt(0.5))


@dataclass(frozen=True, kw_only=True)
class CompactArrays:
    """Weights of the network for the genes of one file.

    Attributes
    ----------
    first
        Input layer for the measured genes, (S, H).
    weights
        The other weights by the names of torch.
    """

    first: np.ndarray
    weights: Mapping[str, np.ndarray]

    @classmethod
    def of(cls, weights: Mapping[str, np.ndarray], measured: np.ndarray) -> "CompactArrays":
        """Return the network for some genes.

        Parameters
        ----------
        weights
            Of `canal.model.network.Network` with a compact encoder, by the names of its state.
        measured
            Positions of the measured genes on the panel, (S,).
        """
        first = np.ascontiguousarray(weights["encoder.fc1.weight"][:, measured].T)
        return cls(first=first * np.float32(SCALE), weights=weights)

    def outputs(self, values_BS: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return logits (B, C) and representations (B, D) of dense cells (B, S), natural log1p of values per 10,000."""
        w = self.weights
        # The input layer on unit profiles: multiplied as they are, then divided by their length.
        length_B = np.sqrt(np.einsum("bs,bs->b", values_BS, values_BS))
        h_BH = values_BS @ self.first
        h_BH /= np.maximum(length_B, np.float32(SHORTEST))[:, None]
        h_BH += w["encoder.fc1.bias"]
        # The other layers, in the order of the encoder, and the classifier.
        h_BH = _gelu(_layer_norm(h_BH, w["encoder.norm1.weight"], w["encoder.norm1.bias"]))
        h_BD = h_BH @ w["encoder.fc2.weight"].T + w["encoder.fc2.bias"]
        rep_BD = _gelu(_layer_norm(h_BD, w["encoder.norm2.weight"], w["encoder.norm2.bias"]))
        return rep_BD @ w["classifier.weight"].T + w["classifier.bias"], rep_BD


def _layer_norm(x: np.ndarray, weight: np.ndarray, bias: np.ndarray) -> np.ndarray:
    """Normalise the rows in place, and return them."""
    x -= x.mean(axis=1, keepdims=True)
    variance = np.einsum("bh,bh->b", x, x) / x.shape[1]
    x *= (1.0 / np.sqrt(variance + EPSILON)).astype(np.float32)[:, None]
    x *= weight
    x += bias
    return x


def _gelu(x: np.ndarray) -> np.ndarray:
    """Return x times the normal distribution function of x."""
    cdf = erf(x * ROOT_HALF)
    cdf += 1.0
    cdf *= 0.5
    cdf *= x
    return np.asarray(cdf)
