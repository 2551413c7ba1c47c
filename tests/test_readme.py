"""The layers of the README do what it says."""

import pathlib
import re

import keras
import numpy as np

README = pathlib.Path(__file__).parents[1] / "README.md"


def snippets():
    """The Python blocks of the README's section on layers."""
    section = README.read_text(encoding="utf-8").split("\n### Layers and operators\n")[1]
    return re.findall(r"```python\n(.*?)```", section.split("\n## ")[0], flags=re.DOTALL)


def test_layers():
    names = {}
    for snippet in snippets():
        exec(snippet, names)

    # Columns 2 to 6 of a map whose values are the numbers of its columns: a bin a column.
    crops = keras.ops.convert_to_numpy(names["crops"])
    np.testing.assert_allclose(crops[0, 0, :, :, 0], [[2.0, 3.0, 4.0, 5.0]] * 4, atol=1e-6)
    # The second box overlaps the first, of the same class, by 0.8.
    np.testing.assert_array_equal(names["detections"]["labels"], [[1, 0, -1]])
    pooled = keras.layers.MaxPooling2D(2)(names["features"])
    np.testing.assert_array_equal(names["maxima"], pooled)
    # Of each window of the unpooled map the sum is its one value.
    sums = 4.0 * keras.layers.AveragePooling2D(2)(names["unpooled"])
    np.testing.assert_allclose(sums, pooled, rtol=1e-6)
    assert np.count_nonzero(names["unpooled"]) == np.size(pooled)
