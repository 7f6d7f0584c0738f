"""The part of the explorer that gives the face: drawn by sliders, or a photo."""

import io
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import ipywidgets as w
import numpy as np
from PIL import Image

from ..data.face_crop import crop_face
from ..data.images import ImageSource, load_image
from ..errors import ExpVQAError
from ..facs import ACTION_UNITS, EMOTIONS
from ..synthfacs import AUS, Face, Identity, Scene, random_identity, random_scene, render

DRAWN, PHOTO = "Drawn face", "Photo"
SIDE = 224  # px: of the picture beside the widgets
DRAWN_SIDES = (96, 448)  # px: what the tiny model was trained on, and what is shown
LARGEST = 1024  # px: no model takes more of a photo
EXPRESSION_INTENSITY = 0.85  # of the AUs of a chosen expression
UPLOAD_LIMIT = "Jupyter silently drops uploads above 10 MB; give their path."


@dataclass(frozen=True)
class FaceImage:
    """A face for the model, the same as it is shown, its name, and a notice about how it was found."""

    image: Image.Image
    shown: Image.Image
    name: str
    notice: str | None = None


def draw_face(face: Face) -> FaceImage:
    """Draw a face for the model and for the page."""
    image, shown = (Image.fromarray(render(face, side).image) for side in DRAWN_SIDES)
    return FaceImage(image, shown, DRAWN)


def load_photo(name: str, source: ImageSource, crop: bool) -> FaceImage:
    """Read a photo, a path or bytes, and cut out its face.

    Raises:
        ImageError: it cannot be read.
    """
    try:
        image, notice = crop_face(source) if crop else (load_image(source), None)
    except ExpVQAError as error:  # uploaded bytes have no name of their own
        raise type(error)(str(error).replace("the given bytes", name)) from error
    image.thumbnail((LARGEST, LARGEST))
    return FaceImage(image, image, name, notice)


class FaceChooser(w.VBox):
    """Widgets to choose a face.

    `changed` is called at every change, of a new photo as `changed(is_new_photo=True)`.
    """

    def __init__(self, changed: Callable[..., None]) -> None:
        self._changed, self._is_silent = changed, False
        self._person, self._identity, self._scene = 0, Identity(), Scene()
        self._file: tuple[str, ImageSource] | None = None
        half, full = {"width": "110px"}, {"width": "224px"}
        self.source = w.ToggleButtons(options=[DRAWN, PHOTO], style={"button_width": "109px"})
        self.person = w.Button(description="New person", layout=half)
        self.rest = w.Button(description="At rest", layout=half)
        self.expression = w.Dropdown(options=["expression …", *EMOTIONS], layout=full)
        self.upload = w.FileUpload(accept="image/*", description="Upload", layout=half)
        self.path = w.Text(placeholder="or type a path", continuous_update=False, layout=half)
        self.no_crop = w.Checkbox(description="no crop: the whole picture", indent=False, layout=full)
        self.sliders = {au: _slider(au) for au in AUS}
        self.picture = w.Image(format="png", width=SIDE, height=SIDE)
        limit = w.HTML(f'<div style="line-height:1.3">{UPLOAD_LIMIT}</div>')
        self.drawn_tools = w.VBox([w.HBox([self.person, self.rest]), self.expression, *self.sliders.values()])
        self.photo_tools = w.VBox([w.HBox([self.upload, self.path]), limit, self.no_crop])
        parts = [self.source, self.picture, self.drawn_tools, self.photo_tools]
        super().__init__(parts, layout={"width": "228px"})
        for part in (self.source, self.no_crop, *self.sliders.values()):
            part.observe(self._on_change, "value")
        self.upload.observe(self._on_upload, "value")
        self.path.observe(self._on_path, "value")
        self.expression.observe(self._on_expression, "value")
        self.person.on_click(self._on_person)
        self.rest.on_click(self._on_rest)
        self._show_tools()

    @property
    def is_drawn(self) -> bool:
        """Whether the face is drawn, not a photo."""
        return self.source.value == DRAWN

    def chosen(self) -> Callable[[], FaceImage] | None:
        """A function that makes the face as the widgets say; None where no photo was given yet."""
        if self.is_drawn:
            intensities = {au: slider.value for au, slider in self.sliders.items() if slider.value > 0}
            return partial(draw_face, Face(self._identity, self._scene, intensities))
        return partial(load_photo, *self._file, not self.no_crop.value) if self._file else None

    def show(self, image: Image.Image | None) -> None:
        """Show a picture as a square, as the model gets it; none where it could not be read."""
        self.picture.layout.visibility = "visible" if image else "hidden"
        if image:
            buffer = io.BytesIO()
            image.resize((SIDE, SIDE), Image.Resampling.LANCZOS, reducing_gap=3).save(buffer, "PNG")
            self.picture.value = buffer.getvalue()

    def _show_tools(self) -> None:
        """Show the tools that apply, and a face as the sliders have it; a photo is shown once it is read."""
        self.drawn_tools.layout.display = None if self.is_drawn else "none"
        self.photo_tools.layout.display = "none" if self.is_drawn else None
        if self.is_drawn:
            self.show(self.chosen()().shown)

    def _on_change(self, _=None) -> None:
        if not self._is_silent:
            self._show_tools()
            self._changed()

    def _on_upload(self, change: dict) -> None:
        if change["new"]:
            self._take(change["new"][-1]["name"], bytes(change["new"][-1]["content"]))

    def _on_path(self, change: dict) -> None:
        if text := change["new"].strip():
            self._take(Path(text).name, text)

    def _take(self, name: str, source: ImageSource) -> None:
        self._file = (name, source)
        self.source.value = PHOTO
        self._changed(is_new_photo=True)

    def _on_person(self, _) -> None:
        self._person += 1
        rng = np.random.default_rng(self._person)
        self._identity, self._scene = random_identity(rng), random_scene(rng, 0.5)
        self._on_change()

    def _on_rest(self, _) -> None:
        self.expression.value = self.expression.options[0]
        self._set_sliders({})

    def _on_expression(self, change: dict) -> None:
        if change["new"] in EMOTIONS:
            self._set_sliders(dict.fromkeys(EMOTIONS[change["new"]].prototype, EXPRESSION_INTENSITY))

    def _set_sliders(self, intensities: dict[int, float]) -> None:
        """Set all sliders, as one change."""
        self._is_silent = True
        for au, slider in self.sliders.items():
            slider.value = intensities.get(au, 0.0)
        self._is_silent = False
        self._on_change()


def _slider(au: int) -> w.FloatSlider:
    return w.FloatSlider(
        min=0,
        max=1,
        step=0.05,
        readout=False,
        description=f"AU{au} {ACTION_UNITS[au].noun}",
        style={"description_width": "150px"},
        layout={"width": "224px", "height": "22px", "margin": "0"},
    )
