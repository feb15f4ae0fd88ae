"""Video encoders: (B, 3, T, H, W) in, (B, dim) out."""

from __future__ import annotations

from ascnet.encoders.r3d import R3D, r3d10, r3d18
from ascnet.encoders.registry import build_encoder, encoder_names, register

__all__ = ["R3D", "build_encoder", "encoder_names", "r3d10", "r3d18", "register"]
