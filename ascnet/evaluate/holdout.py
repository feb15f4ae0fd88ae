"""A part of the training videos for choosing a model by, so that the test split is looked at once.

Stratified: of every class about the same share. Grouped: clips cut from one recording, or showing one person, lie on
one side, or the choice would go by videos that are as good as trained on.
"""

from __future__ import annotations

from collections import Counter

import numpy as np
from numpy.typing import NDArray

from ascnet.errors import UserError
from dali_pipes import Corpus

HELD_OUT = "held out"
"""Split of the videos for validation, and of those without a label, in the corpus that `with_holdout` makes."""


def hold_out(labels: NDArray[np.int64], groups: NDArray[np.int64], share: float, seed: int = 0) -> NDArray[np.bool_]:
    """Which of some videos are held out, (N,).

    Groups are visited in a random order; one is held out where that brings the classes' numbers nearer to `share` of
    each, and never the last one of a class. A class with two groups or more has at least one video held out, as long
    as that leaves every class something to train on.

    Args:
        labels: (N,) class numbers.
        groups: (N,) group numbers.
        share: Of each class, between 0 and 1.
        seed: Of the order.

    Raises:
        UserError: If nothing can be held out, because every class is of one group.
    """
    chosen = np.zeros(len(labels), np.bool_)
    if share == 0:
        return chosen
    members: dict[int, list[int]] = {}
    for place, group in enumerate(groups.tolist()):
        members.setdefault(group, []).append(place)
    counts = {group: Counter(labels[places].tolist()) for group, places in members.items()}
    total = Counter(labels.tolist())
    held: Counter[int] = Counter()
    order = [list(members)[place] for place in np.random.default_rng(seed).permutation(len(members))]
    taken: set[int] = set()

    def fits(group: int) -> bool:
        return all(held[label] + count < total[label] for label, count in counts[group].items())

    def take(group: int) -> None:
        taken.add(group)
        held.update(counts[group])
        chosen[members[group]] = True

    for group in order:
        change = sum(
            abs(held[label] + count - share * total[label]) - abs(held[label] - share * total[label])
            for label, count in counts[group].items()
        )
        if change < 0 and fits(group):
            take(group)
    for label in sorted(total):
        if not held[label]:
            spare = [group for group in order if group not in taken and counts[group][label] and fits(group)]
            if spare:
                take(min(spare, key=lambda group: len(members[group])))
    if not taken:
        raise UserError(
            f"validation.share is {share:g}, but no class of the {len(total)} has two groups to hold one out of; "
            "set validation.share=0, then the model of the last epoch is tested"
        )
    return chosen


def with_holdout(corpus: Corpus, split: str, share: float, seed: int = 0) -> tuple[Corpus, NDArray[np.int64]]:
    """The corpus with a part of one split held out, under the same row numbers.

    Args:
        corpus: The videos.
        split: The split to take from.
        share: Of each class, 0 to 1; 0 takes the videos without a label alone.
        seed: Of the choice.

    Returns:
        The corpus in which what is held out, and every video without a label, is no longer of that split, and the row
        numbers of what is held out.

    Raises:
        DataError: If there is no such split.
        UserError: If none of its videos has a label, or nothing can be held out.
    """
    import pyarrow as pa

    rows = np.asarray(corpus.select(split), np.int64)
    labelled = rows[corpus.labels[rows] >= 0]
    if not len(labelled):
        raise UserError(f"no video of split {split!r} has a label; the corpus needs labels to train a classifier on")
    chosen = labelled[hold_out(corpus.labels[labelled], corpus.groups[labelled], share, seed)]
    names = corpus.column("split").astype(object)
    names[np.setdiff1d(rows, np.setdiff1d(labelled, chosen))] = HELD_OUT
    table = corpus.table
    place = table.column_names.index("split")
    return Corpus(table.set_column(place, "split", pa.array(names, pa.string())), corpus.path), chosen
