"""The rows that others published, percent. A cell that the paper's table leaves empty is not here."""

from __future__ import annotations

from ascnet.evaluate.tables import PUBLISHED as RETRIEVAL_ROWS

UCF101, HMDB51 = "UCF101", "HMDB51"

RECOGNITION: tuple[tuple[str, str, dict[str, float]], ...] = (
    ("CBT", "S3D-G", {UCF101: 79.5, HMDB51: 44.6}),
    ("SpeedNet", "S3D-G", {UCF101: 81.1, HMDB51: 48.8}),
    ("Pace", "S3D-G", {UCF101: 87.1, HMDB51: 52.6}),
    ("CoCLR-RGB", "S3D-G", {UCF101: 87.9, HMDB51: 54.6}),
    ("RSPNet", "S3D-G", {UCF101: 89.9, HMDB51: 59.6}),
    ("ASCNet", "3D R18", {UCF101: 80.5, HMDB51: 52.3}),
    ("ASCNet", "S3D-G", {UCF101: 90.8, HMDB51: 60.5}),
    ("supervised, Kinetics-400", "3D R18", {UCF101: 84.4, HMDB51: 56.4}),
    ("supervised, ImageNet", "S3D-G", {UCF101: 86.6, HMDB51: 57.7}),
    ("supervised, Kinetics-400", "S3D-G", {UCF101: 96.8, HMDB51: 75.9}),
)
"""Action recognition, all weights fine-tuned: method, encoder, top-1."""

RETRIEVAL: tuple[tuple[str, str, dict[str, float]], ...] = tuple(
    (name.partition(", ")[0], name.partition(", ")[2], {f"R@{k}": value for k, value in recalls.items()})
    for name, recalls in RETRIEVAL_ROWS
)
"""Nearest-neighbour retrieval on UCF-101: method, encoder, R@k. RSPNet's k = 5 and 20 are from its release."""

_MARKS = {
    UCF101: (101, {"ApplyEyeMakeup", "Archery", "BaseballPitch", "HorseRiding", "YoYo"}),
    HMDB51: (51, {"brush_hair", "cartwheel", "catch", "ride_horse", "wave"}),
}


def data_set(classes: list[str]) -> str | None:
    """The data set of the published tables that has these classes; None for any other.

    A part of a data set, with fewer classes, is another data set: its scores do not compare.
    """
    for name, (count, some) in _MARKS.items():
        if len(classes) == count and some <= set(classes):
            return name
    return None
