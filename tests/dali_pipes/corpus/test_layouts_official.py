"""HMDB-51, Kinetics and CSV tables in the form in which they are distributed, with small files of real codecs."""

from __future__ import annotations

import shutil
from pathlib import Path, PurePath

import pytest
from make_videos import make_video

from dali_pipes import Corpus
from dali_pipes.cli import main
from dali_pipes.corpus.layouts import Place, place
from dali_pipes.corpus.listing import Listing
from dali_pipes.errors import DataError


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One small file of each kind: copies stand for the files of a data set."""
    root = tmp_path_factory.mktemp("clips")
    return {
        "avi": make_video(root / "a.avi", codec="mpeg4", frames=12, size=(48, 32), bframes=2),
        "mp4": make_video(root / "a.mp4", codec="h264", frames=12, size=(48, 32)),
    }


def put(clip: dict[str, Path], root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(clip[name.rpartition(".")[2]], root / name)
    return root


def said(corpus: Corpus) -> dict[str, tuple[str, str, str]]:
    return {PurePath(v.uri).name: (v.label, v.split, v.group) for v in corpus}


def test_ucf101_has_three_splits_over_the_same_videos(clip: dict[str, Path], tmp_path: Path) -> None:
    names = [
        f"{c}/v_{c.replace('stand', 'Stand')}_g0{g}_c01.avi" for c in ("HandstandPushups", "YoYo") for g in (1, 2, 3)
    ]
    videos = put(clip, tmp_path / "UCF-101", *names[:-1], "YoYo/v_YoYo_g01_c02.avi")
    lists = tmp_path / "ucfTrainTestlist"
    lists.mkdir()
    (lists / "classInd.txt").write_text("37 HandstandPushups \r\n101 YoYo \r\n")
    for fold in (1, 2, 3):
        test = [name for name in names if f"_g0{fold}_" in name]
        (lists / f"testlist0{fold}.txt").write_text("".join(f"{name}\r\n" for name in test))
        train = [f"{name} {37 if name[0] == 'H' else 101}\r\n" for name in names if name not in test]
        (lists / f"trainlist0{fold}.txt").write_text("".join(train))
    for fold, shares in ((1, ("1 of 4 train", "none of 2 test")), (3, ("none of 4 train", "1 of 2 test"))):
        corpus = Corpus.build(videos, layout="ucf101", splits=lists, fold=fold, workers=1, progress=False)
        assert corpus.usable.all() and corpus.classes == ["HandstandPushups", "YoYo"]
        assert {v.group for v in corpus if v.split == "test"} <= {f"{c}_g0{fold}" for c in corpus.classes}
        assert corpus.listing is not None and corpus.listing.fold == fold and corpus.listing.surplus == 1
        assert tuple(corpus.listing.share(split) for split in ("train", "test")) == tuple(
            f"{share} videos missing" for share in shares
        )


HMDB_LISTS = {
    "wave_test_split1.txt": "TrumanShow_wave_f_nm_np1_fr_med_26.avi 1 \n#20_Rhythm_wave_u_nm_np1_fr_goo_1.avi 2 \n"
    "RATRACE_wave_f_nm_np1_fr_goo_37.avi 0 \n",
    "brush_hair_test_split1.txt": "Brushing_Her_Hair_(2)_brush_hair_h_nm_np1_ba_goo_0.avi 1 \r\n"
    "gone_brush_hair_u_cm_np2_le_goo_5.avi 1 \r\n",
    "wave_test_split2.txt": "TrumanShow_wave_f_nm_np1_fr_med_26.avi 2 \n",
    "brush_hair_test_split2.txt": "Brushing_Her_Hair_(2)_brush_hair_h_nm_np1_ba_goo_0.avi 2 \n",
}


@pytest.fixture
def hmdb(clip: dict[str, Path], tmp_path: Path) -> tuple[Path, Path]:
    videos = put(
        clip,
        tmp_path / "hmdb51_org",
        "wave/TrumanShow_wave_f_nm_np1_fr_med_26.avi",
        "wave/#20_Rhythm_wave_u_nm_np1_fr_goo_1.avi",
        "wave/RATRACE_wave_f_nm_np1_fr_goo_37.avi",
        "brush_hair/Brushing_Her_Hair_(2)_brush_hair_h_nm_np1_ba_goo_0.avi",
        "brush_hair/another_brush_hair_u_cm_np2_le_goo_5.avi",
    )
    splits = tmp_path / "testTrainMulti_7030_splits"
    splits.mkdir()
    for name, text in HMDB_LISTS.items():
        (splits / name).write_text(text)
    return videos, splits


def test_hmdb51_lists_say_train_test_and_unused(hmdb: tuple[Path, Path]) -> None:
    warnings: list[str] = []
    corpus = Corpus.build(hmdb[0], layout="hmdb51", splits=hmdb[1], warnings=warnings, workers=1, progress=False)
    assert corpus.usable.all()
    assert said(corpus) == {
        "TrumanShow_wave_f_nm_np1_fr_med_26.avi": ("wave", "train", "TrumanShow"),
        "#20_Rhythm_wave_u_nm_np1_fr_goo_1.avi": ("wave", "test", "#20_Rhythm"),
        "RATRACE_wave_f_nm_np1_fr_goo_37.avi": ("wave", "", "RATRACE"),
        "Brushing_Her_Hair_(2)_brush_hair_h_nm_np1_ba_goo_0.avi": ("brush_hair", "train", "Brushing_Her_Hair_(2)"),
        "another_brush_hair_u_cm_np2_le_goo_5.avi": ("brush_hair", "", "another"),
    }
    assert warnings == [
        "1 of 5 listed videos are not in the folder: brush_hair/gone_brush_hair_u_cm_np2_le_goo_5.avi (train 1)",
        "1 videos in the folder are in no list: brush_hair/another_brush_hair_u_cm_np2_le_goo_5.avi",
    ]
    assert corpus.listing is not None
    assert corpus.listing.listed == {"": 1, "test": 1, "train": 3}
    assert corpus.listing.share("train") == "1 of 3 train videos missing"
    assert corpus.listing.share("test") == "none of 1 test videos missing"


def test_hmdb51_has_other_splits_in_other_folds_and_flat_transcoded_copies_are_found(hmdb: tuple[Path, Path]) -> None:
    flat = [
        PurePath("trumanshow_wave_f_nm_np1_fr_med_26.mp4"),
        PurePath("x/Brushing_Her_Hair_(2)_brush_hair_h_nm_np1_ba_goo_0.mkv"),
    ]
    found = place(flat, "hmdb51", splits=hmdb[1].parent, fold=2)
    assert [(p.label, p.split) for p in found.places] == [("wave", "test"), ("brush_hair", "test")]
    assert found.warnings == []


def test_hmdb51_mistakes_are_named(hmdb: tuple[Path, Path], tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no CLASS_test_split4\.txt for fold 4; folds there: 1, 2"):
        place([], "hmdb51", splits=hmdb[1], fold=4)
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"no file CLASS_test_splitN\.txt there"):
        place([], "hmdb51", splits=tmp_path / "empty")
    (hmdb[1] / "wave_test_split1.txt").write_text("a.avi 1\nb.avi 3\n")
    with pytest.raises(DataError, match=r"wave_test_split1\.txt: line 2: 'b\.avi 3': expected a file name and 0, 1"):
        place([], "hmdb51", splits=hmdb[1])


TRAIN = """label,youtube_id,time_start,time_end,split,is_cc
air drumming,--_S-IDSoQI,10,20,train,0
"massaging person's head",-3B32lodo2M,59,69,train,0
air drumming,-3b32lodo2m,59,69,train,0
air drumming,onlyidXXXXX,5,15,train,0
air drumming,goneXXXXXXX,1,11,train,0
"""
VALIDATE = "label,youtube_id,time_start,time_end,split\nabseiling,0wR5jVB-WPk,417.0,427.0,validate\n"
TEST = "youtube_id,time_start,time_end\nZZZ_000001_,0,10\n"


@pytest.fixture
def kinetics(clip: dict[str, Path], tmp_path: Path) -> tuple[Path, Path]:
    videos = put(
        clip,
        tmp_path / "k400",
        "train/air_drumming/--_S-IDSoQI_000010_000020.mp4",
        "train/massaging_person's_head/-3B32lodo2M_000059_000069.mp4",
        "train/-3b32lodo2m_000059_000069.mp4",
        "train/air_drumming/onlyidXXXXX.mp4",
        "val/abseiling/0wR5jVB-WPk_000417_000427.mp4",
        "test/ZZZ_000001__000000_000010.mp4",
        "replacement/air_drumming/strangerXXX_000001_000011.mp4",
    )
    tables = tmp_path / "annotations"
    tables.mkdir()
    (tables / "train.csv").write_text(TRAIN)
    (tables / "validate.csv").write_text(VALIDATE)
    (tables / "kinetics-400_test.csv").write_text(TEST)
    (tables / "kinetics_400_labels.csv").write_text("id,name\n0,abseiling\n")
    return videos, tables


def test_kinetics_tables_say_label_and_split_of_files_named_by_video_and_time(kinetics: tuple[Path, Path]) -> None:
    warnings: list[str] = []
    corpus = Corpus.build(
        kinetics[0], layout="kinetics", splits=kinetics[1], warnings=warnings, workers=1, progress=False
    )
    assert corpus.usable.all()
    assert said(corpus) == {
        "--_S-IDSoQI_000010_000020.mp4": ("air drumming", "train", "--_S-IDSoQI"),
        # The names of two videos differ in nothing but capitals.
        "-3B32lodo2M_000059_000069.mp4": ("massaging person's head", "train", "-3B32lodo2M"),
        "-3b32lodo2m_000059_000069.mp4": ("air drumming", "train", "-3b32lodo2m"),
        "onlyidXXXXX.mp4": ("air drumming", "train", "onlyidXXXXX"),
        "0wR5jVB-WPk_000417_000427.mp4": ("abseiling", "val", "0wR5jVB-WPk"),
        "ZZZ_000001__000000_000010.mp4": ("", "test", "ZZZ_000001_"),
        "strangerXXX_000001_000011.mp4": ("air drumming", "", "strangerXXX"),
    }
    assert warnings == [
        "1 of 7 listed videos are not in the folder: goneXXXXXXX_000001_000011 (train 1)",
        "1 videos in the folder are in no list: replacement/air_drumming/strangerXXX_000001_000011.mp4",
    ]
    assert corpus.listing is not None and corpus.listing.share("train") == "1 of 5 train videos missing"


def test_kinetics_without_tables_goes_by_folders(kinetics: tuple[Path, Path]) -> None:
    names = [PurePath("val/air_drumming/--_S-IDSoQI_000010_000020.mp4"), PurePath("flat_000010_000020.mp4")]
    found = place(names, "kinetics")
    assert found.places == [Place("air_drumming", "val", "--_S-IDSoQI"), Place("", "", "flat")]
    assert found.listing is None


def test_a_video_with_clips_in_two_splits_is_told_apart_by_its_folder_and_a_second_copy_is_surplus(
    tmp_path: Path,
) -> None:
    table = tmp_path / "k.csv"
    table.write_text("label,youtube_id,time_start,time_end,split\na,X,0,10,train\nb,X,20,30,val\nc,Y,0,10,val\n")
    names = ["train/X.mp4", "val/X.mp4", "X.mp4", "a/Y_000000_000010.mp4", "b/Y.mp4"]
    found = place([PurePath(name) for name in names], "kinetics", splits=table)
    assert [(p.label, p.split) for p in found.places] == [
        ("a", "train"),
        ("b", "val"),
        ("", ""),
        ("c", "val"),
        ("b", ""),
    ]
    assert found.listing is not None and found.listing.surplus == 2 and not found.listing.missing


def test_kinetics_mistakes_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such file or folder"):
        place([], "kinetics", splits=tmp_path / "none")
    with pytest.raises(DataError, match="no table of Kinetics there"):
        place([], "kinetics", splits=tmp_path)
    (tmp_path / "train.csv").write_text("youtube_id,time_start,time_end\nX,zero,10\n")
    with pytest.raises(DataError, match=r"train\.csv: line 2: 'zero' and '10': expected the first"):
        place([], "kinetics", splits=tmp_path)
    with pytest.raises(DataError, match="one official split only"):
        place([], "kinetics", splits=tmp_path, fold=2)


def test_a_csv_table_says_label_split_and_group(clip: dict[str, Path], tmp_path: Path) -> None:
    videos = put(clip, tmp_path / "v", "one/a.mp4", "one/b.mp4", "two/a.mp4", "two/c.avi")
    table = tmp_path / "list.csv"
    table.write_text(
        "Subset;Video;Person\ntraining;one/a.mp4;daria\ntest;two/a;eli\nvalidation;b.avi;\nother;none.avi;x\n"
    )
    corpus = Corpus.build(videos, layout="csv", splits=table, workers=1, progress=False)
    assert [(v.label, v.split, v.group) for v in corpus] == [
        ("one", "train", "daria"), ("one", "val", ""), ("two", "test", "eli"), ("two", "", ""),
    ]  # fmt: skip
    assert corpus.listing == Listing(
        "csv", 1, {"other": 1, "test": 1, "train": 1, "val": 1}, {"other": 1}, 1, ("none.avi",), ("two/c.avi",)
    )


def test_a_csv_table_can_be_the_root_itself(clip: dict[str, Path], tmp_path: Path) -> None:
    put(clip, tmp_path, "deep/a.mp4", "b.avi")
    table = tmp_path / "list.csv"
    table.write_text(
        f'path,label,split\ndeep/a.mp4,"run, fast",train\n{tmp_path / "b.avi"},walk,test\ngone.mp4,walk,test\n'
    )
    warnings: list[str] = []
    corpus = Corpus.build(table, layout="csv", warnings=warnings, workers=1, progress=False)
    assert said(corpus) == {"a.mp4": ("run, fast", "train", ""), "b.avi": ("walk", "test", "")}
    assert warnings == ["1 of 3 listed videos are not in the folder: gone.mp4 (test 1)"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "the table is empty"),
        ("label,split\na,b\n", "no column of paths in its header"),
        ("path,label\na.mp4\n", "line 2: 1 cells, the header has 2"),
        ("path\na.mp4\na.mp4\n", r"line 3: a\.mp4 is listed twice"),
        ("path,label\n,x\n", "line 2: its path is empty"),
        ("path,label\n", "a header and no rows"),
    ],
)
def test_mistakes_in_a_csv_table_are_named(tmp_path: Path, text: str, message: str) -> None:
    table = tmp_path / "list.csv"
    table.write_text(text)
    with pytest.raises(DataError, match=message):
        place([], "csv", splits=table)


def test_a_csv_layout_without_a_table_is_a_mistake(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"--splits FILE\.csv"):
        place([], "csv")
    with pytest.raises(DataError, match="no such file"):
        place([], "csv", splits=tmp_path / "none.csv")


def test_the_counts_travel_with_the_corpus_file(
    hmdb: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "c.parquet"
    command = ["index", str(hmdb[0]), "-o", str(out), "--layout", "hmdb51", "--splits", str(hmdb[1]), "--workers", "1"]
    assert main(command) == 0
    shown = capsys.readouterr()
    assert "lists    hmdb51, split 1: none of 1 test videos missing, 1 of 3 train videos missing" in shown.out
    assert "1 in no list" in shown.out and "warning: 1 of 5 listed videos" in shown.err
    opened = Corpus.open(out)
    assert opened.listing is not None and opened.listing.missing == {"train": 1}
    # And through what is made of a corpus: a copy sent to another process, another file.
    import pickle

    assert pickle.loads(pickle.dumps(opened)).listing == opened.listing
    opened.save(tmp_path / "copy.parquet")
    assert Corpus.open(tmp_path / "copy.parquet").listing == opened.listing
    assert Corpus.open(tmp_path / "copy.parquet").fingerprint == opened.fingerprint


def test_a_corpus_without_lists_has_none_and_unknown_metadata_is_passed_over(
    clip: dict[str, Path], tmp_path: Path
) -> None:
    put(clip, tmp_path, "a/a.mp4")
    corpus = Corpus.build(tmp_path, output=tmp_path / "c.parquet", workers=1, progress=False)
    assert corpus.listing is None and Corpus.open(tmp_path / "c.parquet").listing is None
    assert (
        Listing.loads(b"not json") is None and Listing.loads(b'{"layout": 3}') is None and Listing.loads(b"[1]") is None
    )


def test_the_lists_are_read_with_a_tar_shard(hmdb: tuple[Path, Path], tmp_path: Path) -> None:
    import tarfile

    shard = tmp_path / "hmdb.tar"
    with tarfile.open(shard, "w") as tar:
        for path in sorted(hmdb[0].rglob("*.avi")):
            tar.add(path, f"hmdb51_org/{path.relative_to(hmdb[0])}")
    corpus = Corpus.build(shard, layout="hmdb51", splits=hmdb[1], workers=1, progress=False)
    assert corpus.usable.all() and corpus.listing is not None
    assert sorted(v.split for v in corpus) == ["", "", "test", "train", "train"]
    assert corpus.listing.missing == {"train": 1} and corpus.listing.surplus == 1


def test_real_files_are_read_as_they_are(videos: Path) -> None:
    for layout in ("ucf101", "hmdb51"):
        corpus = Corpus.build(videos / layout, layout=layout, workers=2, progress=False)
        assert corpus.usable.all() and all(v.label and v.group for v in corpus)
        assert {v.label for v in corpus} == {path.name for path in (videos / layout).iterdir()}
    assert "TrumanShow" in {v.group for v in corpus}


def test_real_files_of_ucf101_are_found_in_its_lists(videos: Path, tmp_path: Path) -> None:
    lists = tmp_path / "ucfTrainTestlist"
    lists.mkdir()
    (lists / "classInd.txt").write_text("1 ApplyEyeMakeup\n7 BaseballPitch\n84 SoccerJuggling\n")
    (lists / "trainlist01.txt").write_text(
        "ApplyEyeMakeup/v_ApplyEyeMakeup_g08_c01.avi 1\nBaseballPitch/v_BaseballPitch_g08_c01.avi 7\n"
        "SoccerJuggling/v_SoccerJuggling_g23_c01.avi 84\nSoccerJuggling/v_SoccerJuggling_g24_c01.avi 84\n"
    )
    makeup = [f"ApplyEyeMakeup/v_ApplyEyeMakeup_g01_c0{i}.avi\n" for i in range(1, 7)]
    (lists / "testlist01.txt").write_text("".join([*makeup, "BaseballPitch/v_BaseballPitch_g01_c01.avi\n"]))
    corpus = Corpus.build(videos / "ucf101", layout="ucf101", splits=tmp_path, workers=2, progress=False)
    assert sorted(v.split for v in corpus) == [""] + ["test"] * 6 + ["train"] * 2
    assert corpus.listing is not None
    assert corpus.listing.share("train") == "2 of 4 train videos missing"
    assert corpus.listing.share("test") == "1 of 7 test videos missing"
    assert corpus.listing.surplus_names == ("ApplyEyeMakeup/v_ApplyEyeMakeup_g03_c05.avi",)


def test_real_files_of_kinetics_are_found_by_their_ids(videos: Path, tmp_path: Path) -> None:
    table = tmp_path / "val.csv"
    table.write_text(
        "label,youtube_id,time_start,time_end\nplaying trumpet,R6llTwEh07w,0,10\nsinging,SOX5yA1l24A,20,30\n"
    )
    corpus = Corpus.build(videos / "kinetics400", layout="kinetics", splits=table, workers=2, progress=False)
    said = {PurePath(v.uri).name: (v.label, v.split, v.group) for v in corpus if v.split}
    assert said == {
        "R6llTwEh07w.mp4": ("playing trumpet", "val", "R6llTwEh07w"),
        "SOX5yA1l24A.mp4": ("singing", "val", "SOX5yA1l24A"),
    }
    assert corpus.listing is not None and corpus.listing.surplus == len(corpus) - 2


def test_lists_and_tables_that_are_not_text_are_named(tmp_path: Path) -> None:
    (tmp_path / "wave_test_split1.txt").write_bytes(b"\xff\xfe\x00w")
    with pytest.raises(DataError, match=r"wave_test_split1\.txt: not UTF-8"):
        place([], "hmdb51", splits=tmp_path)
    (tmp_path / "x.csv").write_bytes(b"\xff\xfe\x00w")
    with pytest.raises(DataError, match=r"x\.csv: not UTF-8"):
        place([], "kinetics", splits=tmp_path / "x.csv")
