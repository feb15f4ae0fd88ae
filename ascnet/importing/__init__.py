"""Published weights of other projects as checkpoints of this one."""

from __future__ import annotations

from ascnet.importing.convert import Imported, import_weights

__all__ = ["Imported", "import_weights"]
