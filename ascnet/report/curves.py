"""Curves of a run, from the rows of its steps."""

from __future__ import annotations

from collections.abc import Sequence

from ascnet.report.charts import Series, line_chart
from ascnet.report.source import Rows, Source

CHARTS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("Loss", ("loss", "loss_acp", "loss_scp")),
    ("Spread of the features", ("feature_std", "motion_std")),
    ("Learning rate", ("lr",)),
    ("Gradient norm", ("grad_norm",)),
    ("Momentum of the target", ("ema_momentum",)),
    ("Retrieved positives, share", ("scp_share", "positive_same_label")),
    ("Clips per second", ("clips_per_second",)),
    ("Share of time waiting for clips", ("wait_share",)),
)
MONITORED = ("knn/top1", "knn/top5", "knn/majority")
PLANNED = ("lr", "ema_momentum")
WORDS = {
    "loss_acp": "appearance (ACP)",
    "loss_scp": "speed (SCP)",
    "lr": "learning rate",
    "scp_share": "with a positive",
    "positive_same_label": "of the same class",
    "knn/top1": "top-1",
    "knn/top5": "top-5",
    "knn/majority": "by majority",
}


def html(source: Source) -> str:
    """The section's content; "" where nothing was recorded."""
    charts = [
        line_chart(title, series_of(source.steps, names), "step", rough=names[0] not in PLANNED)
        for title, names in CHARTS
    ]
    # Of `eval.every`.
    watched = series_of(source.steps, MONITORED)
    charts.append(line_chart("Classes of nearest neighbours while training (%)", watched, "step", rough=False))
    history = (source.recognition or {}).get("history") or []
    if history:
        xs, ys = [row["epoch"] for row in history], [row["validation_top1"] for row in history]
        charts.append(line_chart("Validation top-1 (%)", [("top-1", xs, ys)], "epoch", rough=False))
    return f'<div class="charts">{"".join(charts)}</div>' if any(charts) else ""


def series_of(rows: Rows, names: Sequence[str]) -> list[Series]:
    """Those of the named values that the rows have, over their steps."""
    found = []
    for name in names:
        pairs = [(row["step"], row[name]) for row in rows if isinstance(row.get(name), (int, float))]
        if pairs:
            found.append((WORDS.get(name, name.replace("_", " ")), *map(list, zip(*pairs, strict=True))))
    return found  # type: ignore[return-value]
