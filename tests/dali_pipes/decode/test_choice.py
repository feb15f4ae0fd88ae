"""Which decoder, with the reason in words."""

from __future__ import annotations

from dataclasses import replace

import pytest
from loader_checks import ZOO

from dali_pipes import Corpus, DataError, Video
from dali_pipes.decode.choice import CPU_CODECS, GPU_CODECS, Choice, choose, survey

pytest_plugins = ["loader_fixtures"]


@pytest.fixture
def plain(zoo: Corpus) -> Video:
    """A video without anything unusual; tests change one thing about it."""
    return replace(zoo[0], codec="vp9", width=320, height=240)


@pytest.mark.parametrize("device", ["cpu", "gpu"])
def test_an_ordinary_vp9_video_goes_to_dali(plain: Video, device: str) -> None:
    assert choose(plain, device, "dali").decoder == "dali"


def test_dali_decodes_on_a_cpu_only_where_it_is_asked_to(plain: Video) -> None:
    assert choose(plain, "gpu").decoder == "dali"
    assert choose(plain, "cpu") == Choice("host", "quicker than DALI's CPU decoder")


@pytest.mark.parametrize("codec", sorted({*GPU_CODECS, *CPU_CODECS, "av1", "mpeg1video", "msvideo1"}))
def test_codecs_go_where_they_can_be_decoded_and_the_reason_names_them(plain: Video, codec: str) -> None:
    video = replace(plain, codec=codec)
    for device, known in (("cpu", CPU_CODECS), ("gpu", GPU_CODECS)):
        choice = choose(video, device, "dali")
        assert choice.decoder == ("dali" if codec in known else "host")
        if codec not in known:
            assert codec in choice.reason
            assert device.upper() in choice.reason


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"pixel_format": "yuv444p"}, "yuv444p"),
        ({"pixel_format": "yuv420p10le"}, "yuv420p10le"),
        ({"rotation": 90}, "rotated by 90 degrees"),
        ({"numbering": "count"}, "time stamps"),
        ({"uniform": False}, "changes within the video"),
        ({"sliceable": False}, "packets are not its frames"),
    ],
)
@pytest.mark.parametrize("device", ["cpu", "gpu"])
def test_what_dali_cannot_do_goes_to_the_host_with_the_reason(
    plain: Video, device: str, change: dict[str, object], words: str
) -> None:
    for decoder in ("auto", "dali"):
        choice = choose(replace(plain, **change), device, decoder)
        assert choice.decoder == "host"
        assert words in choice.reason


def test_pictures_too_small_for_nvdec_go_to_the_host_on_a_gpu_only(plain: Video) -> None:
    small = replace(plain, width=96, height=96)
    assert choose(small, "cpu", "dali").decoder == "dali"
    choice = choose(small, "gpu")
    assert choice.decoder == "host"
    assert "128x128" in choice.reason and "96x96" in choice.reason


def test_asking_for_the_host_gets_the_host(plain: Video) -> None:
    assert choose(plain, "cpu", "host") == Choice("host", "decoder='host' was asked for")


def test_an_unknown_decoder_is_refused(plain: Video) -> None:
    with pytest.raises(DataError, match="decoder='ffmpeg' must be one of auto, dali, host"):
        choose(plain, "cpu", "ffmpeg")  # type: ignore[arg-type]


@pytest.mark.parametrize("device", ["cpu", "gpu"])
@pytest.mark.parametrize("decoder", ["auto", "dali", "host"])
def test_the_survey_counts_what_choosing_one_by_one_would(zoo: Corpus, device: str, decoder: str) -> None:
    counted: dict[Choice, int] = {}
    for video in zoo:
        choice = choose(video, device, decoder)  # type: ignore[arg-type]
        counted[choice] = counted.get(choice, 0) + 1
    assert survey(zoo, device, decoder) == counted  # type: ignore[arg-type]
    assert sum(counted.values()) == len(ZOO)
