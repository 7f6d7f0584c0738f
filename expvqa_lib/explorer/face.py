"""The part of the explorer that gives the face: drawn by sliders, or a photo."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import ipywidgets as w
import numpy as np
from PIL import Image

from ..data.face_crop import crop_face
from ..data.images import ImageSource, load_image
from ..errors import ExpVQAError
from ..facs import EMOTIONS
from ..synthfacs import AUS, Face, Identity, Scene, random_identity, random_scene, render
from . import render as views

DRAWN, PHOTO = "Drawn face", "Photo"
PICTURES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff")
_DRAWN_SIDE = 96  # px: the corpora's size, from which the tiny model has learnt
_SHOWN_SIDE = 448  # px: of a drawn face, to be looked at
_LARGEST = 1024  # px: a photo without crop is kept at this, no model sees more
_UPLOADED = 10  # MB: the largest message that a Jupyter server takes as it is set up, and it tells neither page nor kernel
_STRENGTH = 0.85  # of the AUs of a chosen expression


@dataclass(frozen=True)
class Photo:
    """A photo as it was chosen: its name, what `photos.load_image` takes, and whether the face is to be cut out."""

    name: str
    source: ImageSource
    crop: bool


@dataclass(frozen=True)
class Seen:
    """A face to ask about: what the model gets, what a person is shown, its name, and what should be known of it."""

    image: Image.Image
    shown: Image.Image
    name: str
    notice: str | None = None


def see(chosen: Face | Photo) -> Seen:
    """Draw a face, or find and cut out the one in a photo.

    Raises:
        ImageError: the photo cannot be read.
    """
    if isinstance(chosen, Face):
        image, shown = (Image.fromarray(render(chosen, side).image) for side in (_DRAWN_SIDE, _SHOWN_SIDE))
        return Seen(image, shown, DRAWN)
    try:
        found = crop_face(chosen.source) if chosen.crop else None
        image = found.image if found else load_image(chosen.source)
    except ExpVQAError as error:  # uploaded bytes have no name of their own
        raise type(error)(str(error).replace("the given bytes", chosen.name)) from error
    image.thumbnail((_LARGEST, _LARGEST))
    return Seen(image, image, chosen.name, found.notice if found else None)


class FaceChooser(w.VBox):
    """Widgets to choose a face; `intensities` holds the sliders, to be placed beside. `changed(now)` is called at every change.

    `now` is true where a new photo came, which is to be looked at whatever else is set.
    """

    def __init__(self, changed: Callable[[bool], None]) -> None:
        self._changed, self._silent = changed, False
        self._person, self._identity, self._scene = 0, Identity(), Scene()
        self._file: tuple[str, ImageSource] | None = None
        self._seen: tuple[Photo, Seen] | None = None  # the last photo, since to find a face takes time
        self.source = w.ToggleButtons(options=[DRAWN, PHOTO], style={"button_width": "109px"})
        self.person = w.Button(description="New person", layout=w.Layout(width="110px"))
        self.rest = w.Button(description="At rest", layout=w.Layout(width="110px"))
        self.expression = w.Dropdown(options=["expression …", *EMOTIONS], layout=w.Layout(width="224px"))
        self.upload = w.FileUpload(accept="image/*", description="Upload", layout=w.Layout(width="98px"))
        there = sorted(path.name for path in Path.cwd().iterdir() if path.suffix.lower() in PICTURES)
        self.path = w.Combobox(
            options=there,
            placeholder="or type a path",
            continuous_update=False,
            layout=w.Layout(width="122px"),
        )
        self.path.tooltip = "A file beside the notebook, or any path"
        self.limit = w.HTML(
            views.box("quiet", f"Jupyter silently drops uploads above {_UPLOADED} MB; give their path.")
        )
        self.crop = w.Checkbox(
            value=False,
            description="no crop: the whole picture",
            indent=False,
            layout=w.Layout(width="224px"),
        )
        row = {"width": "112px", "height": f"{views.ROW}px", "margin": "0 0 0 4px"}
        self.sliders = {au: w.FloatSlider(min=0, max=1, step=0.05, readout=False, layout=row) for au in AUS}
        self.intensities = w.VBox(
            list(self.sliders.values()), layout=w.Layout(width="122px", overflow="hidden")
        )
        self.picture = w.Image(format="png", width=views.SIDE, height=views.SIDE)
        self._drawn_tools = w.VBox([w.HBox([self.person, self.rest]), self.expression])
        self._photo_tools = w.VBox([w.HBox([self.upload, self.path]), self.limit, self.crop])
        super().__init__(
            [self.source, self._drawn_tools, self._photo_tools, self.picture], layout=w.Layout(width="228px")
        )
        self._observe()
        self._draw()

    @property
    def is_drawn(self) -> bool:
        """Whether the face is drawn, not a photo."""
        return self.source.value == DRAWN

    def chosen(self) -> Face | Photo | None:
        """What the widgets say now; None where no photo was given yet."""
        if self.is_drawn:
            return Face(
                self._identity,
                self._scene,
                {au: slider.value for au, slider in self.sliders.items() if slider.value > 0},
            )
        return Photo(*self._file, not self.crop.value) if self._file else None

    def see(self, chosen: Face | Photo) -> Seen:
        """`see`, which remembers the last photo."""
        if isinstance(chosen, Face):
            return see(chosen)
        if self._seen is None or self._seen[0] != chosen:
            self._seen = (chosen, see(chosen))
        return self._seen[1]

    def show(self, image: Image.Image | None) -> None:
        """Show a picture, or none where it could not be read."""
        self.picture.layout.visibility = "hidden" if image is None else "visible"
        if image:
            self.picture.value = views.png(image)

    def _observe(self) -> None:
        self.source.observe(self._on_change, "value")
        self.crop.observe(self._on_change, "value")
        self.upload.observe(self._on_upload, "value")
        self.path.observe(self._on_path, "value")
        for slider in self.sliders.values():
            slider.observe(self._on_change, "value")
        self.person.on_click(self._on_person)
        self.rest.on_click(lambda _: self._set_sliders({}))
        self.expression.observe(self._on_expression, "value")

    def _on_change(self, _=None) -> None:
        if not self._silent:
            self._draw()
            self._changed(False)

    def _on_upload(self, change: dict) -> None:
        if change["new"]:
            self._take(change["new"][-1]["name"], bytes(change["new"][-1]["content"]))

    def _on_path(self, change: dict) -> None:
        if text := change["new"].strip():
            self._take(Path(text).name, text)

    def _take(self, name: str, source: ImageSource) -> None:
        self._file = (name, source)
        with self._silently():
            self.source.value = PHOTO
        self._draw()
        self._changed(True)

    def _on_person(self, _) -> None:
        self._person += 1
        rng = np.random.default_rng(self._person)
        self._identity, self._scene = random_identity(rng), random_scene(rng, 0.5)
        self._on_change()

    def _on_expression(self, change: dict) -> None:
        if change["new"] in EMOTIONS:
            self._set_sliders(dict.fromkeys(EMOTIONS[change["new"]].prototype, _STRENGTH))

    def _set_sliders(self, intensities: dict[int, float]) -> None:
        with self._silently():
            for au, slider in self.sliders.items():
                slider.value = intensities.get(au, 0.0)
            if not intensities:
                self.expression.value = self.expression.options[0]
        self._on_change()

    @contextlib.contextmanager
    def _silently(self) -> Iterator[None]:
        """Set several widgets, and call `changed` for none of them."""
        self._silent = True
        try:
            yield
        finally:
            self._silent = False

    def _draw(self) -> None:
        """Show the tools that apply, and a drawn face as the sliders have it; a photo is shown once it was read."""
        for part, drawn in ((self._drawn_tools, True), (self.intensities, True), (self._photo_tools, False)):
            part.layout.display = None if drawn == self.is_drawn else "none"
        if self.is_drawn:
            self.show(see(self.chosen()).shown)
