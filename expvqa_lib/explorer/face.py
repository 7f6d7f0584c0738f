"""The part of the explorer that gives the face: rendered by sliders, a photo, or a video's frame."""

import contextlib
from collections import namedtuple
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import ipywidgets as w
import numpy as np
from PIL import Image

from ..data import ImageSource, crop_face, load_image
from ..data.footage import count_views, is_video, video_frame
from ..errors import ImageError
from ..facs import ACTION_UNITS, EMOTIONS
from ..synthfacs import AUS, LEVELS, Face, random_identity, random_scene, render

RENDERED, PHOTO = "Rendered face", "Photo"
SIDE = 224  # px: of the picture beside the widgets

FaceImage = namedtuple("FaceImage", "image shown name notice")
"""A face for the model, the same as it is shown, its name, and a notice about how it was found, or None."""


def draw_face(face: Face) -> FaceImage:
    """Draw a face for the model, at the size that the tiny one was trained on, and for the page."""
    return FaceImage(*(Image.fromarray(render(face, side).image) for side in (96, 288)), RENDERED, None)


def load_photo(name: str, source: ImageSource, crop: bool, frame: int) -> FaceImage:
    """Read a photo, a path or bytes, or a video's frame at a path, and cut out its face.

    Raises:
        ImageError: it cannot be read.
    """
    try:
        image = video_frame(source, frame) if is_video(name) else load_image(source)
        image, notice = crop_face(image) if crop else (image, None)
        name = f"{name}, frame {frame}" if is_video(name) else name
    except ImageError as error:  # uploaded bytes have no name of their own
        raise ImageError(str(error).replace("the given bytes", name)) from error
    image.thumbnail((1024, 1024))  # px: no model takes more of a photo
    return FaceImage(image, image, name, notice)


class FaceChooser(w.VBox):
    """Widgets to choose a face.

    `changed` is called at every change, with `is_other_face` where another face is chosen than was shown, and
    with `is_new_photo` where that is a new photo.
    """

    def __init__(self, changed: Callable[..., None]) -> None:
        self._changed, self._is_silent = changed, False
        self._folder = TemporaryDirectory(prefix="expvqa-")  # of uploaded videos
        self._face, self._photo, self._rng = Face(), None, np.random.default_rng(1)
        vars(self).update(_widgets())
        self.rendered_tools = w.VBox(
            [w.HBox([self.person, self.rest]), self.expression, *self.sliders.values()]
        )
        self.photo_tools = w.VBox([w.HBox([self.upload, self.path]), self.limit, self.frame, self.no_crop])
        super().__init__(
            [self.source, self.picture, self.rendered_tools, self.photo_tools], layout={"width": "228px"}
        )
        handlers = dict.fromkeys((self.no_crop, self.frame, *self.sliders.values()), self._on_change)
        taking = {self.source: self._on_source, self.upload: self._on_upload, self.path: self._on_path}
        for widget, handler in (handlers | taking | {self.expression: self._on_expression}).items():
            widget.observe(handler, "value")
        self.person.on_click(self._on_person)
        self.rest.on_click(self._on_rest)
        self.frame.layout.display = "none"
        self._preview()

    def chosen(self) -> Callable[[], FaceImage] | None:
        """A function that makes the face as the widgets say; None where no photo was given yet."""
        if self.source.value == PHOTO:
            options = not self.no_crop.value, self.frame.value
            return partial(load_photo, *self._photo, *options) if self._photo else None
        intensities = {au: slider.value for au, slider in self.sliders.items() if slider.value > 0}
        return partial(draw_face, replace(self._face, aus=intensities))

    def show(self, image: Image.Image | None) -> None:
        """Show a picture as a square, as the model gets it; none where it could not be read."""
        self.picture.layout.visibility = "visible" if image else "hidden"
        if image:
            square = image.resize((SIDE, SIDE), Image.Resampling.LANCZOS, reducing_gap=3)
            self.picture.value = square._repr_png_()

    def _show_tools(self) -> None:
        """Show the tools that apply."""
        for tools, source in ((self.rendered_tools, RENDERED), (self.photo_tools, PHOTO)):
            tools.layout.display = None if self.source.value == source else "none"

    def _preview(self) -> None:
        """Show tools and face as the widgets say; an empty place where there is no photo to show."""
        self._show_tools()
        load_face, shown = self.chosen(), None
        with contextlib.suppress(ImageError):  # the answer will say why
            shown = load_face and load_face().shown
        self.show(shown)

    def _on_change(self, _=None) -> None:
        if not self._is_silent:
            acts = {au for au, slider in self.sliders.items() if slider.value > 0}
            names = [name for name, emotion in EMOTIONS.items() if acts == set(emotion.prototype)]
            self._is_silent = True
            self.expression.value = (names or self.expression.options)[0]
            self._is_silent = False
            self._preview()
            self._changed()

    def _on_source(self, _) -> None:
        if not self._is_silent:
            self._preview()
            self._changed(is_other_face=True)

    def _on_upload(self, change: dict) -> None:
        for file in change["new"][-1:]:
            self._take(file["name"], bytes(file["content"]))

    def _on_path(self, change: dict) -> None:
        if text := change["new"].strip():
            self._take(Path(text).name, text)

    def _take(self, name: str, source: ImageSource) -> None:
        is_clip, self._is_silent = is_video(name), True
        if is_clip and isinstance(source, bytes):  # OpenCV reads videos from files alone
            path = Path(self._folder.name, Path(name).name)
            path.write_bytes(source)
            source = str(path)
        self.frame.max = count_views([source]) - 1 if is_clip else 0
        self.frame.layout.display, self.frame.value = None if is_clip else "none", 0
        self._photo, self.source.value, self._is_silent = (name, source), PHOTO, False
        self._show_tools()
        self.show(None)  # until it is read, on the other thread
        self._changed(is_other_face=True, is_new_photo=True)

    def _on_person(self, _) -> None:
        self._face = Face(random_identity(self._rng), random_scene(self._rng, 0.5))
        self._on_change()

    def _on_rest(self, _) -> None:
        self._set_sliders({})

    def _on_expression(self, change: dict) -> None:
        if change["new"] in EMOTIONS and not self._is_silent:
            self._set_sliders(dict.fromkeys(EMOTIONS[change["new"]].prototype, 0.85))

    def _set_sliders(self, intensities: dict[int, float]) -> None:
        """Set all sliders, as one change."""
        self._is_silent = True
        for au, slider in self.sliders.items():
            slider.value = intensities.get(au, 0.0)
        self._is_silent = False
        self._on_change()


def _widgets() -> dict[str, w.Widget | dict[int, w.FloatSlider]]:
    """The chooser's widgets by name, and its sliders by AU."""
    half, full = {"width": "110px"}, {"width": "224px"}
    slider = {
        "max": 1,
        "step": 0.05,
        "readout": False,
        "tooltip": ", ".join(f"{level} {intensity:g}" for level, intensity in LEVELS.items()),
        "style": {"description_width": "150px"},
        "layout": full | {"height": "22px", "margin": "0"},
    }
    return {
        "source": w.ToggleButtons(
            options=[("Rendered", RENDERED), ("Photo, video", PHOTO)], style={"button_width": "109px"}
        ),
        "picture": w.Image(format="png", width=SIDE, height=SIDE),
        "person": w.Button(description="New person", layout=half),
        "rest": w.Button(description="At rest", layout=half),
        "expression": w.Dropdown(options=["expression …", *EMOTIONS], value="neutral", layout=full),
        "sliders": {au: w.FloatSlider(description=f"AU{au} {ACTION_UNITS[au].noun}", **slider) for au in AUS},
        "frame": w.IntSlider(description="frame", max=0, continuous_update=False, layout=full),
        "upload": w.FileUpload(accept="image/*,video/*", description="Upload", layout=half),
        "path": w.Text(placeholder="or type a path", continuous_update=False, layout=half),
        "limit": w.HTML(
            '<div style="line-height:1.3">Jupyter silently drops uploads above 10 MB; give their path.</div>'
        ),
        "no_crop": w.Checkbox(description="no crop: the whole picture", indent=False, layout=full),
    }
