"""Sound and video files by their first bytes: what a name's ending claims is not what decides how a page plays them."""

from __future__ import annotations

from .payload import Payload, head

# The endings under which a container's files go, the usual one first.
_AUDIO = {
    "wav": (".wav",), "flac": (".flac",), "ogg": (".ogg", ".oga", ".opus"), "mp3": (".mp3",), "aac": (".aac",),
    "mp4": (".m4a", ".mp4"), "webm": (".webm", ".weba"),
}  # fmt: skip
_VIDEO = {
    "mp4": (".mp4", ".m4v", ".mov"), "webm": (".webm", ".mkv"), "ogg": (".ogv", ".ogg"), "gif": (".gif",),
}  # fmt: skip


def container_of(content: Payload) -> str | None:
    """Return "wav", "flac", "ogg", "mp3", "aac", "mp4", "webm", "gif" by a file's first bytes, None for all else.

    The marks are those of https://mimesniff.spec.whatwg.org/#matching-an-audio-or-video-type-pattern and of the MPEG
    audio headers.

    Raises:
        OSError: they cannot be read.
    """
    start = head(content, 16)
    if start[:4] == b"RIFF" and start[8:12] == b"WAVE":
        return "wav"
    if start[4:8] == b"ftyp":
        return "mp4"
    if start[:6] in (b"GIF87a", b"GIF89a"):
        return "gif"
    for mark, container in ((b"fLaC", "flac"), (b"OggS", "ogg"), (b"\x1a\x45\xdf\xa3", "webm"), (b"ID3", "mp3")):
        if start.startswith(mark):
            return container
    if len(start) > 1 and start[0] == 0xFF and start[1] & 0xE0 == 0xE0:
        return "mp3" if start[1] & 0x06 else "aac"  # the layer's two bits are 0 in ADTS
    return None


def suffix_for(container: str, given: str, what: str) -> str:
    """Return the ending that a file of this container gets: its own where it fits, else the usual one.

    Args:
        container: as `container_of` gives it.
        given: the ending of its name.
        what: "audio" or "video".
    """
    usual = (_AUDIO if what == "audio" else _VIDEO)[container]
    return given.lower() if given.lower() in usual else usual[0]
