"""Films from a figure that changes: by an ffmpeg that is found, or by Pillow."""

import base64
import importlib.util
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.animation import AbstractMovieWriter, FFMpegWriter, PillowWriter
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from PIL import Image

from fpcontrol.plotting.canvas import density_colors
from fpcontrol.plotting.picture import BLUE, GREEN, ORANGE, VERMILION

FORMATS = (".mp4", ".gif")
DPI = 120
GREYS, LINES = 32, (BLUE, ORANGE, GREEN, VERMILION)  # of a gif, beside the colours of densities
SAID = 300  # characters of what ffmpeg says


@dataclass(frozen=True)
class Movie:
    """A film in memory, which a notebook shows.

    Attributes:
        content: The file.
        suffix: Its format.
    """

    content: bytes = field(repr=False)
    suffix: str

    def _repr_html_(self) -> str:
        data = base64.b64encode(self.content).decode()
        if self.suffix == ".gif":
            return f'<img src="data:image/gif;base64,{data}">'
        return f'<video controls loop src="data:video/mp4;base64,{data}"></video>'


def ffmpeg() -> str | None:
    """The ffmpeg of matplotlib's settings, or that of imageio-ffmpeg; ``None`` without."""
    found = shutil.which(FFMpegWriter.bin_path())
    if found is None and importlib.util.find_spec("imageio_ffmpeg"):
        import imageio_ffmpeg  # type: ignore[import-not-found]

        try:
            found = imageio_ffmpeg.get_ffmpeg_exe()
        except RuntimeError:  # installed without its program
            found = None
    return found


class _GifWriter(PillowWriter):
    """With the same colours in all frames: of those chosen frame by frame, scales have steps."""

    _frames: list[Image.Image]

    def finish(self) -> None:
        """Write the file."""
        scale = density_colors()(np.linspace(0.0, 1.0, 256 - GREYS - len(LINES)))[:, :3]
        greys = np.repeat(np.linspace(0.0, 1.0, GREYS)[:, None], 3, axis=1)
        lines = [to_rgb(colour) for colour in LINES]
        colours = np.rint(255.0 * np.concatenate([scale, greys, lines])).astype(np.uint8)
        palette = Image.new("P", (1, 1))
        palette.putpalette(colours.tobytes())
        plain = (frame.convert("RGB") for frame in self._frames)
        first, *others = (
            frame.quantize(palette=palette, dither=Image.Dither.NONE) for frame in plain
        )
        pause = int(1000 / self.fps)
        first.save(self.outfile, save_all=True, append_images=others, duration=pause, loop=0)


@contextmanager
def _quiet_pipes() -> Iterator[None]:
    """A block in which a program that no longer reads is an error, at which PETSc does not end."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGPIPE})
    try:
        yield
    finally:
        if signal.SIGPIPE not in before:
            signal.sigtimedwait({signal.SIGPIPE}, 0)  # one that has come, and means nothing now
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGPIPE})


class Film:
    """Frames of a figure, one after another. Not collective.

    Args:
        figure: What is filmed.
        path: Where to; ends in one of ``FORMATS``.
        fps: Frames a second.

    Raises:
        OSError: If ffmpeg cannot be started, or says that it failed.
    """

    def __init__(self, figure: Figure, path: Path, fps: int) -> None:
        self._open = True
        if path.suffix.lower() == ".gif":
            self._writer: AbstractMovieWriter = _GifWriter(fps=fps)
            self._writer.setup(figure, str(path), DPI)
            return
        with matplotlib.rc_context({"animation.ffmpeg_path": ffmpeg() or "ffmpeg"}):
            self._writer = FFMpegWriter(fps=fps)
            self._writer.setup(figure, str(path), DPI)

    def frame(self) -> None:
        """The figure as it is now."""
        try:
            with _quiet_pipes():
                self._writer.grab_frame()
        except BrokenPipeError:
            self.close()  # which says what ffmpeg has said
            raise

    def close(self) -> None:
        """Finish the file, once; ffmpeg ends here."""
        if not self._open:
            return
        self._open = False
        try:
            with _quiet_pipes():
                self._writer.finish()
        except subprocess.CalledProcessError as error:
            words = str(error.stderr).strip()[-SAID:]
            raise OSError(
                f"ffmpeg failed ({words}). Choose a path that ends in .gif, or another codec: "
                f"rcParams['animation.codec'] is {matplotlib.rcParams['animation.codec']!r}."
            ) from None

    def abandon(self) -> None:
        """End ffmpeg if it still runs, after another error, which is the one that counts."""
        with suppress(Exception):
            self.close()
