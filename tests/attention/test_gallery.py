"""What notebook 08 shows of a run, of rendered faces and of pictures."""

import numpy as np
import pytest

from expvqa_lib.attention import examples, face_au_grid, video


@pytest.fixture(params=["drawn", "pictures"])
def any_run(request, run):
    run.is_rendered, drawn = request.param == "drawn", run.faces_of
    if not run.is_rendered:
        run.faces_of = lambda dataset: drawn(dataset).drop(columns=["face"])
    return run


def test_examples_explain_each_type_of_question_and_measure_drawn_faces(any_run):
    table = examples(any_run)
    assert set(table["type"]) == {"Q1", "Q2", "Q3"} and table["question"].ne("").all()
    assert all(heat.shape == (48, 48) and heat.max() == 1 for heat in table["heat"])
    assert table["answer"].str.startswith("Says").all()
    if any_run.is_rendered:
        assert table["ratio"].gt(0).all() and table["area"].between(0, 100).all()
        np.testing.assert_allclose(table["ratio"], table["relevance_inside"] / table["area"], rtol=1e-4)
        assert all(region.any() for region in table["region"])
    else:
        assert table[["relevance_inside", "area", "ratio"]].isna().all(axis=None)
        assert table["region"].isna().all()


def test_the_grid_has_one_face_a_person_and_outlines_of_present_aus(any_run):
    images, aus, heat, p_yes, labels, regions = face_au_grid(any_run)
    assert len(images) == 3 and len(aus) == 8 and aus == sorted(aus)
    assert heat.shape == (3, 8, 48, 48) and p_yes.shape == labels.shape == (3, 8)
    outlined = [[region is not None for region in row] for row in regions]
    np.testing.assert_array_equal(outlined, (labels == 1) & any_run.is_rendered)


def test_a_video_has_truth_and_p_yes_of_every_frame(any_run):
    found = video(any_run)
    assert found.truth.index.equals(found.p_yes.index) and list(found.truth) == list(found.p_yes)
    assert set(found.film) <= set(found.truth.index) and len(found.film) > 1
    assert found.p_yes.min(axis=None) >= 0 and found.truth.max(axis=None) <= 1
    if any_run.is_rendered:
        assert found.truth.shape == (41, 6) and found.truth_name == "true intensity"
    else:
        assert set(np.unique(found.truth)) == {0, 1} and found.truth_name == "true label"


def test_a_person_with_a_single_frame_has_a_film_of_it(run):
    run.is_rendered, drawn = False, run.faces_of
    run.faces_of = lambda dataset: drawn(dataset).drop(columns=["face"]).drop_duplicates("subject")
    found = video(run)
    assert len(found.film) == len(found.truth) == len(found.p_yes) == 1
