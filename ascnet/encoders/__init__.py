"""Video encoders: (B, 3, T, H, W) in, (B, dim) out."""

from __future__ import annotations

from ascnet.encoders.base import Encoder
from ascnet.encoders.c3d import C3D, c3d
from ascnet.encoders.r2plus1d import R2Plus1D, r2plus1d18
from ascnet.encoders.r2plus1d_vcop import R2Plus1DVcop, r2plus1d10
from ascnet.encoders.r3d import R3D, r3d10, r3d18
from ascnet.encoders.registry import build_encoder, encoder_names, register
from ascnet.encoders.s3dg import S3DG, s3dg

__all__ = [
    "C3D",
    "R3D",
    "S3DG",
    "Encoder",
    "R2Plus1D",
    "R2Plus1DVcop",
    "build_encoder",
    "c3d",
    "encoder_names",
    "r2plus1d10",
    "r2plus1d18",
    "r3d10",
    "r3d18",
    "register",
    "s3dg",
]
