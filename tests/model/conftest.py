"""Four drawn faces, which most tests of the model ask about."""

import pytest


@pytest.fixture(scope="session")
def images(faces) -> list[str]:
    return faces["image"].iloc[[0, 20, 70, 100]].tolist()
