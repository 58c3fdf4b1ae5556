"""Dropout for a batch that is shared out: its rows get what they would get in the whole batch."""

from torch import Tensor, nn
from torch.nn import functional as F


class BatchDropout(nn.Dropout):
    """Dropout; where ``rows`` is set, the input is rows ``start`` to ``stop`` of a batch of ``total``.

    Attributes
    ----------
    rows
        (start, stop, total), or ``None`` for a whole batch.
    """

    rows: tuple[int, int, int] | None = None

    def forward(self, x: Tensor) -> Tensor:
        """Return the input with elements dropped, as numbers drawn for the whole batch decide."""
        if self.rows is None or not self.training:
            return super().forward(x)
        start, stop, total = self.rows
        whole = x.new_ones(total, *x.shape[1:])
        return x * F.dropout(whole, self.p, training=True)[start:stop]
