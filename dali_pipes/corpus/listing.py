"""What the official lists of a data set name, beside what there is: kept with the corpus, shown with every score."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

_NAMED = 5


@dataclass(frozen=True)
class Listing:
    """How a folder and the official lists of its data set fit.

    Attributes:
        layout: Name of the layout that read the lists.
        fold: Which of several official splits.
        listed: Videos listed, by split; "" for videos listed as belonging to none.
        missing: Those of them that are not there, by split; splits that are whole are left out.
        surplus: Videos that are there and in no list, or are a second copy of one that is.
        missing_names: The first few that are missing.
        surplus_names: The first few that are surplus.
    """

    layout: str
    fold: int
    listed: dict[str, int]
    missing: dict[str, int]
    surplus: int = 0
    missing_names: tuple[str, ...] = ()
    surplus_names: tuple[str, ...] = ()

    @classmethod
    def of(
        cls, layout: str, fold: int, listed: Iterable[str], missing: Iterable[tuple[str, str]], surplus: Iterable[str]
    ) -> Listing:
        """Count.

        Args:
            layout: Name of the layout.
            fold: Which of several official splits.
            listed: Split of every video listed.
            missing: Split and name of those that are not there.
            surplus: Names of the videos that are in no list.
        """
        missing, surplus = sorted(missing, key=lambda one: one[1]), sorted(surplus)
        return cls(
            layout,
            fold,
            dict(sorted(Counter(listed).items())),
            dict(sorted(Counter(split for split, _ in missing).items())),
            len(surplus),
            tuple(name for _, name in missing[:_NAMED]),
            tuple(surplus[:_NAMED]),
        )

    def share(self, split: str) -> str:
        """How whole a split is, in words: `3 of 9537 train videos missing`; "" for a split that is not listed."""
        if split not in self.listed:
            return ""
        missing, named = self.missing.get(split, 0), split or "unused"
        return f"{missing or 'none'} of {self.listed[split]} {named} videos missing"

    def warnings(self) -> list[str]:
        """What does not fit, one line each; none where all is there and nothing else."""
        lines = []
        missing, listed = sum(self.missing.values()), sum(self.listed.values())
        if missing:
            # Videos that are listed as unused are missed by nobody, but they tell that the folder is not whole.
            where = ", ".join(f"{split or 'unused'} {count}" for split, count in self.missing.items())
            names = _some(self.missing_names, missing)
            lines.append(f"{missing} of {listed} listed videos are not in the folder: {names} ({where})")
        if self.surplus:
            names = _some(self.surplus_names, self.surplus)
            lines.append(f"{self.surplus} videos in the folder are in no list: {names}")
        return lines

    def summary(self) -> str:
        """Everything in one line."""
        name = self.layout if self.layout in ("kinetics", "csv") else f"{self.layout}, split {self.fold}"
        parts = [self.share(split) for split in sorted(self.listed, key=lambda split: (not split, split))]
        return f"{name}: {', '.join(parts)}; {self.surplus or 'none'} in no list"

    def dumps(self) -> bytes:
        """As JSON, for the metadata of a corpus file."""
        return json.dumps(asdict(self)).encode()

    @classmethod
    def loads(cls, data: bytes | None) -> Listing | None:
        """From JSON; None where there is none, or it was written by someone else."""
        try:
            content: Mapping[str, Any] = json.loads(data or b"null") or {}
            known = {field.name: content[field.name] for field in fields(cls) if field.name in content}
            known |= {name: tuple(known.get(name, ())) for name in ("missing_names", "surplus_names")}
            return cls(**known)
        except (ValueError, TypeError, AttributeError):
            return None


def _some(names: tuple[str, ...], count: int) -> str:
    return ", ".join(names[:3]) + (f" and {count - 3} more" if count > 3 else "")
