"""Expression as tokens: one of a few log2 bins a gene (scBERT, CANAL section 2)."""

import numpy as np
import scipy.sparse as sp


def log2_tokens(expression: sp.csr_matrix, bins: int = 5) -> np.ndarray:
    """Return the bin of every gene: ``min(floor(log2(1 + 1e4 * count / total)), bins)``.

    Parameters
    ----------
    expression
        CSR of shape (cells, genes), natural ``log1p`` of values scaled to 10,000 a cell. The result
        is dense: give it a block of cells on the genes of the panel.
    bins
        Highest bin; bin 0 also holds what is below one count in 10,000.

    Returns
    -------
    uint8 of shape (cells, genes).
    """
    # float32 may fall just below the integer that ln(2^k) / ln 2 is.
    bin_of = np.floor(expression.data / np.log(2.0) + 1e-6)
    tokens = sp.csr_matrix(
        (np.minimum(bin_of, bins).astype(np.uint8), expression.indices, expression.indptr),
        shape=expression.shape,
    )
    return np.asarray(tokens.toarray())
