"""Feature pyramid networks (Lin et al. 2017, "Feature Pyramid Networks for Object Detection")."""

from keras import layers


def feature_pyramid(taps, filters=256, coarser=None):
    """Maps of equal depth that mean as much at stride 4 or 8 as at stride 32.

    Section 3: each map of the backbone goes through a 1x1 convolution; from the coarsest down, the
    next coarser result is doubled in size (nearest neighbour) and added; a 3x3 convolution takes
    off the aliasing. With the maps C3 to C5 of ResNet-50 and two coarser ones from P5 there are
    3,868,672 parameters at 256 filters.

    Args:
        taps: dict of "stride8", "stride16", … to maps of a backbone (B, H/8, W/8, D), each
            half as large as the one before, sides rounded up: `feature_taps`, or a part of them.
        filters: depth of all maps.
        coarser: what comes behind the coarsest map P: None, nothing; "pool", one map, every
            second pixel of P (Faster R-CNN, section 4.1); "P" or "C", two maps by convolutions
            of stride 2, the first one's input being P or the backbone's map that P was made of
            (RetinaNet, Lin et al. 2017, section 4: C; later implementations: P).

    Returns:
        dict of "stride8", "stride16", … to maps (B, H/8, W/8, filters), the coarser ones included.

    Raises:
        ValueError: a side that isn't known, strides that don't double, or another `coarser`.
    """
    if coarser not in (None, "pool", "P", "C"):
        raise ValueError(f"coarser must be None, 'pool', 'P' or 'C'; received: {coarser!r}")
    strides = sorted(int(name.removeprefix("stride")) for name in taps)
    if any(2 * fine != coarse for fine, coarse in zip(strides, strides[1:])):
        raise ValueError(f"taps must have strides that double; received: {', '.join(taps)}")
    if any(None in taps[f"stride{stride}"].shape[1:3] for stride in strides):
        raise ValueError("taps must have a height and a width; build the backbone with both")

    def convolution(x, kernel_size, name, stride=1):
        if stride == 2:
            # "same" would pad one pixel less above and to the left.
            x = layers.ZeroPadding2D(1, name=f"{name}_pad")(x)
        return layers.Conv2D(
            filters,
            kernel_size,
            stride,
            padding="same" if stride == 1 else "valid",
            kernel_initializer="he_uniform" if kernel_size == 1 else "glorot_uniform",
            name=name,
        )(x)

    coarsest = strides[-1]
    merged = {}
    for stride in reversed(strides):
        x = convolution(taps[f"stride{stride}"], 1, f"fpn_lateral_stride{stride}")
        if stride != coarsest:
            above = layers.UpSampling2D(2, name=f"fpn_up_stride{stride}")(merged[2 * stride])
            extra = [above.shape[axis] - x.shape[axis] for axis in (1, 2)]
            if any(extra):  # one row or column too many, of a map with an odd side
                above = layers.Cropping2D(
                    ((0, extra[0]), (0, extra[1])), name=f"fpn_crop_stride{stride}"
                )(above)
            x = layers.Add(name=f"fpn_add_stride{stride}")([x, above])
        merged[stride] = x
    maps = {
        f"stride{stride}": convolution(merged[stride], 3, f"fpn_stride{stride}")
        for stride in strides
    }
    last = maps[f"stride{coarsest}"]
    if coarser == "pool":
        maps[f"stride{2 * coarsest}"] = layers.MaxPooling2D(1, 2, name="fpn_pool")(last)
    elif coarser is not None:
        x = last if coarser == "P" else taps[f"stride{coarsest}"]
        x = convolution(x, 3, f"fpn_stride{2 * coarsest}", stride=2)
        maps[f"stride{2 * coarsest}"] = x
        x = layers.ReLU(name=f"fpn_stride{2 * coarsest}_relu")(x)
        maps[f"stride{4 * coarsest}"] = convolution(x, 3, f"fpn_stride{4 * coarsest}", stride=2)
    return maps
