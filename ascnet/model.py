"""ASCNet: the two networks, their heads and both losses (METHOD: Algorithm 1)."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ascnet import ema
from ascnet.heads import MLP
from ascnet.logs.profile import region
from ascnet.loss import squared_distance

Retrieve = Callable[[], tuple[Tensor | None, Tensor]]


@dataclass
class Losses:
    """What one forward pass yields.

    Attributes:
        loss: gamma L_m + (1 - gamma) L_a, averaged over the batch; a sample without a positive has no L_m. Scalar.
        acp: L_a averaged over the batch, no gradient. Scalar.
        scp: L_m averaged over the samples that have a positive; not a number where none has. No gradient. Scalar.
        a_i: Online appearance features, (B, D), no gradient; they fill the memory bank.
        m_i: Online speed features, (B, D), no gradient; None where the speed task was left out.
        positives: Samples that have a positive.
    """

    loss: Tensor
    acp: Tensor
    scp: Tensor
    a_i: Tensor
    m_i: Tensor | None
    positives: int = 0


class Network(nn.Module):
    """Encoder f with projectors g_a (appearance) and g_m (motion): what has an online and a target copy."""

    def __init__(self, encoder: nn.Module, hidden: int, dim: int, *, norm: bool = False) -> None:
        super().__init__()
        self.encoder = encoder
        self.g_a = MLP(encoder.dim, hidden, dim, norm=norm)  # type: ignore[arg-type]
        self.g_m = MLP(encoder.dim, hidden, dim, norm=norm)  # type: ignore[arg-type]


class ASCNet(nn.Module):
    """Appearance consistency (ACP) and speed consistency (SCP) on one encoder.

    Each method is a few lines of Algorithm 1; the numbers beside them are those of docs/method.md. A step is
        >>> a_j = model.appearance_target(c_j)                    # query of the memory bank
        >>> losses = model(c_i, a_j, lambda: (c_k, found))        # c_k: clips of the retrieved videos
        >>> losses.loss.backward(); optimizer.step(); model.update_target(momentum)

    Attributes:
        online: f, g_a, g_m with weights theta, theta_a, theta_m.
        target: The same with weights xi, xi_a, xi_m, moved by `update_target` only.
        h_a, h_m: Predictors with weights theta'_a, theta'_m.
        joint_norm: Whether batch normalisation is over the batches of several processes (`ascnet.parallel.sync_norm`),
            so that a process without positives takes part in theirs.
    """

    joint_norm = False

    def __init__(
        self,
        encoder: nn.Module,
        *,
        projector_hidden: int = 4096,
        projector_dim: int = 256,
        projector_norm: bool = False,
        predictor_hidden: int = 4096,
        gamma: float = 0.5,
        normalize: bool = True,
    ) -> None:
        """
        Args:
            encoder: A module with `dim` and forward (B, 3, T, H, W) -> (B, dim); it becomes the online encoder.
            projector_hidden: Hidden units of g_a and g_m.
            projector_dim: Output units D of projectors and predictors.
            projector_norm: End the projectors with batch normalisation.
            predictor_hidden: Hidden units of h_a and h_m.
            gamma: Weight of the speed loss.
            normalize: Scale both sides of a loss to length 1.
        """
        super().__init__()
        self.online = Network(encoder, projector_hidden, projector_dim, norm=projector_norm)  # line 1
        self.h_a = MLP(projector_dim, predictor_hidden, projector_dim)
        self.h_m = MLP(projector_dim, predictor_hidden, projector_dim)
        self.target = deepcopy(self.online).requires_grad_(False)  # line 2
        self.gamma = gamma
        self.normalize = normalize

    @torch.no_grad()
    def appearance_target(self, c_j: Tensor) -> Tensor:
        """a_j (B, D) of clips (B, 3, T, H, W): the target of ACP and the query of the memory bank."""
        x_j = self.target.encoder(c_j)  # line 6
        return self.target.g_a(x_j)  # line 7

    @torch.no_grad()
    def motion_target(self, c_k: Tensor) -> Tensor:
        """m_k (P, D) of clips (P, 3, T, H, W) of retrieved videos: the target of SCP."""
        with region("target forward"):
            x_k = self.target.encoder(c_k)  # line 9
            return self.target.g_m(x_k)  # line 10

    def forward(self, c_i: Tensor, a_j: Tensor, retrieve: Retrieve) -> Losses:
        """Both losses of a batch.

        Args:
            c_i: Clips of the online network, (B, 3, T, H, W).
            a_j: `appearance_target` of the other clips of the same videos, (B, D).
            retrieve: Called once, after the work on c_i has been started: till then c_k may be on its way. Returns
                c_k (P, 3, T, H, W), clips of the retrieved videos at the speeds of their c_i, or None; and `found`
                (P,) int64, the places in the batch of the samples they belong to. P may be 0: the speed task is then
                gone through without a loss, for the sake of the other processes.
        """
        x_i = self.online.encoder(c_i)  # line 6
        a_i = self.online.g_a(x_i)  # line 7
        l_a = squared_distance(self.h_a(a_i), a_j, normalize=self.normalize)
        loss, scp, m_i = (1 - self.gamma) * l_a.mean(), l_a.new_full((), torch.nan), None

        c_k, found = retrieve()  # lines 8 and 9
        if c_k is not None:
            m_k = self.motion_target(c_k) if len(c_k) or self.joint_norm else a_j[:0]
            m_i = self.online.g_m(x_i)  # line 10
            l_m = squared_distance(self.h_m(m_i)[found], m_k, normalize=self.normalize)
            loss = loss + self.gamma * l_m.sum() / len(l_a)  # line 11
            scp, m_i = l_m.detach().mean(), m_i.detach()
        return Losses(loss, l_a.detach().mean(), scp, a_i.detach(), m_i, len(found))

    def update_target(self, momentum: float) -> None:
        """xi, xi_a, xi_m <- their exponential moving average with theta, theta_a, theta_m."""
        ema.update(self.target, self.online, momentum)  # line 12
