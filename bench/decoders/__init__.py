"""The candidates of `python -m bench decode`: ours, and a small adapter for each other decoder, which are optional."""

from __future__ import annotations

from bench.decoders import dali, decord, opencv, ours, pyav, pynvvideocodec, spdl, torchcodec
from bench.decoders.base import Decoder, Job

DECODERS: dict[str, type[Decoder]] = {
    "ours-cpu": ours.OursCpu,
    "ours-dali-cpu": ours.OursDaliCpu,
    "ours-cuda": ours.OursCuda,
    "torchcodec-cpu": torchcodec.TorchcodecCpu,
    "pyav": pyav.Pyav,
    "decord": decord.Decord,
    "opencv": opencv.Opencv,
    "spdl": spdl.Spdl,
    "dali-decoder-cpu": dali.DecoderCpu,
    "dali-reader-cpu": dali.ReaderCpu,
    "torchcodec-cuda": torchcodec.TorchcodecCuda,
    "pynvvideocodec": pynvvideocodec.PyNvVideoCodec,
    "dali-decoder-cuda": dali.DecoderCuda,
    "dali-reader-cuda": dali.ReaderCuda,
    "dali-legacy-reader-cuda": dali.LegacyReaderCuda,
}

__all__ = ["DECODERS", "Decoder", "Job"]
