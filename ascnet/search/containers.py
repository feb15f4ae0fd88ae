"""Which files may be a video by their first bytes.

FFmpeg also opens text that names other files (playlists, concatenations), and would then read those in place of what
was sent. So what comes from the web page has to begin as a container of videos does.
"""

from __future__ import annotations

_BOXES = (b"ftyp", b"moov", b"mdat", b"free", b"skip", b"wide", b"pnot")
_HEADS = (
    b"\x1a\x45\xdf\xa3",  # Matroska, WebM
    b"FLV\x01",
    b"\x00\x00\x01\xba",  # MPEG program stream
    b"\x00\x00\x01\xb3",  # MPEG-1 and MPEG-2 video
    b"\x00\x00\x01\xb0",  # MPEG-4 video
    b"\x30\x26\xb2\x75\x8e\x66\xcf\x11",  # ASF, WMV
    b"OggS\x00",
    b"GIF87a",
    b"GIF89a",
    b"DKIF",  # IVF
    b"YUV4MPEG2 ",
    b"\x00\x00\x00\x01",  # H.264 and HEVC as they are
    b".RMF",
    b"nut/multimedia container",
    b"\x06\x0e\x2b\x34\x02\x05\x01\x01",  # MXF
)
HEAD_BYTES = 512


def looks_like_video(head: bytes) -> bool:
    """Whether a file may be a video, by its first `HEAD_BYTES` bytes."""
    if head.startswith(_HEADS) or head[4:8] in _BOXES:
        return True
    if head.startswith(b"RIFF") and head[8:12] in (b"AVI ", b"AVIX"):
        return True
    # MPEG transport stream: packets of 188 bytes, or of 192 with a time stamp before each.
    return any(head[at : at + 1] == head[at + size : at + size + 1] == b"\x47" for at, size in ((0, 188), (4, 192)))
