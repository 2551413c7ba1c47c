import numpy as np
import pytest

from kerasvision.data.pictures import as_input


@pytest.mark.parametrize(
    "size, max_side, expected",
    [
        ((40, 80), 0, (40, 80)),
        ((40, 80), 80, (40, 80)),
        ((40, 80), 20, (10, 20)),
        ((4000, 3), 100, (100, 1)),
        ((1, 1), 5, (1, 1)),
    ],
)
def test_size_of_inputs(size, max_side, expected):
    found = as_input(np.full((*size, 3), 7, "uint8"), max_side)
    assert found.shape == (*expected, 3) and found.dtype == np.float32
    np.testing.assert_array_equal(found, 7)


def test_inputs_are_means_of_what_they_cover():
    picture = np.random.default_rng(0).integers(0, 256, (6, 8, 3), "uint8")
    blocks = picture.reshape(3, 2, 4, 2, 3).mean((1, 3))
    np.testing.assert_allclose(as_input(picture, 4), blocks, atol=0.51)
    np.testing.assert_allclose(as_input(picture, 0, 1)[..., 0], picture.mean(-1), rtol=1e-5)
