"""Scenes: a detection data set that draws its own pictures, with the whole truth known.

Small 3-D models are turned, textured, lit and rasterised over procedural backgrounds, so that
box, mask, keypoints and depth of every object are exact. A class is a shape: colour, texture and
size have the same distributions for all classes.

    scene = draw_scene(seed=7)                     # arrays
    builder = Scenes(config="detection")           # a TensorFlow Datasets builder
    builder.download_and_prepare()                 # draws; nothing is downloaded
"""

import colorsys
import dataclasses
from typing import NamedTuple

import cv2
import numpy as np
import tensorflow_datasets as tfds

from kerasvision.data.solids import DISTRACTORS, KEYPOINT_NAMES, Solid, rasterise, rotation

CLASS_NAMES = tuple(KEYPOINT_NAMES)
MAX_KEYPOINTS = max(map(len, KEYPOINT_NAMES.values()))

# How hard the pictures are. A change here needs a new Scenes.VERSION: prepared files stay in use.
EMPTY_RATE = 0.05  # pictures without objects
COUNT_RATES = (0.3, 0.3, 0.22, 0.12, 0.06)  # pictures with 1, 2, ... 5 objects
BOX_AREA = (0.05, 0.58)  # of the picture, uniform in its root, before occlusion and truncation
CROWDED_BOX_AREA = 0.3  # largest box in pictures with more than two objects
MIN_VISIBLE = 0.65  # of the silhouette, after occlusion and truncation
TRUNCATED_RATE = 0.2  # objects that may leave the picture
MIN_INSIDE = 0.6  # of their height and width
OBJECT_SIDE = (0.7, 0.9)  # of a picture of one object alone, of the picture's
MIN_CONTRAST = 70.0  # mean absolute RGB difference to what is behind, aimed at
MAX_DISTRACTORS = 3  # models of no class
DISTRACTOR_AREA = (0.004, 0.03)
MAX_SCRIBBLES = 4  # lines on the background
AMBIENT = (0.3, 0.55)
MAX_SHADOW = 0.6  # darkening
BACKDROP_BLUR_SIGMA = (0.8, 3.5)  # pixels of a picture of 256: it lies out of focus
BLUR_SIGMA = (0.55, 1.1)  # the same, of everything
NOISE_SIGMA = (0.5, 8.0)  # of 255
EXPOSURE = (0.8, 1.25)
MAX_WHITE_BALANCE = 0.12
MAX_VIGNETTE = 0.4
MOONLIGHT = (0.13, 0.17, 0.28)  # what is left of the colours by night
LAMP = (1.5, 1.2, 0.75)  # the light of a lamp at the camera on the nearest surface
LAMP_SIGMA = 0.45  # of its cone, in picture heights

MATERIALS = (
    "plain", "plain", "plain", "stripes", "checks", "dots", "bricks", "wood", "marble", "clouds",
)  # fmt: skip

FOCAL_LENGTH = 2.0  # in picture widths
NEAREST = 0.5  # metres to the nearest surface
JPEG_QUALITY = 92


class Placed(NamedTuple):
    """A solid at its place in the picture."""

    label: int  # -1: distractor
    solid: Solid
    box_area: float  # of the whole silhouette, relative to the picture
    origin: np.ndarray  # (2,) int, row and column of solid.faces[0, 0] in the picture
    pixels: tuple  # rows and columns (P,) in solid.faces of what is visible in the picture


def draw_scene(seed, size=(256, 256), night=False):
    """Draws one scene; the same seed gives the same scene.

    Args:
        seed: int or sequence of ints.
        size: height H and width W of the picture.
        night: whether it is seen by night: under a bluish moon, and in the warm light of a lamp
            at the camera, which falls off with the distance and from the middle outwards.

    Returns:
        A dictionary, its n objects from near to far:
        image: (H, W, 3) uint8.
        boxes: (n, 4) float32 `rel_yxyx`, tight around the visible pixels.
        labels: (n,) int32, index in `CLASS_NAMES`.
        areas: (n,) int64, visible pixels.
        keypoints: (n, MAX_KEYPOINTS, 3) float32: row / H, column / W and visibility, in the order
            of `KEYPOINT_NAMES`; 2: visible, 1: hidden, 0: out of the picture or no such keypoint,
            with coordinates 0.
        instances: (H, W) uint8, 0: background, i + 1: object i.
        depth: (H, W) float32, metres.
        box_areas: (n,) float32, of the whole silhouette's box, relative to the picture.
    """
    rng = np.random.default_rng(seed)
    height, width = size
    placed = _place_solids(rng, size)

    grain = _noise(rng, size)
    light = np.array([rng.uniform(-1, 1), rng.uniform(-0.2, 1), rng.uniform(0.4, 1)], np.float32)
    light /= np.linalg.norm(light)
    picture, distance = _background(rng, size, grain)
    picture = cv2.GaussianBlur(picture, (0, 0), rng.uniform(*BACKDROP_BLUR_SIGMA) * width / 256)
    heights = [_paint(rng, picture, item, light, grain) for item in reversed(placed)][::-1]

    scene = {name: [] for name in ("boxes", "labels", "areas", "keypoints", "box_areas")}
    instances, depth = np.zeros(size, np.uint8), np.zeros(size, np.float32)
    focal_length, nearest = FOCAL_LENGTH * width, NEAREST
    for item, z in zip(placed, heights):
        rows, columns = item.pixels[0] + item.origin[0], item.pixels[1] + item.origin[1]
        # Each solid begins behind the one before it.
        metres = nearest * (focal_length - z) / (focal_length - z.max())
        nearest = 1.02 * metres.max()
        depth[rows, columns] = metres
        if item.label >= 0:
            box = np.array([rows.min(), columns.min(), rows.max() + 1, columns.max() + 1])
            scene["boxes"].append(box / (height, width, height, width))
            scene["labels"].append(item.label)
            scene["areas"].append(len(rows))
            scene["keypoints"].append(_keypoints(item, z, size))
            scene["box_areas"].append(item.box_area)
            instances[rows, columns] = len(scene["labels"])
    depth = np.where(depth > 0, depth, np.float32(nearest) * distance)
    if night:
        picture *= _night_light(depth)
    return {
        "image": _photograph(rng, picture),
        "boxes": np.array(scene["boxes"], np.float32).reshape(-1, 4),
        "labels": np.array(scene["labels"], np.int32),
        "areas": np.array(scene["areas"], np.int64),
        "keypoints": np.array(scene["keypoints"], np.float32).reshape(-1, MAX_KEYPOINTS, 3),
        "instances": instances,
        "depth": depth,
        "box_areas": np.array(scene["box_areas"], np.float32),
    }


def draw_object(name, specimen, turn, seed, size=(64, 64)):
    """Draws one solid in the middle of a picture, turned as one likes.

    Args:
        name: of its class.
        specimen: int: the same one has the same proportions.
        turn: rotation matrix (3, 3), as from `solids.random_turn`.
        seed: int or sequence of ints, of all else: its colours and texture, its size and place,
            the light, the background and the camera.
        size: height H and width W of the picture.

    Returns:
        (H, W, 3) uint8.
    """
    rng = np.random.default_rng(seed)
    grain = _noise(rng, size)
    light = np.array([rng.uniform(-1, 1), rng.uniform(-0.2, 1), rng.uniform(0.4, 1)], np.float32)
    light /= np.linalg.norm(light)
    picture, _ = _background(rng, size, grain)
    picture = cv2.GaussianBlur(picture, (0, 0), rng.uniform(*BACKDROP_BLUR_SIGMA) * size[1] / 256)
    # Scaled by the longer side of the silhouette's box: some are three times as long as wide.
    model = [CLASS_NAMES.index(name), specimen]
    extent = np.array(rasterise(name, np.random.default_rng(model), 1e4, turn).faces.shape) - 2
    side = rng.uniform(*OBJECT_SIDE) * min(size)
    area = np.prod(extent / extent.max() * side)
    solid = rasterise(name, np.random.default_rng(model), area, turn)
    slack = np.array(size) - solid.faces.shape
    origin = np.round(slack / 2 + rng.uniform(-1, 1, 2) * np.maximum(slack, 0) / 4).astype(int)
    places = np.stack(np.nonzero(solid.faces >= 0))
    inside = np.all((places + origin[:, None] >= 0).T & ((places.T + origin) < size), axis=1)
    pixels = tuple(places[:, inside])
    _paint(rng, picture, Placed(0, solid, area / np.prod(size), origin, pixels), light, grain)
    return _photograph(rng, picture)


def _place_solids(rng, size):
    """Chooses the solids and where they are: list of `Placed`, from near to far."""
    count = 0 if rng.random() < EMPTY_RATE else 1 + rng.choice(len(COUNT_RATES), p=COUNT_RATES)
    largest = BOX_AREA[1] if count <= 2 else CROWDED_BOX_AREA
    names = [*rng.choice(CLASS_NAMES, count)]
    names += [*rng.choice(DISTRACTORS, rng.integers(0, MAX_DISTRACTORS + 1))]
    placed = []
    free = np.ones(size, bool)
    # From near to far: what is placed takes pixels only from what comes after it.
    for name in rng.permutation(names):
        label = CLASS_NAMES.index(name) if name in CLASS_NAMES else -1
        limits = DISTRACTOR_AREA if label < 0 else (BOX_AREA[0], largest)
        box_area = rng.uniform(*np.sqrt(limits)) ** 2
        solid = rasterise(name, rng, box_area * size[0] * size[1])
        silhouette = solid.faces >= 0
        extent = np.array(silhouette.shape)
        slack = np.array(size) - extent
        outside = (1 - MIN_INSIDE) * extent * (rng.random() < TRUNCATED_RATE)
        for _ in range(8):
            lowest, highest = np.minimum(0, slack) - outside, np.maximum(0, slack) + outside
            origin = np.round(rng.uniform(lowest, highest)).astype(int)
            start, stop = np.maximum(-origin, 0), np.minimum(np.array(size) - origin, extent)
            here = (slice(start[0], stop[0]), slice(start[1], stop[1]))
            there = free[tuple(slice(*ends) for ends in zip(start + origin, stop + origin))]
            visible = silhouette[here] & there
            if np.count_nonzero(visible) >= MIN_VISIBLE * np.count_nonzero(silhouette):
                pixels = tuple(axis + first for axis, first in zip(np.nonzero(visible), start))
                placed.append(Placed(label, solid, box_area, origin, pixels))
                there[visible] = False
                break
    return placed


def _keypoints(item, z, size):
    """Keypoints (MAX_KEYPOINTS, 3) of a placed solid with depths z (P,), as in `draw_scene`."""
    relief = np.full(item.solid.faces.shape, np.inf)
    relief[item.pixels] = z
    keypoints = np.zeros((MAX_KEYPOINTS, 3))
    for index, (column, row, depth) in enumerate(item.solid.keypoints):
        place = np.array([row, column]) + item.origin
        if np.all((place >= 0) & (place < size)):
            top, left = max(int(row) - 1, 0), max(int(column) - 1, 0)
            around = relief[top : int(row) + 2, left : int(column) + 2]
            # Visible if a visible surface of the object is there and not much before it.
            seen = around.size > 0 and around.min() < depth + 0.15 * item.solid.scale
            keypoints[index] = *(place / size), 2 if seen else 1
    return keypoints


def _noise(rng, size):
    """Multi-octave value noise (H, W) float32 of mean 0.5."""
    total = rng.random((3, 3), np.float32) - 0.5
    for octave in range(1, 5):
        total = cv2.resize(total, None, fx=2, fy=2, interpolation=cv2.INTER_CUBIC)
        total += 0.65**octave * (rng.random(total.shape, np.float32) - 0.5)
    return cv2.resize(total, size[::-1], interpolation=cv2.INTER_CUBIC) + np.float32(0.5)


def _colour(rng):
    """RGB (3,) float32 of any hue."""
    hue, saturation, value = rng.random(), rng.uniform(0.05, 0.9), rng.uniform(0.3, 1)
    return 255 * np.array(colorsys.hsv_to_rgb(hue, saturation, value), np.float32)


def _material(rng, first, u, v, grain, light=1):
    """Colours of a patterned surface.

    Args:
        first: (3,) the main colour.
        u, v: float32 of any shape, coordinates on the surface in periods of the pattern.
        grain: same shape, noise of mean 0.5.
        light: same shape or one, multiplies the colours.

    Returns:
        Same shape with RGB appended, float32.
    """
    warp = rng.choice((0, 0, 0, 0.3, 1.5)).astype(np.float32)
    u, v = u + warp * grain, v + warp * grain
    kind = rng.choice(MATERIALS)
    if kind == "plain":
        weight = np.zeros_like(u)
    elif kind == "stripes":
        weight = 0.5 + rng.uniform(1, 4) * np.sin(2 * np.pi * u)
    elif kind == "checks":
        weight = 0.5 + 4 * np.sin(np.pi * u) * np.sin(np.pi * v)
    elif kind == "dots":
        weight = 8 * (rng.uniform(0.2, 0.4) - np.hypot(u - np.round(u), v - np.round(v)))
    elif kind == "bricks":
        u, v = u + 0.5 * (np.floor(2 * v) % 2), 2 * v
        weight = 12 * np.minimum(np.abs(u - np.round(u)), np.abs(v - np.round(v)) / 2)
    elif kind == "wood":
        weight = np.abs((u + 0.15 * v + 2 * grain) % 1 * 2 - 1)
    elif kind == "marble":
        weight = np.sqrt(np.abs(np.sin(np.pi * (u + 3 * grain))))
    else:
        weight = 3 * (grain - 0.35)
    change = np.float32(rng.uniform(0.1, 0.6)) * (_colour(rng) - first)
    light = light * (np.float32(rng.uniform(0.05, 0.55)) * (grain - 0.5) + 1)
    # light * (first + weight * change), as one product
    return np.stack([light, light * np.clip(weight, 0, 1)], -1) @ np.stack([first, change])


def _covering(rng, rows, columns, grain, light=1):
    """Colours (H, W, 3) of a wall or floor at rows and columns in picture heights."""
    angle, frequency = rng.uniform(0, 2 * np.pi), np.exp(rng.uniform(np.log(1.5), np.log(10)))
    cos, sin = np.float32(frequency * np.cos(angle)), np.float32(frequency * np.sin(angle))
    u, v = cos * columns + sin * rows, cos * rows - sin * columns
    return _material(rng, _colour(rng), u, v, grain, light)


def _background(rng, size, grain):
    """A picture (H, W, 3) float32 and its distance (H, W) float32, 1 where it is nearest."""
    height, width = size
    rows = np.arange(height, dtype=np.float32)[:, None] / height
    columns = np.arange(width, dtype=np.float32) / height
    slope = rng.uniform(0, 0.2, 2).astype(np.float32)
    distance = 1 + slope[0] * rows + slope[1] * columns
    kind = rng.choice(("out of focus", "wall", "wall", "floor"))
    if kind == "out of focus":
        small = np.empty((32, 32, 3), np.float32)
        small[:] = _colour(rng)
        for _ in range(rng.integers(5, 30)):
            centre, radius = rng.integers(0, 32, 2).tolist(), int(rng.integers(2, 8))
            cv2.circle(small, centre, radius, _colour(rng).tolist(), -1)
        small = cv2.GaussianBlur(small, (0, 0), rng.uniform(0.6, 2.5))
        picture = cv2.resize(small, (width, height), interpolation=cv2.INTER_CUBIC)
    else:
        picture = _covering(rng, rows, columns, grain)
    if kind == "floor":
        horizon = int(height * rng.uniform(0.3, 0.75))
        below = (np.arange(1, height - horizon + 1, dtype=np.float32) / height)[:, None]
        far, side = 0.4 / below, (columns - 0.5) * 0.4 / below
        light = np.minimum(0.5 + 1.5 * below, 1.2)
        picture[horizon:] = _covering(rng, far, side, grain[horizon:], light)
        distance[:] = 3
        distance[horizon:] = np.minimum(below[-1] / below, 3)
    for _ in range(rng.integers(0, MAX_SCRIBBLES + 1)):
        steps = rng.uniform(-0.4, 0.4, (rng.integers(2, 7), 2)) * rng.choice((0.3, 1))
        line = np.cumsum([rng.uniform(0, 1, 2), *steps], 0) * (16 * width, 16 * height)
        colour, thickness = _colour(rng).tolist(), int(rng.integers(1, 6))
        line = [np.round(line).astype(np.int32)]
        cv2.polylines(picture, line, False, colour, thickness, cv2.LINE_8, 4)
    return picture, distance


def _paint(rng, picture, item, light, grain):
    """Paints a solid and its shadow over the picture (H, W, 3) float32, in place.

    Args:
        item: `Placed`.
        light: (3,) unit vector (x right, y up, z to the viewer) towards the light.
        grain: (H, W) noise.

    Returns:
        z: (P,) float32, how far towards the viewer its visible pixels are, in pixels.
    """
    solid, (rows, columns) = item.solid, item.pixels
    place = (rows + item.origin[0], columns + item.origin[1])
    points = np.stack([columns, rows, np.ones_like(rows)], 1).astype(np.float32)
    surface = np.einsum("pi,pij->pj", points, solid.planes[solid.faces[item.pixels]])
    z, normal = surface[:, 0], surface[:, 1:]
    points[:, 2] = z = np.clip(z, -0.75 * max(solid.faces.shape), 0.75 * max(solid.faces.shape))
    normal /= np.sqrt(np.einsum("pi,pi->p", normal, normal))[:, None] + np.float32(1e-6)

    # The texture fills space: the solid is cut out of it, as out of marble or wood.
    axes = (rotation(0, rng.uniform(0, 360)) @ rotation(1, rng.uniform(0, 360)))[:2]
    axes = np.exp(rng.uniform(np.log(0.8), np.log(4))) * axes @ solid.to_model
    u, v = axes.astype(np.float32) @ points.T
    height, width = grain.shape
    speckle = grain[(40 * u).astype(np.int32) % height, (40 * v).astype(np.int32) % width]
    behind = picture[place[0][::9], place[1][::9]]
    for _ in range(6):
        first = _colour(rng)
        if np.abs(behind - first).mean() > MIN_CONTRAST:
            break

    # Lambert's diffuse reflection and Blinn's highlight; what turns away sees less of the sky.
    sky = np.float32(rng.uniform(*AMBIENT)) * (normal @ np.float32([0, 0.15, 0.3]) + 0.7)
    colour = _material(rng, first, u, v, speckle, sky + 0.85 * np.maximum(normal @ light, 0))
    halfway = light + np.float32([0, 0, 1])
    halfway /= np.linalg.norm(halfway)
    gloss = np.float32(rng.uniform(0, 160) * (rng.random() < 0.6))
    colour += (gloss * np.maximum(normal @ halfway, 0) ** rng.uniform(8, 60))[:, None]
    _cast_shadow(rng, picture, item, light)
    picture[place] = colour
    return z


def _cast_shadow(rng, picture, item, light):
    """Darkens the picture in place where the blurred shadow of what is visible falls."""
    shape = item.solid.faces.shape
    reach = int(max(shape) * rng.uniform(0.05, 0.25)) + 1
    shadow = np.zeros(np.array(shape) + 2 * reach, np.float32)
    shadow[item.pixels[0] + reach, item.pixels[1] + reach] = rng.uniform(0.1, MAX_SHADOW)
    shadow = cv2.blur(cv2.blur(shadow, (reach, reach)), (reach, reach))
    row = item.origin[0] - reach + round(float(reach * light[1]))
    column = item.origin[1] - reach - round(float(reach * light[0]))
    top, left = max(-row, 0), max(-column, 0)
    target = picture[row + top : row + len(shadow), column + left : column + shadow.shape[1]]
    if target.size:
        shadow = shadow[top : top + target.shape[0], left : left + target.shape[1]]
        target *= cv2.merge([1 - shadow] * 3)


def _night_light(depth):
    """The factors (H, W, 3) float32 of a lamp and the moon on what is at `depth` (H, W)."""
    height, width = depth.shape
    rows = (np.arange(height, dtype=np.float32)[:, None] - height / 2) / height
    columns = (np.arange(width, dtype=np.float32) - width / 2) / height
    cone = np.exp(-(rows**2 + columns**2) / (2 * LAMP_SIGMA**2))
    lamp = cone * (NEAREST / np.maximum(depth, NEAREST)) ** 2
    return np.float32(MOONLIGHT) + lamp[..., None] * np.float32(LAMP)


def _photograph(rng, picture):
    """Uneven light, lens, white balance, exposure and sensor: (H, W, 3) float32 to uint8."""
    height, width = picture.shape[:2]
    rows, columns = np.linspace(-1, 1, 16)[:, None], np.linspace(-1, 1, 16)
    slope, vignette = rng.uniform(-0.3, 0.3, 2), rng.uniform(0, MAX_VIGNETTE)
    light = 1 + slope[0] * rows + slope[1] * columns - vignette * (rows**2 + columns**2) / 2
    light *= np.exp(rng.uniform(*np.log(EXPOSURE)))
    gains = 1 + rng.uniform(-MAX_WHITE_BALANCE, MAX_WHITE_BALANCE, 3)
    light = (light[..., None] * gains).astype(np.float32)
    picture = cv2.GaussianBlur(picture, (0, 0), rng.uniform(*BLUR_SIGMA) * height / 256)
    picture *= cv2.resize(light, (width, height))
    # The difference of two even bytes: a triangular distribution with a sigma of 104.5.
    noise = np.frombuffer(rng.bytes(2 * picture.size), np.uint8).reshape(2, *picture.shape)
    noise = cv2.subtract(*noise, dtype=cv2.CV_32F)
    strength = rng.uniform(*NOISE_SIGMA) / 104.5
    return cv2.addWeighted(picture, 1, noise, strength, 0, dtype=cv2.CV_8U)


@dataclasses.dataclass(eq=False)
class ScenesConfig(tfds.core.BuilderConfig):
    """Size and number of the pictures; what differs needs a `name` of its own.

    Attributes:
        full: whether masks, keypoints and depth come along.
        night: whether each scene is drawn by night as well.
        size: height and width.
        seed: of all pictures.
        train, validation, test: numbers of pictures.
    """

    full: bool = False
    night: bool = False
    size: int = 256
    seed: int = 0
    train: int = 4000
    validation: int = 400
    test: int = 400


class Scenes(tfds.core.GeneratorBasedBuilder):
    """Drawn scenes of shaded, textured objects.

    Features: `image`, `image/id`, and `objects` with `bbox`, `label` and `area` (visible pixels).
    The config `full` adds, for the same pictures, `objects/keypoints` as in `draw_scene`, and
    `instances` (0: background, i + 1: object i), `classes` (0: background, label + 1) and `depth`
    (millimetres) of shape (H, W, 1). `day_and_night` adds `night`, the same scenes by night.
    """

    VERSION = tfds.core.Version("1.0.0")
    BUILDER_CONFIGS = [
        ScenesConfig(name="detection", description="Boxes and labels."),
        ScenesConfig(name="full", description="Masks, keypoints and depth too.", full=True),
        ScenesConfig(name="day_and_night", description="Each scene twice.", night=True),
    ]

    def _info(self):
        shape = (self.builder_config.size, self.builder_config.size)
        features = {"image": tfds.features.Image(shape=(*shape, 3), encoding_format="jpeg")}
        features["image/id"] = np.int64
        objects = {
            "bbox": tfds.features.BBoxFeature(),
            "label": tfds.features.ClassLabel(names=CLASS_NAMES),
            "area": np.int64,
        }
        if self.builder_config.full:
            objects["keypoints"] = tfds.features.Tensor(shape=(MAX_KEYPOINTS, 3), dtype=np.float32)
            for name in ("instances", "classes", "depth"):
                features[name] = tfds.features.Image(
                    shape=(*shape, 1),
                    dtype=np.uint16 if name == "depth" else np.uint8,
                    encoding_format="png",
                )
        if self.builder_config.night:
            features["night"] = tfds.features.Image(shape=(*shape, 3), encoding_format="jpeg")
        features["objects"] = tfds.features.Sequence(objects)
        return tfds.core.DatasetInfo(
            builder=self,
            description="Drawn scenes of shaded, textured objects.",
            features=tfds.features.FeaturesDict(features),
            license="Apache-2.0",
        )

    def _split_generators(self, dl_manager):
        config = self.builder_config
        counts = {"train": config.train, "validation": config.validation, "test": config.test}
        return {
            split: self._generate_examples(number, count)
            for number, (split, count) in enumerate(counts.items())
        }

    def _generate_examples(self, split_number, count):
        for index in range(count):
            yield _example(self.builder_config, split_number, index)


def _example(config, split_number, index):
    """Key and features of one picture of a split."""
    seed, size = (config.seed, split_number, index), (config.size, config.size)
    scene = draw_scene(seed, size)
    image_id = split_number * 10**8 + index
    objects = {"bbox": scene["boxes"], "label": scene["labels"], "area": scene["areas"]}
    features = {
        "image": _encode_jpeg(scene["image"]),
        "image/id": image_id,
        "objects": objects,
    }
    if config.full:
        objects["keypoints"] = scene["keypoints"]
        classes = np.append(0, scene["labels"] + 1).astype(np.uint8)[scene["instances"]]
        millimetres = np.round(1000 * scene["depth"]).astype(np.uint16)
        features["instances"] = cv2.imencode(".png", scene["instances"])[1].tobytes()
        features["classes"] = cv2.imencode(".png", classes)[1].tobytes()
        features["depth"] = cv2.imencode(".png", millimetres)[1].tobytes()
    if config.night:
        features["night"] = _encode_jpeg(draw_scene(seed, size, night=True)["image"])
    return image_id, features


def _encode_jpeg(image):
    quality = [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY]
    return cv2.imencode(".jpg", image[..., ::-1], quality)[1].tobytes()
