"""Sound and video: what becomes of arrays, what is kept byte for byte, what is refused."""

from __future__ import annotations

import io
import subprocess
import wave
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest

import flightlog
from flightlog.media import Audio, Video

SINE = np.sin(np.linspace(0, 40, 800))
NOISE = np.random.default_rng(1).integers(0, 256, (5, 8, 10, 3)).astype(np.uint8)


def _named(value: Any) -> str:
    """Return what a case is called: the same in every process, so without addresses."""
    plain = isinstance(value, int | float | str | dict | type(None))
    return f"{type(value).__name__}-{getattr(value, 'shape', value if plain else '')}"[:40]


def encoded(media: Any) -> tuple[bytes, str, dict[str, Any]]:
    content, suffix, facts = media.encode()
    assert isinstance(content, bytes)
    return content, suffix, facts


def samples(sound: Audio) -> Any:
    """Read a sound back with another library than it was written by."""
    content, suffix, facts = encoded(sound)
    soundfile = pytest.importorskip("soundfile")
    values, rate = soundfile.read(io.BytesIO(content), dtype="int16")
    assert (suffix, facts["sample_rate"]) == (".wav", rate)
    assert facts["channels"] == (values.shape[1] if values.ndim == 2 else 1)
    assert facts["duration"] == round(len(values) / rate, 6)
    return values


# -- sound -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (SINE, np.rint(SINE * 32767)),
        (SINE.astype(np.float32), np.rint(SINE.astype(np.float32) * 32767)),
        ([0.0, 2.0, -2.0, float("nan"), float("inf")], [0, 32767, -32767, 0, 32767]),
        (np.array([0.5, -0.5], np.float16), [16384, -16384]),
        (np.array([1, -2, 32767], np.int16), [1, -2, 32767]),
        (np.array([1, -2, 99_999]), [1, -2, 32767]),
        (np.array([1, -2, 30_000], np.int32), [1, -2, 30_000]),
        (np.array([1 << 30, -(1 << 31)], np.int32), [1 << 14, -(1 << 15)]),
        (np.array([0, 128, 255], np.uint8), [-32768, 0, 32512]),
        (np.array([-128, 0, 127], np.int8), [-32768, 0, 32512]),
        (np.array([True, False]), [1, 0]),
        (np.array([[0.0, 1.0], [1.0, 0.0], [0.5, 0.5]]), [[0, 32767], [32767, 0], [16384, 16384]]),
        (np.ones((2, 100)), np.full((100, 2), 32767)),
        (np.ones((100, 2)).T[::-1], np.full((100, 2), 32767)),
    ],
    ids=lambda x: f"{getattr(x, 'dtype', type(x).__name__)}-{getattr(x, 'shape', '')}",
)
def test_every_form_of_a_sound(data: Any, expected: Any) -> None:
    """Floats, integers of any width, lists, channels first or last: 16-bit WAV that others read."""
    assert np.array_equal(samples(Audio(data, sample_rate=8000)), np.asarray(expected, np.int16))


def test_a_sound_is_what_it_was_when_made() -> None:
    """Later changes to the array do not reach it."""
    array = SINE.copy()
    sound = Audio(array, 8000, "c")
    array[:] = 0
    assert samples(sound).any() and encoded(sound)[2]["caption"] == "c"


@pytest.mark.parametrize(
    ("data", "rate"),
    [
        ([0.0], None), ([0.0], 0), ([0.0], -1), ([0.0], 1.5), ([0.0], float("nan")), ([0.0], 10**9), ([0.0], "x"),
        ([], 8000), ([[[0.0]]], 8000), (np.zeros((50, 40)), 8000), (["a"], 8000), (np.array([1j]), 8000),
        (np.broadcast_to(np.float32(0), (1 << 28,)), 8000), (iter([0.0]), 8000), (object(), 8000), (None, None),
    ],
    ids=_named,
)  # fmt: skip
def test_what_is_no_sound(data: Any, rate: Any) -> None:
    """Nothing is raised at construction; encoding says why it cannot be."""
    sound = Audio(data, sample_rate=rate)
    with pytest.raises(flightlog.UsageError, match="Audio"):
        sound.encode()


@pytest.mark.parametrize("suffix", [".wav", ".flac", ".ogg", ".mp3"])
def test_sound_files_are_kept_byte_for_byte(suffix: str, tmp_path: Path) -> None:
    """What another library wrote is the same file in the run, whatever its name ended in."""
    soundfile = pytest.importorskip("soundfile")
    path = tmp_path / f"sound{suffix.upper()}"
    soundfile.write(path, SINE, 8000, format=suffix[1:])
    nameless = tmp_path / "download.part"
    nameless.write_bytes(path.read_bytes())
    for given in (path, nameless):
        content, found, _ = encoded(Audio(given))
        assert (content, found) == (path.read_bytes(), suffix)


def test_wav_files_the_standard_library_cannot_read(tmp_path: Path) -> None:
    """WAV of floats is kept, without facts; the facts of a plain one are looked up."""
    soundfile = pytest.importorskip("soundfile")
    soundfile.write(tmp_path / "float.wav", SINE, 8000, subtype="FLOAT")
    soundfile.write(tmp_path / "plain.wav", SINE, 8000)
    assert encoded(Audio(tmp_path / "float.wav"))[1:] == (".wav", {})
    assert encoded(Audio(tmp_path / "plain.wav"))[2] == {"sample_rate": 8000, "channels": 1, "duration": 0.1}
    with wave.open(str(tmp_path / "empty.wav"), "wb") as file:
        file.setparams((1, 2, 8000, 0, "NONE", ""))
    assert encoded(Audio(tmp_path / "empty.wav"))[2]["duration"] == 0.0


@pytest.mark.parametrize("start", [b"", b"x", b"RIFF", b"<html>", b"\x89PNG\r\n\x1a\n", b"GIF89a", b"\xff\x00"])
@pytest.mark.parametrize("make", [Audio, Video])
def test_names_do_not_make_sounds_and_videos(make: Any, start: bytes, tmp_path: Path) -> None:
    """A file that is none by its first bytes is refused whatever its name ends in (a GIF is a video)."""
    for suffix in (".wav", ".mp4"):
        path = tmp_path / f"file{suffix}"
        path.write_bytes(start)
        if (make, start) == (Video, b"GIF89a"):
            assert encoded(make(path))[1] == ".gif"
        else:
            with pytest.raises(flightlog.UsageError, match="by its first bytes"):
                make(path).encode()


@pytest.mark.parametrize(
    ("start", "suffix"),
    [
        (b"\xff\xfb\x90\x00", ".mp3"), (b"\xff\xf1\x50\x80", ".aac"), (b"ID3\x04", ".mp3"),
        (b"\0\0\0\x20ftypM4A ", ".m4a"), (b"\x1a\x45\xdf\xa3", ".webm"), (b"OggS\0", ".ogg"),
    ],
)  # fmt: skip
def test_sounds_by_their_first_bytes(start: bytes, suffix: str, tmp_path: Path) -> None:
    """Every container gets the ending under which a page plays it."""
    (tmp_path / "sound").write_bytes(start)
    assert encoded(Audio(tmp_path / "sound"))[1] == suffix


# -- video -------------------------------------------------------------------------------------------------------------


def frames(video: Video, tmp_path: Path) -> Any:
    """Decode a video by ffmpeg (Pillow for a GIF); returns (T, H, W, 3), and checks the entry's facts against it."""
    content, suffix, facts = encoded(video)
    if suffix == ".gif":
        with PIL.Image.open(io.BytesIO(content)) as picture:
            found = []
            for at in range(picture.n_frames):
                picture.seek(at)
                found.append(np.asarray(picture.convert("RGB")))
        return np.stack(found)
    ffmpeg = pytest.importorskip("imageio_ffmpeg")
    path = tmp_path / f"back{suffix}"
    path.write_bytes(content)
    done = subprocess.run(
        [ffmpeg.get_ffmpeg_exe(), "-i", str(path), "-f", "rawvideo", "-pix_fmt", "rgb24", "-"],
        capture_output=True, check=True,
    )  # fmt: skip
    width, height = (side + side % 2 for side in (facts["width"], facts["height"]))
    said = done.stderr.decode()
    assert f"{width}x{height}" in said and f"{facts['fps']:g} fps" in said and "yuv420p" in said
    return np.frombuffer(done.stdout, np.uint8).reshape(-1, height, width, 3)


@pytest.mark.parametrize("format", ["mp4", "webm", "gif"])
def test_an_array_becomes_a_video(format: str, tmp_path: Path) -> None:
    """Three frames of red, green and blue are three frames of red, green and blue, in each format; odd sides too."""
    if format != "gif":
        pytest.importorskip("imageio_ffmpeg")
    colours = np.zeros((3, 33, 47, 3), np.uint8)
    for at in range(3):
        colours[at, :, :, at] = 255
    video = Video(colours, "c", fps=8, format=format)
    colours[:] = 0
    back = frames(video, tmp_path)
    assert len(back) == 3 and [frame.reshape(-1, 3).mean(axis=0).argmax() for frame in back] == [0, 1, 2]
    facts = encoded(video)[2]
    assert facts == {"width": 47, "height": 33, "frames": 3, "fps": 8.0, "caption": "c"}


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (NOISE.transpose(0, 3, 1, 2), NOISE),
        (NOISE / 255, NOISE),
        (NOISE[:, :, :, :1], NOISE[:, :, :, [0, 0, 0]]),
        (NOISE[:, :, :, 0], NOISE[:, :, :, [0, 0, 0]]),
        (np.concatenate([NOISE, NOISE[..., :1]], axis=3), NOISE),
        (NOISE[None], NOISE),
        (NOISE.transpose(0, 3, 1, 2)[None], NOISE),
    ],
    ids=lambda x: f"{getattr(x, 'dtype', '')}-{getattr(x, 'shape', '')}",
)
def test_every_form_of_a_video(data: Any, expected: Any) -> None:
    """(T, H, W, C), (T, C, H, W), (T, H, W), floats, a batch of one: the same frames go to the encoder."""
    from flightlog.media.arrays import as_array
    from flightlog.media.video import _rgb

    assert np.array_equal(_rgb(as_array(data, "Video()")), expected)


def test_several_videos_stand_side_by_side() -> None:
    """A batch of three is a grid of two by two with the last place black, all frames at once."""
    from flightlog.media.video import _rgb

    grid = _rgb(np.stack([NOISE, NOISE // 2, NOISE // 4]))
    assert grid.shape == (5, 16, 20, 3)
    assert np.array_equal(grid[:, :8, :10], NOISE) and np.array_equal(grid[:, :8, 10:], NOISE // 2)
    assert np.array_equal(grid[:, 8:, :10], NOISE // 4) and not grid[:, 8:, 10:].any()


def test_video_files_are_kept_byte_for_byte(tmp_path: Path) -> None:
    """By path or as bytes; without a format or with a name that says nothing."""
    made = b"\0\0\0\x18ftypisom" + NOISE.tobytes()
    (tmp_path / "v.mp4").write_bytes(made)
    (tmp_path / "nameless").write_bytes(made)
    for given in (tmp_path / "v.mp4", str(tmp_path / "nameless"), io.BytesIO(made)):
        assert encoded(Video(given))[:2] == (made, ".mp4")
    gif = encoded(Video(NOISE, format="gif"))[0]
    assert encoded(Video(io.BytesIO(gif), format="gif"))[:2] == (gif, ".gif")


@pytest.mark.parametrize(
    ("data", "options"),
    [
        (np.zeros((2, 2)), {}), (np.zeros((2, 5, 5, 5)), {}), (np.zeros((1, 1, 1, 1, 1, 1)), {}),
        (np.zeros((0, 4, 4)), {}),
        (NOISE, {"fps": 0}), (NOISE, {"fps": float("nan")}), (NOISE, {"fps": "x"}), (NOISE, {"format": "avi"}),
        (np.broadcast_to(np.uint8(0), (1000, 2000, 2000)), {}), (np.broadcast_to(np.uint8(0), (1, 1, 20_000)), {}),
        (io.BytesIO(b"no"), {}), (object(), {}), (None, {}), ([[["a"]]], {}), (iter([NOISE]), {}),
    ],
    ids=_named,
)  # fmt: skip
def test_what_is_no_video(data: Any, options: Any) -> None:
    """Nothing is raised at construction; encoding says why it cannot be."""
    video = Video(data, **options)
    with pytest.raises(flightlog.UsageError, match="Video"):
        video.encode()


def test_an_encoder_that_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What ffmpeg says on its way out is the warning's text."""
    pytest.importorskip("imageio_ffmpeg")
    program = tmp_path / "ffmpeg"
    program.write_text("#!/bin/sh\necho no room for this codec >&2\nexit 1\n")
    program.chmod(0o755)
    monkeypatch.setenv("IMAGEIO_FFMPEG_EXE", str(program))
    with pytest.raises(flightlog.UsageError, match="no room for this codec"):
        Video(NOISE, format="mp4").encode()
