import numpy as np
import pytest
import tensorflow as tf

from kerasvision.data import augmentation
from kerasvision.data.augmentation import SSDAugmentation

NO_GEOMETRY = {"zoom_out_probability": 0.0, "crop": False, "flip_probability": 0.0}
GEOMETRY = {
    "zoom_out": {**NO_GEOMETRY, "zoom_out_probability": 1.0},
    "crop": {**NO_GEOMETRY, "crop": True},
    "horizontal_flip": {**NO_GEOMETRY, "flip_probability": 1.0},
    "vertical_flip": {**NO_GEOMETRY, "vertical_flip_probability": 1.0},
    "all": {"vertical_flip_probability": 0.5},
}


def compiled(augment):
    """The augmentation as `tf.data` runs it: a graph that knows no sizes."""
    signature = (
        tf.TensorSpec((None, None, 3), tf.uint8),
        tf.TensorSpec((None, 4), tf.float32),
        tf.TensorSpec((None,), tf.int32),
        tf.TensorSpec((2,), tf.int64),
    )

    @tf.function(input_signature=signature)
    def run(image, boxes, labels, seed):
        example = {"images": image, "bounding_boxes": {"boxes": boxes, "labels": labels}}
        example = augment(example, seed)
        return example["images"], *example["bounding_boxes"].values()

    def call(image, boxes, labels, seed):
        boxes = np.asarray(boxes, "float32").reshape(-1, 4)
        return [x.numpy() for x in run(image, boxes, np.asarray(labels, "int32"), [7, seed])]

    return call


def random_boxes(rng, count):
    return np.sort(rng.random((count, 2, 2), "float32"), axis=1).reshape(count, 4)


def iou_with(window, boxes):
    top_left = np.maximum(window[:2], boxes[:, :2])
    bottom_right = np.minimum(window[2:], boxes[:, 2:])
    intersection = np.prod(np.maximum(bottom_right - top_left, 0), axis=1)
    areas = np.prod(boxes[:, 2:] - boxes[:, :2], axis=1)
    return intersection / (np.prod(window[2:] - window[:2]) + areas - intersection)


def painted_rectangles(rng, height, width):
    """A black picture with a red, a green and a blue rectangle, added where they overlap."""
    image = np.zeros((height, width, 3), "uint8")
    boxes = np.zeros((4, 4), "float32")
    for channel in range(3):
        ymin, xmin = rng.integers(0, height - 4), rng.integers(0, width - 4)
        ymax, xmax = rng.integers(ymin + 4, height + 1), rng.integers(xmin + 4, width + 1)
        image[ymin:ymax, xmin:xmax, channel] = 255
        boxes[channel] = ymin / height, xmin / width, ymax / height, xmax / width
    return image, boxes, np.array([0, 1, 2, -1], "int32")


def painted_extent(channel):
    """(ymin, xmin, ymax, xmax) in pixels of what is brighter than half the largest value."""
    low, high = channel.min(), channel.max()
    bright = channel >= (int(low) + int(high)) / 2
    rows, columns = np.flatnonzero(bright.any(1)), np.flatnonzero(bright.any(0))
    return np.array([rows[0], columns[0], rows[-1] + 1, columns[-1] + 1])


@pytest.mark.parametrize("output_shape", [(96, 96, 3), (64, 120, 3)])
@pytest.mark.parametrize("name", GEOMETRY)
def test_boxes_follow_painted_rectangles(name, output_shape):
    augment = SSDAugmentation(output_shape, photometric=False, fill=(0, 0, 0), **GEOMETRY[name])
    run = compiled(augment)
    rng = np.random.default_rng(0)
    compared = 0
    for seed in range(60):
        height, width = rng.integers(20, 250, size=2)
        image, boxes, labels = painted_rectangles(rng, height, width)
        image, boxes, labels = run(image, boxes, labels, seed)
        for box, label in zip(boxes, labels):
            if label >= 0:
                expected = painted_extent(image[..., label])
                found = box * np.tile(output_shape[:2], 2)
                np.testing.assert_allclose(found, expected, atol=1.0, err_msg=f"seed {seed}")
                compared += 1
    assert compared >= 60  # a picture keeps at least one object


def test_boxes_follow_a_painted_rectangle_through_everything():
    run = compiled(SSDAugmentation((100, 100, 3), vertical_flip_probability=0.5, fill=(0, 0, 0)))
    image = np.zeros((150, 200, 3), "uint8")
    image[30:90, 50:120] = 255
    for seed in range(100):
        output, boxes, labels = run(image, [[0.2, 0.25, 0.6, 0.6]], [0], seed)
        assert labels[0] == 0
        np.testing.assert_allclose(boxes[0] * 100, painted_extent(output[..., 0]), atol=1.0)


@pytest.mark.parametrize(
    "box, label, expected_box, expected_label",
    [
        ((0.25, 0.5, 0.5, 0.75), 3, (0.625, 0.5, 0.75, 1.0), 3),
        ((0.0, 0.0, 1.0, 0.75), 3, (0.5, 0.0, 1.0, 1.0), 3),  # clipped
        ((0.0, 0.7, 1.0, 0.9), 3, (0, 0, 0, 0), -1),  # centre outside
        ((0.25, 0.5, 0.5, 0.75), -1, (0, 0, 0, 0), -1),  # padding
    ],
)
def test_boxes_in_window_golden(box, label, expected_box, expected_label):
    window = np.array([-1.0, 0.25, 1.0, 0.75], "float32")
    boxes, labels = np.array([box], "float32"), np.array([label], "int32")
    boxes, labels = augmentation.boxes_in_window(boxes, labels, window)
    np.testing.assert_allclose(boxes, [expected_box])
    np.testing.assert_array_equal(labels, [expected_label])


def axis_weights(source, target):
    """(target, source) weights of a mean over the pixel's area, and of an antialiased triangle."""
    step = source / target
    area, triangle = np.zeros((target, source)), np.zeros((target, source))
    for t in range(target):
        for s in range(source):
            area[t, s] = max(0.0, min(s + 1, (t + 1) * step) - max(s, t * step)) / step
            distance = abs(s + 0.5 - (t + 0.5) * step) / max(1.0, step)
            triangle[t, s] = max(0.0, 1.0 - distance)
    return area, triangle / triangle.sum(1, keepdims=True)


@pytest.mark.parametrize(
    "window, rows, columns, top_left, size",
    [
        # window, picture rows and columns, where they go in the (24, 18) output
        ((0.0, 0.0, 1.0, 1.0), (0, 40), (0, 30), (0, 0), (24, 18)),
        ((0.25, 0.5, 0.5, 1.0), (10, 20), (15, 30), (0, 0), (24, 18)),
        ((0.26, 0.51, 0.49, 0.99), (10, 20), (15, 30), (0, 0), (24, 18)),
        ((-0.5, -1.0, 1.5, 2.0), (0, 40), (0, 30), (6, 6), (12, 6)),
        ((-0.25, 0.5, 0.75, 1.5), (0, 30), (15, 30), (6, 0), (18, 9)),
        ((0.5, 0.5, 0.5, 0.5), (20, 21), (15, 16), (0, 0), (24, 18)),
    ],
)
def test_resize_window_equals_a_slow_reference(window, rows, columns, top_left, size):
    image = np.random.default_rng(0).integers(0, 256, size=(40, 30, 3), dtype="uint8")
    resize = tf.function(lambda image, window: augmentation.resize_window(image, window, (24, 18)))
    part, offset, shown = resize(image, np.array(window, "float32"))

    source = image[slice(*rows), slice(*columns)].astype("float64")
    vertical = axis_weights(source.shape[0], size[0])
    horizontal = axis_weights(source.shape[1], size[1])
    kernel = 0 if source.shape[0] >= size[0] and source.shape[1] >= size[1] else 1
    expected = np.einsum("ts,swc,vw->tvc", vertical[kernel], source, horizontal[kernel])
    np.testing.assert_allclose(part, expected, atol=0.01)
    np.testing.assert_array_equal(offset, top_left)

    step = (rows[1] - rows[0]) / size[0], (columns[1] - columns[0]) / size[1]
    ymin, xmin = rows[0] - top_left[0] * step[0], columns[0] - top_left[1] * step[1]
    ymax, xmax = ymin + 24 * step[0], xmin + 18 * step[1]
    np.testing.assert_allclose(shown, [ymin / 40, xmin / 30, ymax / 40, xmax / 30], atol=1e-6)


def test_pixels_lie_where_the_shown_window_says():
    # A ramp: the value of a pixel is its own position, so interpolation keeps it away from edges.
    height, width = 200, 160
    ramp = np.zeros((height, width, 2), "float32")
    ramp[..., 0], ramp[..., 1] = np.mgrid[:height, :width] + 0.5
    rng = np.random.default_rng(0)
    resize = tf.function(lambda image, window: augmentation.resize_window(image, window, (50, 70)))
    for _ in range(20):
        centre, half = rng.uniform(0.3, 0.7, size=2), rng.uniform(0.1, 1.0, size=2)
        window = np.concatenate([centre - half, centre + half]).astype("float32")
        part, offset, shown = (x.numpy() for x in resize(ramp, window))
        np.testing.assert_allclose(shown, window, atol=2 / 50 * half.max() + 1 / 160)
        for axis, (source, target) in enumerate(zip((height, width), (50, 70))):
            positions = (offset[axis] + np.arange(part.shape[axis]) + 0.5) / target
            expected = (shown[axis] + positions * (shown[axis + 2] - shown[axis])) * source
            found = part[..., axis].mean(axis=1 - axis)
            margin = 1 + len(expected) // 8
            np.testing.assert_allclose(found[margin:-margin], expected[margin:-margin], atol=0.15)


def test_nearest_keeps_the_values_of_a_mask():
    mask = np.random.default_rng(0).choice(np.array([0, 3, 17], "int32"), size=(20, 20, 1))
    window = np.array([-0.5, 0.1, 1.0, 0.8], "float32")
    part, offset, _ = augmentation.resize_window(mask, window, (33, 33), "nearest")
    canvas = augmentation.paste(part, offset, (33, 33, 1), 255)
    assert canvas.dtype == tf.int32
    assert set(np.unique(canvas)) == {0, 3, 17, 255}
    np.testing.assert_array_equal(canvas[:11], 255)
    np.testing.assert_array_equal(canvas[11:], part)


def test_paste_golden():
    part = np.array([[[200, 10, 0]], [[255, 0, 7]]], "uint8")
    canvas = augmentation.paste(part, np.array([1, 2]), (4, 3, 3), (124, 117, 104)).numpy()
    np.testing.assert_array_equal(canvas[1:3, 2], part[:, 0])
    canvas[1:3, 2] = (124, 117, 104)
    np.testing.assert_array_equal(canvas, np.broadcast_to((124, 117, 104), (4, 3, 3)))


@pytest.mark.parametrize("min_iou", [0.0, 0.1, 0.3, 0.5, 0.7, 0.9])
def test_crops_overlap_an_object_enough(min_iou):
    sample = tf.function(
        lambda boxes, labels, window, seed: augmentation.sample_crop(
            boxes, labels, window, seed, (min_iou,)
        )
    )
    rng = np.random.default_rng(0)
    cropped = 0
    for seed in range(60):
        boxes = random_boxes(rng, 5)
        boxes[0] = 0.05, 0.05, 0.95, 0.95
        labels = np.array([0, 0, 0, 0, -1], "int32")
        boxes[4] = 0, 0, 1, 1  # padding must not count
        zoom = rng.uniform(1.0, 1.2)
        window = np.array([1 - zoom, 0, 1, zoom], "float32")
        crop = sample(boxes, labels, window, tf.constant([3, seed])).numpy()
        if (crop == window).all():
            continue
        cropped += 1
        relative = (crop - np.tile(window[:2], 2)) / zoom
        assert (relative >= -1e-6).all() and (relative <= 1 + 1e-6).all()
        height, width = relative[2:] - relative[:2]
        assert 0.3 - 1e-5 <= np.sqrt(height * width) <= 1 + 1e-6
        assert 0.5 - 1e-5 <= width / height <= 2 + 1e-5
        centres = (boxes[:4, :2] + boxes[:4, 2:]) / 2
        inside = ((crop[:2] <= centres) & (centres <= crop[2:])).all(1)
        assert inside.any()
        assert iou_with(crop, boxes[:4])[inside].max() >= min_iou - 1e-5
    assert cropped >= (60 if min_iou == 0 else 1)


def test_options_are_equally_likely_among_those_that_succeed():
    # IoU 0.9 is impossible for the small box, so half of the crops are the whole picture.
    boxes, labels = tf.constant([[0.45, 0.45, 0.55, 0.55]]), tf.constant([0])
    window = tf.constant([0.0, 0.0, 1.0, 1.0])
    seeds = tf.stack([tf.zeros(1000, tf.int64), tf.range(1000, dtype=tf.int64)], axis=1)
    crops = tf.function(
        lambda: tf.map_fn(
            lambda seed: augmentation.sample_crop(boxes, labels, window, seed, (None, 0.9, 0.0)),
            seeds,
            fn_output_signature=tf.float32,
        )
    )().numpy()
    whole = (crops == window.numpy()).all(1).mean()
    assert abs(whole - 0.5) < 0.06


def test_pictures_with_objects_keep_one_and_others_are_shown_whole():
    run = compiled(SSDAugmentation((32, 32, 3)))
    image = np.full((60, 80, 3), 200, "uint8")
    rng = np.random.default_rng(0)
    for seed in range(60):
        boxes = random_boxes(rng, 2) * np.float32(0.999)
        boxes[1] = boxes[1, [0, 1, 0, 1]]  # without area
        assert (run(image, boxes, [0, 1], seed)[2] >= 0).any()
    for seed in range(20):
        window = augmentation.sample_zoom_out([7, seed])
        padding = tf.zeros((2, 4)), tf.constant([-1, -1])
        crop = augmentation.sample_crop(*padding, window, [7, seed])
        np.testing.assert_array_equal(crop, window)


def test_zoom_out_statistics():
    seeds = tf.stack([tf.zeros(2000, tf.int64), tf.range(2000, dtype=tf.int64)], axis=1)
    windows = tf.function(
        lambda: tf.map_fn(augmentation.sample_zoom_out, seeds, fn_output_signature=tf.float32)
    )().numpy()
    zoom = windows[:, 2:] - windows[:, :2]
    np.testing.assert_allclose(zoom[:, 0], zoom[:, 1], atol=1e-5)
    zoom = zoom[:, 0]
    assert zoom.min() > 1 - 1e-5 and 3.9 < zoom.max() <= 4 + 1e-5
    zoomed = zoom > 1 + 1e-5
    assert abs(zoomed.mean() - 0.5) < 0.04
    assert abs(zoom[zoomed].mean() - 2.5) < 0.1
    place = -windows[zoomed, :2] / (zoom[zoomed, None] - 1)
    np.testing.assert_allclose(place.mean(0), 0.5, atol=0.05)
    assert windows[:, :2].max() <= 0 and windows[:, 2:].min() >= 1 - 1e-6


def test_flip_statistics():
    geometry = {**NO_GEOMETRY, "flip_probability": 0.5, "vertical_flip_probability": 0.25}
    run = compiled(SSDAugmentation((2, 2, 3), photometric=False, **geometry))
    image = np.arange(12, dtype="uint8").reshape(2, 2, 3)
    counts = np.zeros((2, 2))
    for seed in range(600):
        output, boxes, _ = run(image, [[0.0, 0.0, 0.25, 0.5]], [0], seed)
        vertical, horizontal = int(output[0, 0, 0] >= 6), int(output[0, 0, 0] % 6 >= 3)
        expected = image[::-1] if vertical else image
        expected = expected[:, ::-1] if horizontal else expected
        np.testing.assert_array_equal(output, expected)
        rows, columns = [(0, 0.25), (0.75, 1)][vertical], [(0, 0.5), (0.5, 1)][horizontal]
        np.testing.assert_array_equal(boxes[0], [rows[0], columns[0], rows[1], columns[1]])
        counts[vertical, horizontal] += 1
    np.testing.assert_allclose(counts / 600, [[0.375, 0.375], [0.125, 0.125]], atol=0.06)


def test_the_seed_decides_every_bit_even_in_a_parallel_map():
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, size=(90, 120, 3), dtype="uint8")
    boxes, labels = random_boxes(rng, 4), np.array([0, 1, 2, -1], "int32")
    example = {"images": image, "bounding_boxes": {"boxes": boxes, "labels": labels}, "index": 5}
    augment = SSDAugmentation((64, 48, 3))

    def pictures(parallel_calls):
        dataset = tf.data.Dataset.range(48).map(
            lambda index: augment(example, tf.stack([tf.constant(3, tf.int64), index])),
            num_parallel_calls=parallel_calls,
        )
        assert dataset.element_spec["images"] == tf.TensorSpec((64, 48, 3), tf.uint8)
        assert dataset.element_spec["bounding_boxes"]["boxes"] == tf.TensorSpec((4, 4), tf.float32)
        return list(dataset.as_numpy_iterator())

    once, again = pictures(1), pictures(8)
    for first, second in zip(once, again):
        assert first["index"] == second["index"] == 5
        tf.nest.map_structure(np.testing.assert_array_equal, first, second)
    assert len({example["images"].tobytes() for example in once}) == 48


def test_photometric_distortion_is_the_identity_when_nothing_is_drawn():
    image = np.random.default_rng(0).integers(0, 256, size=(9, 11, 3), dtype="uint8")
    output = augmentation.photometric_distortion(image, [0, 0], probability=0.0)
    np.testing.assert_array_equal(output, image)


def test_photometric_distortion_stays_in_range_and_changes_about_half():
    image = np.random.default_rng(0).integers(0, 256, size=(16, 16, 3), dtype="uint8")
    image[0, :3] = [[0, 0, 0], [255, 255, 255], [255, 0, 0]]
    distort = tf.function(augmentation.photometric_distortion)
    outputs = np.stack([distort(image, tf.constant([1, seed])) for seed in range(400)])
    assert np.isfinite(outputs).all() and outputs.min() >= 0 and outputs.max() <= 255
    # Black changes by positive brightness only; all four changes are left out 1 time in 16.
    assert abs((outputs[:, 0, 0, 0] > 0).mean() - 0.25) < 0.07
    assert abs((outputs == image).all((1, 2, 3)).mean() - 1 / 16) < 0.04


def distorted_pixel(pixel, seed, **changes):
    """The pixel after all four changes, of which those not given change nothing."""
    nothing = {"max_brightness": 0.0, "contrast": (1, 1), "saturation": (1, 1), "max_hue": 0.0}
    arguments = {"probability": 1.0, **nothing, **changes}
    image = np.array([[pixel]], "uint8")
    return augmentation.photometric_distortion(image, [0, seed], **arguments).numpy()[0, 0]


def test_brightness_and_contrast_golden():
    pixel = (200, 100, 10)
    for seed in range(20):
        output = distorted_pixel(pixel, seed, contrast=(0.5, 0.5))
        np.testing.assert_allclose(output, [100, 50, 5], atol=1e-3)
        output = distorted_pixel(pixel, seed, contrast=(1.5, 1.5))
        np.testing.assert_allclose(output, [255, 150, 15], atol=1e-3)
        output = distorted_pixel(pixel, seed, max_brightness=32.0)
        change = output[1] - 100
        assert abs(change) <= 32
        np.testing.assert_allclose(output, np.maximum(pixel + change, 0), atol=1e-3)


def test_contrast_comes_before_or_after_saturation():
    # First, it clips red to 255 and the saturation is halved of (255, 150, 150): green 202.5.
    # Last, (200, 150, 150) becomes (255, 225, 225).
    changes = {"contrast": (1.5, 1.5), "saturation": (0.5, 0.5)}
    green = [distorted_pixel((200, 100, 100), seed, **changes)[1] for seed in range(100)]
    first, last = np.isclose(green, 202.5, atol=1e-2), np.isclose(green, 225, atol=1e-2)
    assert (first | last).all() and 30 < first.sum() < 70


def test_hue_turns_by_at_most_the_given_angle():
    # Turned by 18 of 60 degrees towards yellow, red has green 0.3 * 255; towards magenta, blue.
    turned = np.stack([distorted_pixel((255, 0, 0), seed, max_hue=18.0) for seed in range(100)])
    np.testing.assert_allclose(turned[:, 0], 255, atol=1e-3)
    assert (turned[:, 1:].max(0) > 65).all() and turned[:, 1:].max() <= 0.3 * 255 + 1e-3


def test_channels_are_swapped_on_demand():
    swap = {"channel_swap_probability": 1.0}
    outputs = np.round([distorted_pixel((1, 2, 3), seed, **swap) for seed in range(60)], 3)
    np.testing.assert_array_equal(np.sort(outputs, axis=1), np.tile([1, 2, 3], (60, 1)))
    assert len(np.unique(outputs, axis=0)) == 6


@pytest.mark.parametrize("factor", [0.0, 0.5, 1.0, 1.5, 10.0])
def test_adjust_saturation_equals_tensorflow(factor):
    image = np.random.default_rng(0).uniform(0, 255, size=(20, 20, 3)).astype("float32")
    image[0, :3] = [[0, 0, 0], [255, 255, 255], [255, 0, 0]]
    expected = tf.image.adjust_saturation(image, factor)
    np.testing.assert_allclose(augmentation.adjust_saturation(image, factor), expected, atol=0.01)


def test_the_fill_colour_is_not_distorted():
    geometry = {"crop": False, "zoom_out_probability": 1.0}
    run = compiled(SSDAugmentation((40, 40, 3), **geometry))
    run_plain = compiled(SSDAugmentation((40, 40, 3), photometric=False, **geometry))
    image, whole = np.full((30, 30, 3), 230, "uint8"), [[0.0, 0.0, 1.0, 1.0]]
    for seed in range(20):
        output, boxes, _ = run(image, whole, [0], seed)
        ymin, xmin, ymax, xmax = np.round(boxes[0] * 40).astype(int)
        outside = np.ones((40, 40), bool)
        outside[ymin:ymax, xmin:xmax] = False
        assert (output[outside] == (124, 117, 104)).all()
        np.testing.assert_array_equal(boxes, run_plain(image, whole, [0], seed)[1])


def test_any_size_and_any_boxes():
    run = compiled(SSDAugmentation((30, 50, 3), vertical_flip_probability=0.5))
    rng = np.random.default_rng(0)
    # Whole picture, touching each border, without area, and almost without.
    boxes = np.array(
        [[0, 0, 1, 1], [0, 0, 0, 0], [1, 1, 1, 1], [0.2, 0, 0.8, 1e-7], [1 - 1e-6, 0, 1, 1]]
    )
    all_labels = ([0, 1, 2, 3, 4], [-1, -1, 2, -1, -1], [-1, -1, -1, -1, -1], [0], [-1], [])
    for size in [(1, 1), (1, 4000), (4000, 1), (2, 3), (37, 300), (4000, 3000)]:
        image = rng.integers(0, 256, size=(*size, 3), dtype="uint8")
        for labels in all_labels:
            for seed in range(4 if size == (4000, 3000) else 20):
                output, new_boxes, new_labels = run(image, boxes[: len(labels)], labels, seed)
                assert output.shape == (30, 50, 3) and output.dtype == np.uint8
                assert new_boxes.shape == (len(labels), 4)
                assert (new_boxes >= 0).all() and (new_boxes <= 1).all()  # and so not NaN
                assert (new_boxes[:, :2] <= new_boxes[:, 2:]).all()
                assert ((new_labels == labels) | (new_labels == -1)).all()
                np.testing.assert_array_equal(new_boxes[new_labels < 0], 0)
                assert (new_labels >= 0).any() == (np.array(labels) >= 0).any()


def test_without_randomness_the_picture_is_only_resized():
    augment = SSDAugmentation((10, 10, 3), photometric=False, **NO_GEOMETRY)
    image = np.random.default_rng(0).integers(0, 256, size=(10, 10, 3), dtype="uint8")
    boxes = np.array([[0.1, 0.2, 0.3, 0.4]], "float32")
    output, new_boxes, labels = compiled(augment)(image, boxes, [4], 0)
    np.testing.assert_array_equal(output, image)
    np.testing.assert_array_equal(new_boxes, boxes)
    np.testing.assert_array_equal(labels, [4])


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"image_shape": (300, 300)}, r"image_shape .*received: \(300, 300\)"),
        ({"image_shape": (300, 300, 1)}, "image_shape"),
        ({"flip_probability": 1.5}, "flip_probability must be within .*received: 1.5"),
        ({"max_zoom_out": 0.5}, "max_zoom_out must be at least 1; received: 0.5"),
        ({"min_crop_scale": 0.0}, "min_crop_scale"),
        ({"fill": (1, 2, 300)}, "fill"),
    ],
)
def test_wrong_arguments_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        SSDAugmentation(**{"image_shape": (300, 300, 3), **arguments})
