"""LeNet-5 (LeCun et al. 1998)."""

import keras
import numpy as np
from keras import layers, ops

from kerasvision.backbones.inputs import image_input
from kerasvision.backbones.weights import assign, read_h5

# Table I of the paper: the maps of S2 that each of the 16 maps of C3 sees.
C3_TABLE = [
    [0, 1, 2],
    [1, 2, 3],
    [2, 3, 4],
    [3, 4, 5],
    [0, 4, 5],
    [0, 1, 5],
    [0, 1, 2, 3],
    [1, 2, 3, 4],
    [2, 3, 4, 5],
    [0, 3, 4, 5],
    [0, 1, 4, 5],
    [0, 1, 2, 5],
    [0, 1, 3, 4],
    [1, 2, 4, 5],
    [0, 2, 3, 5],
    [0, 1, 2, 3, 4, 5],
]

# The digits of figure 3, each 7 pixels wide and 12 high: what F6 shall draw for its class.
DIGITS = [
    ".#####. ...##.. .#####. ####### .#####. .#####. ..####. ####### .#####. .#####.",
    "....... ..###.. ....... .....## ....... ....... .##.... .....## ##...## ##..###",
    "..###.. .####.. .#####. ....##. ....... ####### ##..... .....## ##...## ##...##",
    ".##.##. ...##.. ##...## ...##.. .##..## ##..... ##..... ....##. ##...## ##...##",
    "##...## ...##.. #....## ..####. .##..## ##..... ######. ...##.. .#####. ##..###",
    "##...## ...##.. ....##. .....## ###..## .####.. ###..## ...##.. ##...## .######",
    "##...## ...##.. ..###.. .....## ##...## ..####. ##...## ..##... ##...## .....##",
    "##...## ...##.. .##.... .....## ##...## .....## ##...## ..##... ##...## .....##",
    ".##.##. ...##.. ##..... ##...## ##..### ##...## ###..## ..##... ##...## ....##.",
    "..###.. .###### ####### .#####. .###### .#####. .#####. ..##... .#####. .####..",
    "....... ....... ....... ....... .....## ....... ....... ....... ....... .......",
    "....... ....... ....... ....... .....## ....... ....... ....... ....... .......",
]


def lenet5(
    image_shape=(32, 32, 3),
    num_classes=10,
    include_top=True,
    weights=None,
    connections="table",
    output=None,
    classifier_activation="softmax",
):
    """LeNet-5: 60,000 trainable parameters and 840 fixed ones; 61,706 in its dense variant.

    LeCun et al. 1998, section II.B and figure 2: C1, S2, C3, S4, C5 and F6 with 156, 12, 1,516,
    32, 48,120 and 10,164 parameters, all squashed by `scaled_tanh`. The output layer has a
    radial basis function a class: the squared distance of F6's 84 values from a drawing of the
    digit. Their negatives are the logits. Softmax cross-entropy of them is equation 9, the
    paper's maximum a posteriori criterion, but for the term of the rubbish class: the right
    distance is to be small, and the others large.

    Pictures go in with values 0 to 255, colours become grey, and 0 is mapped to -0.1 and 255 to
    1.175, the paper's background and foreground. Ink is bright here, as in MNIST.

    Args:
        image_shape: (height, width, 3), or 1 for grey pictures; any size from 32 pixels. Without
            the classifier a side may be None. F6 has more weights at sizes where C5 has more
            than one cell.
        num_classes: of the classifier.
        include_top: False: without F6 and the output layer.
        weights: None, or the path of an `.h5` file that this network was saved to.
        connections: "table", the paper's, where each map of C3 sees three to six maps of S2, and
            subsampling has a trainable coefficient and bias a map; or "dense", as most people
            build it: C3 sees all maps, subsampling averages.
        output: "rbf", the ten drawings; "dense", a trainable layer of `num_classes` units; None:
            "rbf" if the connections are "table" and there are ten classes, else "dense".
        classifier_activation: of the output layer; None: logits.

    Returns:
        A functional `keras.Model`; output (B, num_classes), or without the classifier C5, (B, 1,
        1, 120) at 32 pixels. Its attribute `feature_taps` holds the last tensor of strides
        "stride1", "stride2" and "stride4": C1, C3 and C5.

    Raises:
        ValueError: an argument out of range, or a weight file that isn't of this network.
    """
    if connections not in ("table", "dense"):
        raise ValueError(f"connections must be 'table' or 'dense'; received: {connections}")
    if output not in ("rbf", "dense", None):
        raise ValueError(f"output must be 'rbf', 'dense' or None; received: {output}")
    if output == "rbf" and num_classes != 10:
        raise ValueError(
            "output='rbf' is for the ten digits, pass output='dense'; "
            f"received: num_classes={num_classes}"
        )
    if output is None:
        output = "rbf" if connections == "table" and num_classes == 10 else "dense"

    def convolution(x, filters, name):
        fan_in = 5 * 5 * x.shape[-1]
        return layers.Conv2D(
            filters, 5, activation=scaled_tanh, kernel_initializer=_uniform(fan_in), name=name
        )(x)

    def subsampling(x, name):
        if connections == "dense":
            return layers.AveragePooling2D(2, name=name)(x)
        # Trained is the coefficient of the average, four times that of the sum of four cells.
        x = layers.AveragePooling2D(2, name=f"{name}_average")(x)
        return layers.DepthwiseConv2D(
            1, activation=scaled_tanh, depthwise_initializer=_uniform(1), name=name
        )(x)

    images = image_input(image_shape, min_side=32, any_size=not include_top)
    x = ops.image.rgb_to_grayscale(images) if images.shape[-1] == 3 else images
    x = layers.Rescaling(1.275 / 255, -0.1, dtype="float32", name="normalize")(x)
    taps = {}
    taps["stride1"] = x = convolution(x, 6, "C1")
    x = subsampling(x, "S2")
    if connections == "table":
        x = ConnectionTableConv2D(C3_TABLE, 5, activation=scaled_tanh, name="C3")(x)
    else:
        x = convolution(x, 16, "C3")
    taps["stride2"] = x
    x = subsampling(x, "S4")
    taps["stride4"] = x = convolution(x, 120, "C5")
    if include_top:
        x = layers.Flatten(name="flatten")(x)
        initializer = _uniform(x.shape[-1])
        x = layers.Dense(84, activation=scaled_tanh, kernel_initializer=initializer, name="F6")(x)
        settings = {"activation": classifier_activation, "dtype": "float32", "name": "predictions"}
        if output == "rbf":
            x = RadialBasisFunctions(digit_codes(), **settings)(x)
        else:
            x = layers.Dense(num_classes, kernel_initializer=_uniform(84), **settings)(x)
    model = keras.Model(images, x, name="lenet5")
    model.feature_taps = taps
    if weights is not None:
        assign(model, read_h5(weights), weights)
    return model


@keras.saving.register_keras_serializable("kerasvision")
def scaled_tanh(x):
    """1.7159 tanh(2/3 x), the squashing function: 1 of 1, -1 of -1, where it bends most.

    LeCun et al. 1998, equation 6 and appendix A.
    """
    return 1.7159 * ops.tanh(2 / 3 * x)


def digit_codes():
    """(10, 84): the drawings of the digits row by row, 1 for ink and -1 for paper."""
    glyphs = np.array([[list(glyph) for glyph in row.split()] for row in DIGITS])
    return np.where(glyphs.transpose(1, 0, 2).reshape(10, 84) == "#", 1.0, -1.0)


@keras.saving.register_keras_serializable("kerasvision")
class ConnectionTableConv2D(layers.Layer):
    """Convolution whose every output map sees only the input maps that a table names.

    LeCun et al. 1998, table I. A connection that isn't in the table has no weights: there are
    kernel_size^2 for each in it, and a bias for each output map.

    Args:
        table: for each output map the list of the input maps that it sees.
        kernel_size: side of the square kernel.
        activation: as of `keras.layers.Conv2D`.

    Input (B, height, width, input maps), output (B, height - kernel_size + 1, width -
    kernel_size + 1, len(table)).

    Raises:
        ValueError: the table names a map that the input hasn't.
    """

    def __init__(self, table, kernel_size, activation=None, **kwargs):
        super().__init__(**kwargs)
        self.table = [list(maps) for maps in table]
        self.kernel_size = kernel_size
        self.activation = keras.activations.get(activation)

    def build(self, input_shape):
        input_maps, output_maps = input_shape[-1], len(self.table)
        if not all(0 <= i < input_maps for maps in self.table for i in maps):
            raise ValueError(
                f"table must name input maps 0 to {input_maps - 1}; received: {self.table}"
            )
        connections = [(i, output) for output, maps in enumerate(self.table) for i in maps]
        # Puts each connection's weights in their place of an ordinary kernel, zeros elsewhere.
        self.placement = np.zeros((len(connections), input_maps * output_maps), "float32")
        for connection, (i, output) in enumerate(connections):
            self.placement[connection, i * output_maps + output] = 1.0
        # As of `_uniform`: an output map has the fan-in of its own connections.
        fan_in = [self.kernel_size**2 * len(self.table[output]) for _, output in connections]
        limits = 2.4 / np.array(fan_in, "float32")
        self.kernel = self.add_weight(
            name="kernel",
            shape=(self.kernel_size, self.kernel_size, len(connections)),
            initializer=lambda shape, dtype: keras.random.uniform(shape, -limits, limits, dtype),
        )
        self.bias = self.add_weight(name="bias", shape=(output_maps,), initializer="zeros")

    def call(self, inputs):
        kernel = ops.matmul(self.kernel, ops.cast(self.placement, self.kernel.dtype))
        sides = (self.kernel_size, self.kernel_size)
        kernel = ops.reshape(kernel, (*sides, inputs.shape[-1], len(self.table)))
        x = ops.conv(inputs, ops.cast(kernel, inputs.dtype), padding="valid")
        return self.activation(x + self.bias)

    def compute_output_shape(self, input_shape):
        batch, *sides, _ = input_shape
        sides = [None if side is None else side - self.kernel_size + 1 for side in sides]
        return (batch, *sides, len(self.table))

    def get_config(self):
        return {
            **super().get_config(),
            "table": self.table,
            "kernel_size": self.kernel_size,
            "activation": keras.activations.serialize(self.activation),
        }


@keras.saving.register_keras_serializable("kerasvision")
class RadialBasisFunctions(layers.Layer):
    """Negative squared distances of the input from fixed centres.

    LeCun et al. 1998, equation 7. The centres are weights, but aren't trained.

    Args:
        centers: (units, features).
        activation: of the negative distances; None: none.

    Input (B, features), output (B, units).
    """

    def __init__(self, centers, activation=None, **kwargs):
        super().__init__(**kwargs)
        self.center_values = np.asarray(centers, "float32")
        self.activation = keras.activations.get(activation)

    def build(self, input_shape):
        self.centers = self.add_weight(
            name="centers",
            shape=self.center_values.shape,
            initializer=lambda shape, dtype: ops.convert_to_tensor(self.center_values, dtype),
            trainable=False,
        )

    def call(self, inputs):
        distances = ops.sum(ops.square(inputs[:, None, :] - self.centers), axis=-1)
        return self.activation(-distances)

    def compute_output_shape(self, input_shape):
        return (input_shape[0], len(self.center_values))

    def get_config(self):
        return {
            **super().get_config(),
            "centers": self.center_values.tolist(),
            "activation": keras.activations.serialize(self.activation),
        }


def _uniform(fan_in):
    """Appendix A: uniform in +-2.4 / fan-in, which spares the squashing function its ends."""
    return keras.initializers.RandomUniform(-2.4 / fan_in, 2.4 / fan_in)
