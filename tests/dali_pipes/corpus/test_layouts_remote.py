"""Official lists and CSV tables beside videos on a server and in a tar shard."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from make_videos import make_video
from storage_servers import HttpServer, http_server, make_tar

from dali_pipes import Corpus
from dali_pipes.corpus.storage import StorageOptions, configure_storage

pytest.importorskip("aiohttp", reason="needs the extra dali-pipes[http]")


@pytest.fixture
def server(tmp_path: Path) -> Iterator[HttpServer]:
    folder = tmp_path / "served"
    for name in ("wave/#20 Rhythm_wave_u_nm_np1_fr_goo_1.avi", "run/b_run_f_cm_np1_le_med_0.avi"):
        make_video(folder / "hmdb51_org" / name, codec="mjpeg", frames=8, size=(48, 32))
    with http_server(folder) as state:
        configure_storage(StorageOptions(timeout=5.0))
        try:
            yield state
        finally:
            configure_storage(None)


def test_lists_of_hmdb51_are_read_with_videos_of_a_server(server: HttpServer, tmp_path: Path) -> None:
    (tmp_path / "wave_test_split1.txt").write_text("#20 Rhythm_wave_u_nm_np1_fr_goo_1.avi 2 \n")
    (tmp_path / "run_test_split1.txt").write_text("b_run_f_cm_np1_le_med_0.avi 1 \ngone.avi 1 \n")
    corpus = Corpus.build(f"{server.url}hmdb51_org", layout="hmdb51", splits=tmp_path, workers=1, progress=False)
    assert corpus.usable.all()
    assert {(v.label, v.split, v.group) for v in corpus} == {("wave", "test", "#20 Rhythm"), ("run", "train", "b")}
    assert corpus.listing is not None and corpus.listing.share("train") == "1 of 2 train videos missing"


def test_a_table_may_list_addresses_files_and_members_of_shards(server: HttpServer, tmp_path: Path) -> None:
    video = make_video(tmp_path / "here.mkv", codec="mjpeg", frames=8, size=(48, 32))
    make_tar(tmp_path / "shard.tar", {"in/side.mkv": video})
    table = tmp_path / "all.csv"
    table.write_text(
        "uri,label,split,group\n"
        f"{server.url}hmdb51_org/run/b_run_f_cm_np1_le_med_0.avi,run,test,b\n"
        "here.mkv,walk,train,h\n"
        "tar://in/side.mkv::shard.tar,walk,val,\n"
        "lost.mkv,walk,val,\n"
    )
    corpus = Corpus.build(table, layout="csv", workers=1, progress=False)
    assert corpus.usable.all()
    said = {(v.uri.rpartition("/")[2], v.label, v.split, v.group) for v in corpus}
    assert said == {
        ("b_run_f_cm_np1_le_med_0.avi", "run", "test", "b"),
        ("here.mkv", "walk", "train", "h"),
        ("shard.tar", "walk", "val", ""),
    }
    assert corpus.listing is not None and corpus.listing.missing == {"val": 1}
