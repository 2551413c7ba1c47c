import numpy as np

from kerasvision.ops.masks import paste_mask, paste_masks


def reference_paste(mask, box, image_size, threshold):
    """Pixel by pixel."""
    pasted = np.zeros(image_size, bool)
    for i in range(image_size[0]):
        for j in range(image_size[1]):
            y, x = (i + 0.5) / image_size[0], (j + 0.5) / image_size[1]
            if not (box[0] < y < box[2] and box[1] < x < box[3]):
                continue
            v = (y - box[0]) / (box[2] - box[0]) * mask.shape[0] - 0.5
            u = (x - box[1]) / (box[3] - box[1]) * mask.shape[1] - 0.5
            v, u = np.clip(v, 0, mask.shape[0] - 1), np.clip(u, 0, mask.shape[1] - 1)
            r, c = min(int(v), mask.shape[0] - 2), min(int(u), mask.shape[1] - 2)
            upper = mask[r, c] * (1 - u + c) + mask[r, c + 1] * (u - c)
            lower = mask[r + 1, c] * (1 - u + c) + mask[r + 1, c + 1] * (u - c)
            pasted[i, j] = upper * (1 - v + r) + lower * (v - r) >= threshold
    return pasted


def test_pasted_masks_equal_reference():
    rng = np.random.default_rng(0)
    masks = rng.uniform(size=(5, 6, 8))
    boxes = np.array(
        [
            [0.1, 0.2, 0.8, 0.9],
            [-0.2, 0.3, 0.5, 1.3],  # beyond the picture
            [0.38, 0.4, 0.4, 0.41],  # between the centres of pixels
            [0.5, 0.5, 0.5, 0.9],  # degenerate
            [0.0, 0.0, 1.0, 1.0],
        ]
    )
    found = paste_masks(masks.astype("f4"), boxes, (23, 31), threshold=0.4)
    assert found.shape == (5, 23, 31) and found.dtype == bool
    for k in range(5):
        expected = reference_paste(masks[k].astype("f4").astype("f8"), boxes[k], (23, 31), 0.4)
        np.testing.assert_array_equal(found[k], expected)
    assert not found[2:4].any()


def test_pasted_masks_by_hand():
    # A full mask gives the pixels whose centres are in the box: rows 2 to 5, columns 1 to 6.
    (found,) = paste_masks(np.ones((1, 28, 28)), np.array([[0.2, 0.14, 0.6, 0.66]]), (10, 10))
    expected = np.zeros((10, 10), bool)
    expected[2:6, 1:7] = True
    np.testing.assert_array_equal(found, expected)
    # One cell a pixel: the mask itself.
    mask = np.random.default_rng(0).uniform(size=(1, 28, 28))
    (found,) = paste_masks(mask, np.array([[0.25, 0.25, 0.75, 0.75]]), (56, 56))
    np.testing.assert_array_equal(found[14:42, 14:42], mask[0] >= 0.5)
    assert found.sum() == (mask >= 0.5).sum()
    # Padding gives nothing.
    assert not paste_masks(np.zeros((1, 28, 28)), np.zeros((1, 4)), (10, 10)).any()


def test_masks_of_one_cell_and_windows():
    # One cell has the same value everywhere; the window is what the box covers.
    for value, expected in [(0.5, True), (0.49, False)]:
        (rows, columns), covered = paste_mask(
            np.array([[value]]), np.array([-0.5, 0.25, 0.31, 2.0]), (10, 8)
        )
        assert (rows, columns) == (slice(0, 3), slice(2, 8))
        assert covered.shape == (3, 6) and (covered == expected).all()
    window, covered = paste_mask(np.ones((28, 28)), np.zeros(4), (10, 8))
    assert window == (slice(0, 0), slice(0, 0)) and covered.shape == (0, 0)


def test_no_masks():
    assert paste_masks(np.zeros((0, 28, 28)), np.zeros((0, 4)), (10, 8)).shape == (0, 10, 8)
