"""Writing an encoder in each format, and running what was written."""

from __future__ import annotations

import json
import logging
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from ascnet.encoders import Encoder
from ascnet.errors import UserError
from ascnet.weights import load_encoder

Format = Literal["safetensors", "onnx", "torch"]

SUFFIXES: dict[Format, str] = {"safetensors": ".safetensors", "onnx": ".onnx", "torch": ".pt2"}

Writer = Callable[[Encoder, Tensor, Path, Mapping[str, Any]], None]
Runner = Callable[[Path, Tensor], Tensor]


def require(form: Format) -> None:
    """A UserError naming what to install, where the format's packages are absent."""
    absent = [name for name in ("onnx", "onnxscript", "onnxruntime") if form == "onnx" and find_spec(name) is None]
    if absent:
        raise UserError(f"--format onnx needs {', '.join(absent)}: pip install 'dali-pipes[onnx]'")


def _write_safetensors(encoder: Encoder, clips: Tensor, path: Path, card: Mapping[str, Any]) -> None:
    from safetensors.torch import load_file, save_file

    weights = {name: tensor.contiguous() for name, tensor in encoder.state_dict().items()}
    rest = {name: value for name, value in card.items() if name != "config"}
    header = {"format": "pt", "ascnet": json.dumps(card["config"]), "card": json.dumps(rest)}
    save_file(weights, path, metadata=header)
    if any(not torch.equal(tensor, weights[name]) for name, tensor in load_file(path).items()):
        raise UserError(f"{path}: other weights on the disk than in memory")


def _run_safetensors(path: Path, clips: Tensor) -> Tensor:
    return load_encoder(path)(clips)


def _write_torch(encoder: Encoder, clips: Tensor, path: Path, card: Mapping[str, Any]) -> None:
    with _quiet():
        program = torch.export.export(encoder, (clips,), dynamic_shapes=_dynamic())
        torch.export.save(program, path, extra_files={"card.json": json.dumps(card)})


def _run_torch(path: Path, clips: Tensor) -> Tensor:
    with _quiet():
        return torch.export.load(path).module()(clips)


def _write_onnx(encoder: Encoder, clips: Tensor, path: Path, card: Mapping[str, Any]) -> None:
    import onnx

    with _quiet():
        program = torch.onnx.export(
            encoder,
            (clips,),
            input_names=["clips"],
            output_names=["features"],
            dynamic_shapes=_dynamic(),
            dynamo=True,
            verbose=False,
        )
    assert program is not None
    model = program.model_proto
    onnx.helper.set_model_props(model, {"card": json.dumps(card)})
    onnx.save(model, path)


def _run_onnx(path: Path, clips: Tensor) -> Tensor:
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return torch.from_numpy(session.run(None, {"clips": clips.numpy()})[0])


WRITERS: dict[Format, Writer] = {"safetensors": _write_safetensors, "torch": _write_torch, "onnx": _write_onnx}
RUNNERS: dict[Format, Runner] = {"safetensors": _run_safetensors, "torch": _run_torch, "onnx": _run_onnx}


def _dynamic() -> dict[str, Any]:
    # The batch alone: time and space are those that the encoder was trained for.
    return {"x": {0: torch.export.Dim("batch")}}


@contextmanager
def _quiet() -> Iterator[None]:
    # The exporters warn of their own inner workings.
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
