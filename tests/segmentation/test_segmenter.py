import keras
import numpy as np
import pytest
from keras import layers

from kerasvision.segmentation import Segmenter, load_segmenter, unet


def segmenter_of_logits(size=(4, 6), num_classes=3, crop=0, **settings):
    """A segmenter whose logits are its images' channels, scaled by its only weight."""
    images = keras.Input((*size, 3), name="images")
    x = layers.Cropping2D(crop)(images) if crop else images
    scale = layers.Dense(num_classes, use_bias=False, kernel_initializer="identity")
    return Segmenter(keras.Model(images, scale(x)), **settings)


def reference_loss(logits, labels, class_weights, pixel_weights):
    total = weight_sum = 0.0
    for place in np.ndindex(labels.shape):
        if labels[place] < 0:
            continue
        scores = np.exp(logits[place] - logits[place].max())
        weight = class_weights[labels[place]] * pixel_weights[place]
        total -= weight * np.log(scores[labels[place]] / scores.sum())
        weight_sum += weight
    return total / weight_sum


def random_batch(size=(4, 6)):
    rng = np.random.default_rng(0)
    return {
        "images": rng.uniform(0, 3, (2, *size, 3)).astype("float32"),
        "segmentation_masks": rng.integers(-1, 3, (2, *size)).astype("int32"),
        "pixel_weights": rng.uniform(0, 4, (2, *size)).astype("float32"),
    }


@pytest.mark.parametrize("crop", [0, 1])
@pytest.mark.parametrize("class_weights", [None, [0.5, 2.0, 0.0]])
@pytest.mark.parametrize("pixel_weights", [False, True])
def test_loss_is_that_of_a_loop_over_pixels(crop, class_weights, pixel_weights):
    model = segmenter_of_logits(crop=crop, class_weights=class_weights)
    batch = random_batch()
    weights = batch.pop("pixel_weights")
    if pixel_weights:
        batch["pixel_weights"] = weights
    else:
        weights = np.ones_like(weights)
    middle = (slice(None), slice(crop, 4 - crop), slice(crop, 6 - crop))
    expected = reference_loss(
        batch["images"][middle],
        batch["segmentation_masks"][middle],
        class_weights or [1.0, 1.0, 1.0],
        weights[middle],
    )
    loss = model.compute_loss(x=batch, y_pred=model(batch))
    assert float(loss) == pytest.approx(expected, rel=1e-5)


def test_void_pixels_alone_have_no_loss_and_unknown_classes_no_number():
    model = segmenter_of_logits()
    batch = random_batch()
    del batch["pixel_weights"]
    batch["segmentation_masks"][:] = -1
    assert float(model.compute_loss(x=batch, y_pred=model(batch))) == 0.0
    batch["segmentation_masks"][0, 0, 0] = 3
    assert np.isnan(float(model.compute_loss(x=batch, y_pred=model(batch))))


def test_void_pixels_get_no_gradient():
    model = segmenter_of_logits()
    batch = random_batch()
    labels = batch["segmentation_masks"]
    nowhere = {**batch, "images": np.where((labels < 0)[..., None], 1e3, batch["images"])}
    losses = [float(model.compute_loss(x=b, y_pred=model(b))) for b in (batch, nowhere)]
    assert losses[0] == losses[1]


def test_accuracy_leaves_void_pixels_out():
    model = segmenter_of_logits()
    model.compile("sgd")
    batch = random_batch()
    labels = batch["segmentation_masks"]
    found = model.evaluate(batch, verbose=0, return_dict=True)["accuracy"]
    right = batch["images"].argmax(axis=-1)[labels >= 0] == labels[labels >= 0]
    assert found == pytest.approx(right.mean(), abs=1e-6)


def test_predictions_are_probabilities_and_the_file_gives_the_same(tmp_path):
    model = unet(3, (16, 16, 3), ["a", "b", "c"], [1.0, 2.0, 3.0], filters=2, padding="same")
    images = np.random.default_rng(1).integers(0, 256, (2, 16, 16, 3)).astype("uint8")
    found = model.predict(images, verbose=0)
    np.testing.assert_allclose(found.sum(axis=-1), 1, rtol=1e-5)
    logits = np.asarray(model(images.astype("float32")))
    np.testing.assert_array_equal(found.argmax(axis=-1), logits.argmax(axis=-1))
    model.save(tmp_path / "best.keras")
    loaded = load_segmenter(tmp_path)
    np.testing.assert_allclose(loaded.predict_on_batch(images), found, atol=1e-6)
    assert loaded.class_names == ["a", "b", "c"] and loaded.class_weights == [1.0, 2.0, 3.0]
    assert loaded.image_shape == (16, 16, 3) and loaded.output_size == (16, 16)


def test_errors(tmp_path):
    images = keras.Input((8, 8, 3))
    with pytest.raises(ValueError, match=r"logits \(B, h, w, C\).*received: \(None, 3\)"):
        Segmenter(keras.Model(images, layers.GlobalAveragePooling2D()(images)))
    with pytest.raises(ValueError, match=r"received: \(None, 7, 8, 3\)"):
        Segmenter(keras.Model(images, layers.Cropping2D(((0, 1), (0, 0)))(images)))
    with pytest.raises(ValueError, match="class_names must be 3, .* received: 2"):
        segmenter_of_logits(class_names=["a", "b"])
    with pytest.raises(ValueError, match="class_weights must be 3, .* received: 1"):
        segmenter_of_logits(class_weights=[1.0])
    keras.Model(images, images).save(tmp_path / "best.keras")
    with pytest.raises(ValueError, match="must hold a Segmenter; received: Functional"):
        load_segmenter(tmp_path)
