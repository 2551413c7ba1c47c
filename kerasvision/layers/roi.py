"""Pooling of regions of interest, as layers.

Features keep their dtype and rois are used in float32, also under mixed precision: coordinates
in half precision would be off by cells.
"""

import keras

from kerasvision.ops import roi, roi_pooling


@keras.saving.register_keras_serializable("kerasvision")
class RoIAlign(keras.layers.Layer):
    """The average of bilinear samples in each bin of each RoI.

    He et al. 2017 (Mask R-CNN), section 3; on a pyramid with the levels of Lin et al. 2017
    (Feature Pyramid Networks), equation 1.

    Args:
        output_size: height and width of the bins' grid: a number or a pair (h, w).
        sampling_ratio: samples along each side of a bin; None: as many as it has cells.
        aligned: False for the first RoIAlign, which is half a cell off.
        max_sampling_ratio: the most samples along a side of a bin if sampling_ratio is None.
        image_size: height and width of the picture in pixels, for pyramids.
        min_level, max_level: of the pyramid.
        canonical_size: side of the square in pixels that belongs to canonical_level.
        canonical_level: an integer.

    Call with features, a map (B, H, W, C) or, as a list or as a dict with keys "P2", "P3", ...,
    those of a pyramid, and rois (B, R, 4), relative corner form; returns (B, R, h, w, C). See
    `kerasvision.ops.roi.roi_align` and `multilevel_roi_align`.

    Raises:
        ValueError: a setting out of range; a pyramid without image_size, or of other levels.
    """

    def __init__(
        self,
        output_size,
        sampling_ratio=2,
        aligned=True,
        max_sampling_ratio=16,
        image_size=None,
        min_level=2,
        max_level=5,
        canonical_size=224,
        canonical_level=4,
        **kwargs,
    ):
        super().__init__(**{**kwargs, "autocast": False})
        roi.check_size(output_size)
        roi.check_sampling(sampling_ratio, max_sampling_ratio)
        self.output_size = output_size
        self.sampling_ratio = sampling_ratio
        self.aligned = aligned
        self.max_sampling_ratio = max_sampling_ratio
        self.image_size = image_size
        self.min_level = min_level
        self.max_level = max_level
        self.canonical_size = canonical_size
        self.canonical_level = canonical_level

    def call(self, features, rois):
        sampling = {
            "sampling_ratio": self.sampling_ratio,
            "aligned": self.aligned,
            "max_sampling_ratio": self.max_sampling_ratio,
        }
        if not isinstance(features, (list, tuple, dict)):
            return roi.roi_align(features, rois, self.output_size, **sampling)
        return roi.multilevel_roi_align(
            features,
            rois,
            self.output_size,
            self.image_size,
            min_level=self.min_level,
            max_level=self.max_level,
            canonical_size=self.canonical_size,
            canonical_level=self.canonical_level,
            **sampling,
        )

    def compute_output_spec(self, features, rois):
        if isinstance(features, (list, tuple, dict)):
            features = roi.pyramid_maps(features, self.min_level, self.max_level)[0]
        shape = (*rois.shape[:2], *roi.check_size(self.output_size), features.shape[-1])
        return keras.KerasTensor(shape, features.dtype)

    def get_config(self):
        return {
            **super().get_config(),
            "output_size": self.output_size,
            "sampling_ratio": self.sampling_ratio,
            "aligned": self.aligned,
            "max_sampling_ratio": self.max_sampling_ratio,
            "image_size": self.image_size,
            "min_level": self.min_level,
            "max_level": self.max_level,
            "canonical_size": self.canonical_size,
            "canonical_level": self.canonical_level,
        }


@keras.saving.register_keras_serializable("kerasvision")
class RoIMaxPooling(keras.layers.Layer):
    """The maximum in each bin of each RoI: Girshick 2015 (Fast R-CNN), section 2.1.

    Args:
        output_size: height and width of the bins' grid: a number or a pair (h, w).

    Call with features (B, H, W, C) and rois (B, R, 4), relative corner form; returns
    (B, R, h, w, C). See `kerasvision.ops.roi_pooling.roi_max_pooling`.

    Raises:
        ValueError: an output size that isn't positive.
    """

    def __init__(self, output_size, **kwargs):
        super().__init__(**{**kwargs, "autocast": False})
        roi.check_size(output_size)
        self.output_size = output_size

    def call(self, features, rois):
        return roi_pooling.roi_max_pooling(features, rois, self.output_size)

    def compute_output_spec(self, features, rois):
        shape = (*rois.shape[:2], *roi.check_size(self.output_size), features.shape[-1])
        return keras.KerasTensor(shape, features.dtype)

    def get_config(self):
        return {**super().get_config(), "output_size": self.output_size}


@keras.saving.register_keras_serializable("kerasvision")
class PositionSensitiveRoIPooling(keras.layers.Layer):
    """The average in each bin of each RoI, of channels of its own: Dai et al. 2016 (R-FCN).

    Args:
        output_size: height and width of the bins' grid: a number or a pair (h, w).

    Call with features (B, H, W, C * h * w), class c of bin (i, j) in channel
    (c * h + i) * w + j, and rois (B, R, 4), relative corner form; returns (B, R, h, w, C). See
    `kerasvision.ops.roi_pooling.position_sensitive_roi_pooling`.

    Raises:
        ValueError: an output size that isn't positive; channels that aren't a multiple of
            h * w.
    """

    def __init__(self, output_size, **kwargs):
        super().__init__(**{**kwargs, "autocast": False})
        roi.check_size(output_size)
        self.output_size = output_size

    def call(self, features, rois):
        return roi_pooling.position_sensitive_roi_pooling(features, rois, self.output_size)

    def compute_output_spec(self, features, rois):
        return _position_sensitive_spec(features, rois, self.output_size)

    def get_config(self):
        return {**super().get_config(), "output_size": self.output_size}


@keras.saving.register_keras_serializable("kerasvision")
class PositionSensitiveRoIAlign(keras.layers.Layer):
    """The average of bilinear samples in each bin of each RoI, of channels of its own.

    Dai et al. 2016 (R-FCN), with the sampling of He et al. 2017 (Mask R-CNN).

    Args:
        output_size: height and width of the bins' grid: a number or a pair (h, w).
        sampling_ratio: samples along each side of a bin; None: as many as it has cells.
        max_sampling_ratio: the most samples along a side of a bin if sampling_ratio is None.

    Call with features (B, H, W, C * h * w), class c of bin (i, j) in channel
    (c * h + i) * w + j, and rois (B, R, 4), relative corner form; returns (B, R, h, w, C). See
    `kerasvision.ops.roi.position_sensitive_roi_align`.

    Raises:
        ValueError: a setting out of range; channels that aren't a multiple of h * w.
    """

    def __init__(self, output_size, sampling_ratio=2, max_sampling_ratio=16, **kwargs):
        super().__init__(**{**kwargs, "autocast": False})
        roi.check_size(output_size)
        roi.check_sampling(sampling_ratio, max_sampling_ratio)
        self.output_size = output_size
        self.sampling_ratio = sampling_ratio
        self.max_sampling_ratio = max_sampling_ratio

    def call(self, features, rois):
        return roi.position_sensitive_roi_align(
            features, rois, self.output_size, self.sampling_ratio, self.max_sampling_ratio
        )

    def compute_output_spec(self, features, rois):
        return _position_sensitive_spec(features, rois, self.output_size)

    def get_config(self):
        return {
            **super().get_config(),
            "output_size": self.output_size,
            "sampling_ratio": self.sampling_ratio,
            "max_sampling_ratio": self.max_sampling_ratio,
        }


@keras.saving.register_keras_serializable("kerasvision")
class SpatialPyramidPooling(keras.layers.Layer):
    """Maxima in ever coarser grids, a vector of fixed length: He et al. 2014 (SPP-net).

    Args:
        levels: bins along each side of each grid; M is the sum of their squares.

    Call with features (B, H, W, C), and optionally rois (B, R, 4), relative corner form;
    returns (B, M * C) for the whole map, (B, R, M * C) for windows. See
    `kerasvision.ops.roi_pooling.spatial_pyramid_pooling`.

    Raises:
        ValueError: levels that aren't positive integers.
    """

    def __init__(self, levels=(4, 2, 1), **kwargs):
        super().__init__(**{**kwargs, "autocast": False})
        roi_pooling.check_levels(levels)
        self.levels = levels

    def call(self, features, rois=None):
        return roi_pooling.spatial_pyramid_pooling(features, self.levels, rois)

    def compute_output_spec(self, features, rois=None):
        length = sum(bins**2 for bins in self.levels) * features.shape[-1]
        leading = features.shape[:1] if rois is None else rois.shape[:2]
        return keras.KerasTensor((*leading, length), features.dtype)

    def get_config(self):
        return {**super().get_config(), "levels": self.levels}


def _position_sensitive_spec(features, rois, output_size):
    size = roi.check_size(output_size)
    shape = (*rois.shape[:2], *size, roi.num_classes(features.shape[-1], *size))
    return keras.KerasTensor(shape, features.dtype)
