"""OpenCV (https://github.com/opencv/opencv), written as people usually write it."""

from __future__ import annotations

from typing import Any

import numpy as np

from bench.decoders.base import Job, ThreadedDecoder
from bench.measure.plan import Request


class Opencv(ThreadedDecoder):
    """One seek by frame number, then everything up to the last frame wanted, converted where it is wanted."""

    notes = "VideoCapture, one seek by CAP_PROP_POS_FRAMES, grab to the last frame wanted; one codec thread"
    needs = ("cv2",)

    def __init__(self, job: Job) -> None:
        import cv2

        cv2.setNumThreads(1)
        super().__init__(job)

    def read(self, request: Request) -> Any:
        import cv2

        capture = cv2.VideoCapture(request.path, cv2.CAP_FFMPEG, [cv2.CAP_PROP_N_THREADS, 1])
        try:
            if not capture.isOpened():
                raise ValueError("VideoCapture does not open it")
            wanted = request.unique
            if wanted[0]:
                capture.set(cv2.CAP_PROP_POS_FRAMES, wanted[0])
            frames: list[Any] = []
            for number in range(wanted[0], wanted[-1] + 1):
                if not capture.grab():
                    raise ValueError(f"frame {number} is not delivered")
                if number == wanted[len(frames)]:
                    _, picture = capture.retrieve()
                    frames.append(cv2.cvtColor(picture, cv2.COLOR_BGR2RGB))
            return np.stack(frames)
        finally:
            capture.release()
