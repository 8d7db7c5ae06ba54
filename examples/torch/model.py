"""NSNet2, the speech denoiser, as a PyTorch program has it: nothing here knows of fastgru.

S. Braun, I. Tashev: "Data augmentation and loss normalization for deep noise suppression", 2020,
arXiv:2008.06412. Trained weights: Microsoft, DNS Challenge, CC BY 4.0.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

BINS, FIRST, LAST = 161, 400, 600


class NSNet2(nn.Module):
    """Gains of 161 bins from the logarithm of their power, in two GRUs between dense layers."""

    def __init__(self) -> None:
        super().__init__()
        self.fc1 = nn.Linear(BINS, FIRST)
        self.gru1 = nn.GRU(FIRST, FIRST)
        self.gru2 = nn.GRU(FIRST, FIRST)
        self.fc2 = nn.Linear(FIRST, LAST)
        self.fc3 = nn.Linear(LAST, LAST)
        self.fc4 = nn.Linear(LAST, BINS)

    def forward(
        self, features: Tensor, states: tuple[Tensor | None, Tensor | None] = (None, None)
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """Gains of some frames, and the states after them.

        Parameters
        ----------
        features : Tensor, shape (frames, batch, 161)
        states : tuple of Tensor, each (1, batch, 400), or None
            Of the frames before.

        Returns
        -------
        gains : Tensor, shape (frames, batch, 161)
        states : tuple of Tensor
        """
        x = torch.relu(self.fc1(features))
        x, first = self.gru1(x, states[0])
        x, second = self.gru2(x, states[1])
        x = torch.relu(self.fc2(x))
        x = torch.relu(self.fc3(x))
        return torch.sigmoid(self.fc4(x)), (first, second)
