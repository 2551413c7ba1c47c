import types

import cv2
import numpy as np
import pytest

from kerasvision.segmentation import evaluation

SEGMENTER = types.SimpleNamespace(
    class_names=["dark", "bright"],
    image_shape=(4, 6, 3),
    output_size=(4, 6),
    # The probability of "bright" is the brightness.
    predict_on_batch=lambda images: np.stack(
        [1 - images[..., 0] / 255, images[..., 0] / 255], axis=-1
    ).astype("float32"),
)


def pictures(count):
    """Pictures of one grey each, from black to white, of which the bright half is labelled so."""

    def examples():
        for index in range(count):
            grey = round(255 * index / (count - 1))
            image = np.full((8, 12, 3), grey, "uint8")
            yield f"{index}.png", image, np.full((8, 12), int(grey > 127), "int32")

    colors = np.array([(0, 0, 0), (255, 255, 255)], "uint8")
    return types.SimpleNamespace(num_examples=count, examples=examples, colors=colors)


@pytest.mark.parametrize("count, shown", [(3, [0, 1, 2]), (11, [0, 2, 4, 6, 8, 10])])
def test_samples_are_spread_over_the_data_set(count, shown, tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr(evaluation, "draw_samples", lambda samples, *others: drawn.extend(samples))
    result = evaluation.evaluate(SEGMENTER, pictures(count), tmp_path)
    assert result["mean_iou"] == 1.0
    greys = [image[0, 0, 0] for image, _, _ in drawn]
    assert greys == [round(255 * index / (count - 1)) for index in shown]
    assert cv2.imread(str(tmp_path / "confusion.png")) is not None
