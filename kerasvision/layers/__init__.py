"""Keras layers over `kerasvision.ops`, and layers of the old papers that Keras lacks."""

from kerasvision.layers.convolution import (
    BilinearInitializer,
    EqualizedConv2D,
    EqualizedDense,
    GroupedConv2D,
)
from kerasvision.layers.non_max_suppression import NonMaxSuppression, SoftNonMaxSuppression
from kerasvision.layers.normalization import (
    L2Normalization,
    LocalResponseNormalization,
    MinibatchStandardDeviation,
    PixelNormalization,
)
from kerasvision.layers.pooling import L2Pooling2D
from kerasvision.layers.reshaping import DepthToSpace, ReflectionPadding2D, SpaceToDepth
from kerasvision.layers.roi import (
    PositionSensitiveRoIAlign,
    PositionSensitiveRoIPooling,
    RoIAlign,
    RoIMaxPooling,
    SpatialPyramidPooling,
)
from kerasvision.layers.unpooling import (
    BedOfNailsUnpooling2D,
    MaxPoolingWithIndices2D,
    MaxUnpooling2D,
)
