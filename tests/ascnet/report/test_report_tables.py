"""`ascnet report`: the published tables, one's own rows beside them, and which rows may never stand together."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from statistics import stdev
from typing import Any

import pytest
from report_runs import UCF_LISTS, recognition, write_json, write_retrieval

from ascnet.cli import main
from ascnet.errors import UserError
from ascnet.report.render import FORMATS, as_csv, as_json, latex, markdown
from ascnet.report.results import find
from ascnet.report.rows import tables
from ascnet.report.table import Table

# As the two tables were published; "" where they have no number.
RECOGNITION = """
CBT|S3D-G|79.5|44.6
SpeedNet|S3D-G|81.1|48.8
Pace|S3D-G|87.1|52.6
CoCLR-RGB|S3D-G|87.9|54.6
RSPNet|S3D-G|89.9|59.6
ASCNet|3D R18|80.5|52.3
ASCNet|S3D-G|90.8|60.5
supervised, Kinetics-400|3D R18|84.4|56.4
supervised, ImageNet|S3D-G|86.6|57.7
supervised, Kinetics-400|S3D-G|96.8|75.9
"""
RETRIEVAL = """
OPN|CaffeNet|19.9||34.0||51.6
Buchler et al.|CaffeNet|25.7||42.2||59.5
ClipOrder|3D R18|14.1||40.0||66.5
SpeedNet|S3D-G|13.0||37.5||65.0
VCP|3D R18|18.6||42.5||68.1
VCP|R(2+1)D|19.9||42.0||64.4
Pace|3D R18|23.8||46.4||69.8
Pace|C3D|31.9||59.2||80.2
RSPNet|C3D|36.0|56.7|66.5|76.3|87.7
RSPNet|3D R18|41.1|59.4|68.4|77.8|88.7
ASCNet|3D R18|58.9||82.2||93.4
"""


def by_key(paths: list[Any]) -> dict[str, Table]:
    return {table.key: table for table in tables(find(paths))}


def own(table: Table) -> list[Any]:
    return [row for row in table.rows if not row.published]


def test_without_runs_the_published_rows_stand_alone_with_blanks_where_the_paper_has_none(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["report"]) == 0
    lines = capsys.readouterr().out.splitlines()
    rows = ["|".join(cell.strip() for cell in line.strip("|").split("|")) for line in lines if line.startswith("| ")]
    heads = ["method|encoder|UCF101|HMDB51", "method|encoder|R@1|R@5|R@10|R@20|R@50"]
    assert rows == [heads[0], *RECOGNITION.split("\n")[1:-1], heads[1], *RETRIEVAL.split("\n")[1:-1]]


def test_scores_of_another_corpus_get_a_table_of_their_own(tmp_path: Path) -> None:
    write_retrieval(tmp_path / "weizmann", {"R@1": 53.3, "R@50": 100.0})
    write_json(tmp_path / "weizmann" / "finetune" / "recognition.json", recognition(["bend", "jump"], 60.0))
    found = by_key([tmp_path])
    assert not own(found["recognition"]) and not own(found["retrieval"])
    assert [row.method for row in own(found["retrieval-small"])] == ["ours: chance", "ours: pretrained, weizmann"]
    assert own(found["retrieval-small"])[1].cells["R@1"].mean == 53.3
    assert own(found["finetune-own"])[0].cells["top-1"].mean == 60.0


def test_a_part_of_ucf101_is_not_ucf101(tmp_path: Path) -> None:
    short = {**UCF_LISTS, "listed": {"train": 100, "test": 30}}
    write_retrieval(tmp_path / "part", {"R@1": 90.0}, listing=short)
    assert not own(by_key([tmp_path])["retrieval"])


def test_another_split_has_its_own_table_and_missing_videos_stand_beside_the_name(tmp_path: Path) -> None:
    write_retrieval(tmp_path / "two", {"R@1": 40.0}, listing={**UCF_LISTS, "fold": 2})
    write_retrieval(tmp_path / "gaps", {"R@1": 41.0}, listing={**UCF_LISTS, "missing": {"test": 7}})
    found = by_key([tmp_path])
    assert [row.method for row in own(found["retrieval"])][1:] == ["ours: pretrained (7 videos missing), gaps"]
    assert own(found["retrieval-ucf101-split-2"])[-1].cells["R@1"].mean == 40.0


def test_scores_on_the_official_split_stand_below_the_published_ones(tmp_path: Path) -> None:
    write_retrieval(tmp_path / "k400", {"R@1": 50.0, "R@5": 60.0}, listing=UCF_LISTS)
    row = own(by_key([tmp_path])["retrieval"])[-1]
    assert (row.method, row.encoder) == ("ours: pretrained, k400", "3D R18")
    assert {name: cell.mean for name, cell in row.cells.items()} == {"R@1": 50.0, "R@5": 60.0}
    assert row.cards[0]["commit"] == "c0ffee" and row.cards[0]["command"].startswith("ascnet retrieve")
    assert row.cards[0]["seeds"] == [0] and "3783 queries" in row.cards[0]["split"]


def test_runs_that_differ_in_the_seed_alone_are_averaged(tmp_path: Path) -> None:
    scores = [50.0, 53.0, 58.0]
    for seed, score in enumerate(scores):
        write_retrieval(tmp_path / f"w-seed{seed}", {"R@1": score}, seed=seed)
    write_retrieval(tmp_path / "w-other", {"R@1": 10.0}, seed=3, gamma=0.9)
    rows = [row for row in own(by_key([tmp_path])["retrieval-small"]) if "pretrained" in row.method]
    cells = {row.method: row.cells["R@1"] for row in rows}
    mean = cells["ours: pretrained, w"]
    assert (mean.runs, mean.mean, mean.std) == (3, pytest.approx(161 / 3), pytest.approx(stdev(scores)))
    assert cells["ours: pretrained, w-other"].std is None and cells["ours: pretrained, w-other"].mean == 10.0
    card = next(row.cards[0] for row in rows if row.method == "ours: pretrained, w")
    assert card["seeds"] == [0, 1, 2] and card["runs"] == 3


def test_a_run_given_twice_counts_once(tmp_path: Path) -> None:
    write_retrieval(tmp_path / "a", {"R@1": 50.0})
    found = by_key([tmp_path / "a", tmp_path, tmp_path / "a" / "retrieve" / "retrieval.json"])
    assert {row.cells["R@1"].runs for row in own(found["retrieval-small"])} == {1}


def test_official_splits_are_averaged_from_the_runs_themselves(tmp_path: Path) -> None:
    for fold, score in ((1, 80.0), (2, 84.0)):
        content = recognition(["a", "b"], score, fold=fold)
        content["protocol"] |= {"corpus": f"own-{fold}.parquet", "corpus_fingerprint": str(fold)}
        write_json(tmp_path / f"fold{fold}" / "recognition.json", content)
    runs = {str(fold): f"fold{fold}/recognition.json" for fold in (1, 2)}
    write_json(tmp_path / "recognition.json", {"folds": [1, 2], "runs": runs, "protocol": {}})
    (row,) = own(by_key([tmp_path])["finetune-own"])
    assert (row.cells["top-1"].mean, row.cells["top-1"].runs) == (82.0, 2)


def test_one_recipe_on_both_data_sets_is_one_row_and_linear_ones_stand_apart(tmp_path: Path) -> None:
    ucf = ["ApplyEyeMakeup", "Archery", "BaseballPitch", "HorseRiding", "YoYo", *(f"c{n}" for n in range(96))]
    hmdb = ["brush_hair", "cartwheel", "catch", "ride_horse", "wave", *(f"c{n}" for n in range(46))]
    write_json(tmp_path / "u" / "recognition.json", recognition(ucf, 70.0))
    write_json(tmp_path / "h" / "recognition.json", recognition(hmdb, 40.0, lr=0.01))
    write_json(tmp_path / "l" / "recognition.json", recognition(ucf, 30.0, frozen=True))
    found = by_key([tmp_path])
    (row,) = own(found["recognition"])
    assert {name: cell.mean for name, cell in row.cells.items()} == {"UCF101": 70.0, "HMDB51": 40.0}
    assert row.encoder == "S3D-G" and len(row.cards) == 2
    (linear,) = found["linear"].rows
    assert set(linear.cells) == {"UCF101"}


def test_csv_and_json_say_what_markdown_says(tmp_path: Path) -> None:
    for seed, score in enumerate((50.0, 54.0)):
        write_retrieval(tmp_path / f"k-{seed}", {"R@1": score}, seed=seed, listing=UCF_LISTS)
    made = tables(find([tmp_path]))
    lines = list(csv.DictReader(io.StringIO(as_csv(made))))
    mine = [line for line in lines if line["published"] == "false" and line["method"] == "ours: pretrained, k"]
    assert [(line["measure"], float(line["mean"]), line["runs"]) for line in mine] == [("R@1", 52.0, "2")]
    assert mine[0]["seeds"] == "0, 1" and mine[0]["command"] == "ascnet retrieve --checkpoint runs/a_b"
    assert sum(line["published"] == "true" for line in lines) == 20 + 3 * 9 + 5 * 2
    content = json.loads(as_json(made))
    rows = next(table for table in content["tables"] if table["key"] == "retrieval")["rows"]
    assert rows[-1]["cells"]["R@1"]["mean"] == 52.0 and rows[-1]["cards"][0]["commit"] == "c0ffee"
    assert "52.0 ± 2.8" in markdown(made)


def test_names_are_not_markup(tmp_path: Path) -> None:
    run = write_retrieval(tmp_path / "a_b & 50%|x", {"R@1": 50.0}).parent.parent
    made = tables(find([run]))
    text = latex(made)
    assert r"a\_b \& 50\%|x" in text and r"runs/a\_b" in text and "± " not in text
    line = next(line for line in markdown(made).splitlines() if "ours: pretrained" in line and line.startswith("|"))
    assert r"50%\|x" in line


@pytest.mark.parametrize("form", sorted(FORMATS))
def test_output_is_written_whole_and_told(form: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "new" / "tables.txt"
    assert main(["report", "--format", form, "-o", str(out)]) == 0
    assert capsys.readouterr().out == f"wrote {out}\n"
    assert "90.8" in out.read_text() and [path.name for path in out.parent.iterdir()] == ["tables.txt"]


@pytest.mark.parametrize(
    ("content", "told"),
    [(None, "no scores in it"), ("{", "not a JSON file"), ("[]", "not a file of scores"), ("{}", "neither scores of")],
)
def test_a_folder_without_scores_and_a_damaged_file_are_named(content: str | None, told: str, tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    if content is not None:
        (run / "retrieval.json").write_text(content)
    with pytest.raises(UserError, match=told) as caught:
        find([run])
    assert str(run) in str(caught.value)


def test_scores_with_a_part_missing_are_a_line_and_no_traceback(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "recognition.json").write_text('{"last": {"top1": 3}}')
    assert main(["report", str(tmp_path)]) == 2
    assert "scores that cannot be read" in capsys.readouterr().err
    assert main(["report", str(tmp_path / "none")]) == 2
    assert "no such file or folder" in capsys.readouterr().err
