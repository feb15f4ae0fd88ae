"""A trained encoder as a file for others: safetensors, ONNX or torch.export, checked, with a card."""

from __future__ import annotations

from ascnet.exporting.export import Exported, export_encoder

__all__ = ["Exported", "export_encoder"]
