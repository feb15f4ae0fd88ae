"""An encoder with a linear classifier on its pooled feature, trained whole or with the encoder frozen."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ascnet.encoders import Encoder
from ascnet.errors import CheckpointError

PREFIX = "online."
"""In a checkpoint the encoder has the names that pretraining gives it, so that `load_encoder` reads either."""


class Classifier(nn.Module):
    """Logits (B, classes) of clips (B, 3, T, H, W).

    Frozen, the encoder stays in evaluation mode, its batch normalisation too, and gets no gradients.
    """

    def __init__(
        self, encoder: Encoder, classes: int, *, frozen: bool = False, dropout: float = 0.0, norm: bool = False
    ) -> None:
        """
        Args:
            encoder: As it is; it becomes part of this module.
            classes: Outputs.
            frozen: Whether only the classifier is trained.
            dropout: Share of the feature that is set to 0 while training.
            norm: Batch normalisation, without scale and shift, between feature and classifier.
        """
        super().__init__()
        self.encoder, self.frozen = encoder, frozen
        self.norm = nn.BatchNorm1d(encoder.dim, affine=False) if norm else nn.Identity()
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(encoder.dim, classes)
        nn.init.normal_(self.head.weight, std=0.01)
        nn.init.zeros_(self.head.bias)
        encoder.requires_grad_(not frozen)

    def train(self, mode: bool = True) -> Classifier:
        """As usual, but for a frozen encoder, which stays in evaluation mode."""
        super().train(mode)
        if self.frozen:
            self.encoder.eval()
        return self

    def forward(self, clips: Tensor) -> Tensor:
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.frozen):
            feature = self.encoder(clips)
        # The head is never below fp32: it is small, and softmax of half-precision logits loses digits.
        with torch.autocast(clips.device.type, enabled=False):
            return self.head(self.dropout(self.norm(feature.to(self.head.weight.dtype))))

    def weights(self) -> dict[str, Tensor]:
        """What a checkpoint holds."""
        return {PREFIX + name if name.startswith("encoder.") else name: t for name, t in self.state_dict().items()}

    def load_weights(self, weights: dict[str, Tensor]) -> None:
        """Takes up what `weights` gave.

        Raises:
            CheckpointError: If they are of another encoder or of another number of classes.
        """
        try:
            self.load_state_dict({name.removeprefix(PREFIX): tensor for name, tensor in weights.items()})
        except RuntimeError as error:
            reason = " ".join(str(error).split())[:300]
            raise CheckpointError(f"the checkpoint's weights do not fit this classifier: {reason}") from None
