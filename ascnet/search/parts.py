"""The finished parts of a long `ascnet embed`, kept until all are there: whoever starts it again goes on after them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from ascnet.errors import UserError
from ascnet.files import written_whole
from ascnet.search.describe import Described
from ascnet.search.recipe import Recipe

# Which clip of which video a vector describes; of a vector for a whole video `start` is -1.
PLACE = np.dtype([("row", np.int64), ("start", np.int64), ("speed", np.float32)])


@dataclass(frozen=True)
class Part:
    """Features of some consecutive videos.

    Attributes:
        places: ``(N,)`` of type `PLACE`, by row, then by start.
        vectors: ``(N, D)`` float32.
        failed: Why, by row number, for videos that could not be decoded.
    """

    places: NDArray[np.void]
    vectors: NDArray[np.float32]
    failed: dict[int, str]

    @classmethod
    def of(cls, described: Sequence[Described], *, per_clip: bool, speed: float) -> Part:
        """Of videos in any order."""
        good = sorted((one for one in described if not one.error), key=lambda one: one.row)
        failed = {one.row: one.error for one in described if one.error}
        places = [
            (one.row, int(start), speed) for one in good for start in (one.starts if per_clip else np.array([-1]))
        ]
        made = [one.vectors if per_clip else one.mean()[None] for one in good]
        vectors = np.concatenate(made) if made else np.empty((0, 0), np.float32)
        return cls(np.array(places, PLACE), vectors, dict(sorted(failed.items())))


class Parts:
    """A folder of parts beside the file that they become.

    Args:
        target: That file.
        recipe: What the features depend on.
        rows: Row numbers to describe, ascending.
        size: Videos in a part.

    Raises:
        UserError: The folder is there, and was begun with another recipe.
    """

    def __init__(self, target: Path, recipe: Recipe, rows: NDArray[np.int64], size: int) -> None:
        self.folder = target.with_name(f"{target.name}.parts")
        self.rows, self.size = rows, size
        about = self.folder / "about.json"
        if about.is_file():
            self._check(about, recipe)
        else:
            with written_whole(about) as temporary:
                temporary.write_text(json.dumps({"recipe": recipe.as_dict(), "size": size}), encoding="utf-8")

    def _check(self, about: Path, recipe: Recipe) -> None:
        try:
            content = json.loads(about.read_text(encoding="utf-8"))
            begun, size = Recipe.of(content["recipe"], str(about)), int(content["size"])
        except (ValueError, KeyError, TypeError) as error:
            raise UserError(f"{about}: damaged ({error}); remove {self.folder}") from None
        told = recipe.differences(begun)
        if told:
            raise UserError(
                f"{self.folder}: begun with {'; '.join(told)}; say what it was begun with, or remove this folder"
            )
        self.size = size

    def __len__(self) -> int:
        return -(-len(self.rows) // self.size)

    def of(self, number: int) -> NDArray[np.int64]:
        """Row numbers of a part."""
        return self.rows[number * self.size : (number + 1) * self.size]

    def missing(self) -> list[int]:
        """Numbers of the parts that are not there yet."""
        return [number for number in range(len(self)) if not self._path(number).is_file()]

    def save(self, number: int, part: Part) -> None:
        """Write a part; it appears whole or not at all."""
        with written_whole(self._path(number)) as temporary, temporary.open("wb") as file:
            np.savez(file, places=part.places, vectors=part.vectors, failed=np.array(json.dumps(part.failed)))

    def load(self, number: int) -> Part:
        """Read a part.

        Raises:
            UserError: It is damaged.
        """
        path = self._path(number)
        try:
            with np.load(path, allow_pickle=False) as file:
                failed = {int(row): why for row, why in json.loads(str(file["failed"])).items()}
                return Part(file["places"], file["vectors"], failed)
        except (OSError, ValueError, KeyError, EOFError, BadZipFile) as error:
            raise UserError(f"{path}: damaged ({error}); remove it and start again") from None

    def remove(self) -> None:
        """Remove the folder: what it held is in its place."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _path(self, number: int) -> Path:
        return self.folder / f"{number:07d}.npz"
