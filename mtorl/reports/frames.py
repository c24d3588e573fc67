"""Frames of films: pictures of episodes side by side, with their words; and files of frames."""

import math
import tempfile
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from mtorl import InputError
from mtorl.envs.filming import Take
from mtorl.files import write_atomically

Frame = NDArray[np.uint8]
GREEN, RED, DARK, LIGHT = (0, 158, 115), (213, 94, 0), (24, 24, 24), (240, 240, 240)
BRIGHT = {GREEN: (110, 230, 180), RED: (255, 160, 90)}
"""Colours of words on dark ground."""
BAR = 30
"""Pixels of the words above a picture."""
EDGE = 4
"""Pixels of the border that says how an episode ended."""
WIDEST = {"mp4": 1280, "gif": 800}
"""Pixels of a film of many episodes. GIFs are many times as large, so these have smaller pictures, and fewer."""
HELD = 1.0
"""Seconds for which the end is shown."""
COLOURS = 240
"""Of a GIF."""


class Panel:
    """One episode in a film.

    Args:
        label: Who acts.
        take: The episode.
        judged: Whether its success says something; otherwise its return does.
    """

    def __init__(self, label: str, take: Take, judged: bool = True) -> None:
        self.label, self.take, self._judged = label, take, judged

    def resized(self, width: int) -> "Panel":
        """The same with pictures of that width."""
        _, height, before, _ = self.take.pictures.shape
        if width == before:
            return self
        size = (width, round(height * width / before))
        small = [np.asarray(Image.fromarray(it).resize(size, Image.Resampling.BOX)) for it in self.take.pictures]
        take = Take(self.take.played, self.take.steps, np.stack(small), self.take.success_step)
        return Panel(self.label, take, self._judged)

    def frame(self, step: int) -> Frame:
        """The last picture up to that step, with what is known by then."""
        take = self.take
        place = max(number for number, it in enumerate(take.steps) if it <= step)
        picture = take.pictures[place]
        solved = take.success_step is not None and take.success_step <= step
        over = step >= take.played.length
        colour = GREEN if solved else RED if over and self._judged else None
        if solved:
            ending = f"success at step {take.success_step}"
        elif over:
            ending = "no success" if self._judged else f"return {take.played.reward:,.0f}"
        else:
            ending = ""
        lines = (
            f"{take.played.task.removesuffix('-v3')}, goal {take.played.goal}, {self.label}",
            f"step {min(step, take.played.length)}{', ' if ending else ''}{ending}",
        )
        return _dressed(picture, lines, colour)


def frames_of(panels: Sequence[Panel], columns: int | None = None) -> list[Frame]:
    """A film of episodes side by side, all beginning together.

    Args:
        panels: With pictures of one size.
        columns: In a row; all by default.
    """
    columns = columns or len(panels)
    times = sorted({step for panel in panels for step in panel.take.steps})
    frames = []
    for step in times:
        cells = [panel.frame(step) for panel in panels]
        blank = np.full_like(cells[0], 255)
        cells += [blank] * (-len(cells) % columns)
        rows = [np.concatenate(cells[start : start + columns], 1) for start in range(0, len(cells), columns)]
        frames.append(np.concatenate(rows))
    return frames


def grid_of(panels: Sequence[Panel], kind: str) -> list[Frame]:
    """A film of many episodes in rows, twice as wide as high; pictures shrink to `width_in_grid`."""
    width = width_in_grid(len(panels), panels[0].take.pictures.shape[2], kind)
    frames = frames_of([panel.resized(width) for panel in panels], _columns(len(panels)))
    return frames if kind == "mp4" else [*frames[:-1:2], frames[-1]]


def width_in_grid(count: int, width: int, kind: str) -> int:
    """How wide a picture of that width is in a film of so many, an `mp4` or a `gif`."""
    return min(width, WIDEST[kind] // _columns(count))


def _columns(count: int) -> int:
    return math.ceil(math.sqrt(2 * count))


def _dressed(picture: Frame, lines: Sequence[str], colour: tuple[int, int, int] | None) -> Frame:
    """A picture under its words; with a border in a colour, if something is decided."""
    height, width, _ = picture.shape
    canvas = Image.new("RGB", (width, height + BAR), DARK)
    canvas.paste(Image.fromarray(picture), (0, BAR))
    pen = ImageDraw.Draw(canvas)
    for number, line in enumerate(lines):
        pen.text((4, 2 + 13 * number), line, font=_font(), fill=BRIGHT[colour] if number and colour else LIGHT)
    if colour:
        pen.rectangle((0, BAR, width - 1, height + BAR - 1), outline=colour, width=EDGE)
    pen.line((width - 1, 0, width - 1, height + BAR), fill=DARK)  # between neighbours
    return np.asarray(canvas)


@cache
def _font() -> Any:
    try:
        return ImageFont.load_default(11)
    except (OSError, TypeError, ImportError):  # Pillow without FreeType
        return ImageFont.load_default()


def write_film(frames: Sequence[Frame], path: Path, fps: int) -> None:
    """Writes an MP4 or a GIF, by the name's end.

    Args:
        frames: Of one size.
        path: The file.
        fps: Frames in a second.

    Raises:
        InputError: The package for MP4 is missing.
    """
    held = [*frames, *[frames[-1]] * round(HELD * fps)]
    content = _mp4(held, fps) if path.suffix == ".mp4" else _gif(held, fps)
    write_atomically(path, lambda file: file.write(content))


def has_ffmpeg() -> bool:
    """Whether MP4 files can be written here."""
    try:
        import imageio_ffmpeg

        imageio_ffmpeg.get_ffmpeg_exe()
    except (ImportError, RuntimeError):
        return False
    return True


def _mp4(frames: Sequence[Frame], fps: int) -> bytes:
    if not has_ffmpeg():
        raise InputError(
            "films as MP4 need the package imageio-ffmpeg. Install it (`pip install 'mtorl[video]'`), or say --format "
            "gif."
        )
    import imageio_ffmpeg

    height, width = frames[0].shape[0] // 2 * 2, frames[0].shape[1] // 2 * 2  # the codec takes even sizes
    with tempfile.TemporaryDirectory(prefix="mtorl-") as folder:
        path = Path(folder) / "film.mp4"
        writer = imageio_ffmpeg.write_frames(
            str(path),
            (width, height),
            fps=fps,
            quality=None,
            macro_block_size=2,
            ffmpeg_log_level="error",
            output_params=["-crf", "25", "-preset", "veryfast", "-threads", "1", "-movflags", "+faststart"],
        )
        writer.send(None)
        for frame in frames:
            writer.send(np.ascontiguousarray(frame[:height, :width]))
        writer.close()
        return path.read_bytes()


def _gif(frames: Sequence[Frame], fps: int) -> bytes:
    """One palette for all frames: colours that jump would make every pixel change."""
    sample = np.concatenate([frames[0], frames[len(frames) // 2], frames[-1]])
    # Colours by what there is, not by how much of it: a button that is small is still yellow.
    palette = Image.fromarray(sample).quantize(COLOURS, method=Image.Quantize.MAXCOVERAGE)
    pictures = [Image.fromarray(it).quantize(palette=palette, dither=Image.Dither.NONE) for it in frames]
    with tempfile.TemporaryDirectory(prefix="mtorl-") as folder:
        path = Path(folder) / "film.gif"
        pictures[0].save(
            path, save_all=True, append_images=pictures[1:], duration=round(1000 / fps), loop=0, optimize=False
        )
        return path.read_bytes()
