"""Scenes: pictures of shaded objects that the data set draws itself, with the whole truth known.

Eight kinds of objects, told apart by their shape alone: colour, texture, size, pose and light have
the same distribution for all. They stand in cluttered scenes, hide each other, reach out of the
picture, and are seen through blur, noise and wrong exposure. About one picture in twenty has no
object. Of each object its box, mask, keypoints and depth are known.

    picture = draw_scene(seed=7)                      # arrays
    builder = Scenes(config="detection")              # a TensorFlow Datasets builder
    builder.download_and_prepare()                    # draws; nothing is downloaded
"""

import concurrent.futures
import itertools

import cv2
import numpy as np
import tensorflow_datasets as tfds

# How hard it is.
OBJECT_AREA = (0.045, 0.55)  # of an object's whole box, as part of the picture
MIN_VISIBLE_AREA = 0.04  # of the box of what is visible
MIN_VISIBLE = 0.7  # of an object's silhouette
MAX_OBJECTS = 4
EMPTY = 0.05  # part of the pictures without an object
MAX_ROTATION = 18.0  # degrees
BACKDROP_BLUR = (1.0, 4.0)  # sigma in pixels of a 256-pixel picture
MAX_BLUR = 1.1  # sigma in pixels of a 256-pixel picture
MAX_NOISE = 9.0  # sigma of 255
MIN_CONTRAST = 110.0  # distance of an object's colour from what is behind it, of 441

BACKDROP_DEPTH = 6.0  # metres; objects stand between 1 and 4 metres


def _ellipse(cx, cy, rx, ry, start=0.0, end=360.0):
    angle = np.radians(np.linspace(start, end, 33))
    return np.stack([cx + rx * np.cos(angle), cy + ry * np.sin(angle)], axis=1)


def _box(x0, y0, x1, y1):
    return np.array([(x0, y0), (x1, y0), (x1, y1), (x0, y1)], float)


def _star():
    angle = np.radians(np.arange(10) * 36.0 - 90.0)
    radius = np.where(np.arange(10) % 2 == 0, 1.0, 0.42)
    return np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1)


def _heart():
    t = np.radians(np.arange(0, 360, 8))
    y = 13 * np.cos(t) - 5 * np.cos(2 * t) - 2 * np.cos(3 * t) - np.cos(4 * t)
    return np.stack([np.sin(t) ** 3, -y / 16 - 0.1], axis=1)


# Each object is a list of parts, drawn one over the other and each bulging by itself; a part is
# a list of contours (x to the right, y down, about -1 to 1), of which the inner ones are holes.
# Its keypoints have names and lie on the object.
OBJECTS = {
    "bottle": (
        [
            [_box(-0.36, -0.15, 0.36, 1.0)],
            [np.array([(-0.36, -0.12), (-0.14, -0.5), (0.14, -0.5), (0.36, -0.12)])],
            [_box(-0.14, -0.85, 0.14, -0.45)],
            [_box(-0.19, -1.0, 0.19, -0.84)],
        ],
        {"cap": (0, -0.92), "shoulder": (0, -0.3), "base_left": (-0.3, 0.94), "base_right": (0.3, 0.94)},
    ),
    "fish": (
        [
            [np.array([(0.45, 0), (1.0, -0.5), (0.86, 0), (1.0, 0.5)])],
            [np.array([(-0.2, -0.3), (0.1, -0.72), (0.35, -0.22)])],
            [_ellipse(-0.2, 0, 0.8, 0.44)],
        ],
        {"nose": (-0.95, 0), "dorsal_fin": (0.08, -0.6), "tail_upper": (0.94, -0.4), "tail_lower": (0.94, 0.4)},
    ),
    "heart": (
        [[_heart()]],
        {"tip": (0, 0.92), "cleft": (0, -0.38), "left": (-0.8, -0.35), "right": (0.8, -0.35)},
    ),
    "key": (
        [
            [_ellipse(-0.6, 0, 0.4, 0.4), _ellipse(-0.6, 0, 0.2, 0.2)],
            [_box(-0.25, -0.1, 1.0, 0.1)],
            [_box(0.5, 0.05, 0.65, 0.38)],
            [_box(0.82, 0.05, 1.0, 0.44)],
        ],
        {"bow": (-0.9, 0), "neck": (-0.15, 0), "tip": (0.95, 0), "bit": (0.9, 0.38)},
    ),
    "mug": (
        [
            [_ellipse(0.5, 0.05, 0.5, 0.48), _ellipse(0.5, 0.05, 0.3, 0.28)],
            [np.array([(-0.85, -0.7), (0.5, -0.7), (0.42, 0.85), (-0.77, 0.85)])],
            [_ellipse(-0.175, -0.7, 0.675, 0.2), _ellipse(-0.175, -0.7, 0.55, 0.12)],
        ],
        {"rim_left": (-0.8, -0.68), "rim_right": (0.44, -0.68), "base": (-0.17, 0.8), "handle": (0.9, 0.05)},
    ),
    "mushroom": (
        [
            [np.array([(-0.22, 0.0), (0.22, 0.0), (0.34, 1.0), (-0.34, 1.0)])],
            [np.concatenate([_ellipse(0, 0.05, 1.0, 0.9, 180, 360), _ellipse(0, 0.05, 1.0, 0.25, 0, 180)])],
        ],
        {"top": (0, -0.78), "brim_left": (-0.93, 0.03), "brim_right": (0.93, 0.03), "foot": (0, 0.93)},
    ),
    "star": (
        [[_star()]],
        {"top": (0, -0.9), "left": (-0.86, -0.28), "right": (0.86, -0.28), "center": (0, 0)},
    ),
    "tree": (
        [
            [_box(-0.13, 0.5, 0.13, 1.0)],
            [np.array([(0, -0.3), (0.85, 0.65), (-0.85, 0.65)])],
            [np.array([(0, -0.65), (0.66, 0.22), (-0.66, 0.22)])],
            [np.array([(0, -1.0), (0.46, -0.25), (-0.46, -0.25)])],
        ],
        {"top": (0, -0.92), "left": (-0.76, 0.6), "right": (0.76, 0.6), "trunk": (0, 0.93)},
    ),
}
CLASS_NAMES = list(OBJECTS)
KEYPOINT_NAMES = {name: list(keypoints) for name, (_, keypoints) in OBJECTS.items()}
NUM_KEYPOINTS = 4


def draw_scene(seed, size=256):
    """Draws one scene.

    Args:
        seed: int or sequence of ints; the same seed gives the same scene.
        size: side of the picture in pixels.

    Returns:
        dict of "image" (size, size, 3) uint8 RGB; "boxes" (N, 4) float32 (ymin, xmin, ymax, xmax)
        divided by the size, around what is visible; "labels" (N,) int32, indices into
        `CLASS_NAMES`; "masks" (N, size, size) bool, what is visible; "keypoints" (N, 4, 3)
        float32, (y, x) divided by the size and visibility: 0 outside the picture, 1 hidden, 2
        visible, named by `KEYPOINT_NAMES`; "depth" (size, size) float32 in metres.
    """
    rng = np.random.default_rng(seed)
    light = rng.uniform(0, 2 * np.pi)
    light = np.array([np.cos(light), np.sin(light), rng.uniform(0.8, 1.6)])
    light /= np.linalg.norm(light)
    canvas = _background(rng, size)
    for _ in range(rng.integers(0, 5)):
        _draw_distractor(rng, canvas)
    # Behind the focus: blurred, and paler.
    focus = rng.uniform(*BACKDROP_BLUR) * size / 256
    canvas = cv2.GaussianBlur(canvas, (0, 0), focus)
    canvas += (canvas.mean((0, 1)) - canvas) * np.float32(rng.uniform(0.2, 0.6))
    depth = np.full((size, size), BACKDROP_DEPTH, np.float32)
    depth -= np.linspace(0, rng.uniform(0, 1.5), size, dtype=np.float32)[:, None]

    count = 0 if rng.random() < EMPTY else rng.integers(1, MAX_OBJECTS + 1)
    objects = []
    for distance in np.sort(rng.uniform(1.0, 4.0, count))[::-1]:
        for _ in range(6):
            placed = _place_object(rng, size)
            if _fits(placed, objects, size):
                break
        else:
            continue
        mask = placed["mask"]
        for other in objects:
            other["visible"] &= ~mask
        placed["visible"] = mask.copy()
        objects.append(placed)
        _paint_object(rng, canvas, depth, placed, light, distance)
    for _ in range(rng.integers(0, 3)):
        _draw_scratch(rng, canvas)

    keypoints = np.zeros((len(objects), NUM_KEYPOINTS, 3), np.float32)
    boxes = np.zeros((len(objects), 4), np.float32)
    for i, placed in enumerate(objects):
        boxes[i] = _extent(placed["visible"]) / size
        keypoints[i] = _visible_keypoints(placed, size)
    return {
        "image": _photograph(rng, canvas, size),
        "boxes": boxes,
        "labels": np.array([placed["label"] for placed in objects], np.int32),
        "masks": np.array([placed["visible"] for placed in objects]).reshape(-1, size, size),
        "keypoints": keypoints,
        "depth": depth,
    }


def _extent(mask):
    """(ymin, xmin, ymax, xmax) in pixels around a mask."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    return np.array([rows[0], columns[0], rows[-1] + 1, columns[-1] + 1])


def _fits(placed, objects, size):
    """Whether an object in front leaves enough of itself and of the others to be seen."""
    mask = placed["mask"]
    for visible, whole in [(mask, placed["whole_area"])] + [
        (other["visible"] & ~mask, other["whole_area"]) for other in objects
    ]:
        if np.count_nonzero(visible) < MIN_VISIBLE * whole:
            return False
        ymin, xmin, ymax, xmax = _extent(visible) / size
        if (ymax - ymin) * (xmax - xmin) < MIN_VISIBLE_AREA:
            return False
    return True


def _place_object(rng, size):
    """Chooses kind, pose, size and place of an object; all but the kind alike for all kinds."""
    label = int(rng.integers(len(CLASS_NAMES)))
    parts, keypoints = OBJECTS[CLASS_NAMES[label]]
    angle = np.radians(rng.uniform(-MAX_ROTATION, MAX_ROTATION))
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    mirror, aspect = rng.choice([-1.0, 1.0]), np.exp(rng.uniform(-0.18, 0.18))
    pose = turn @ np.array([[mirror * aspect, rng.uniform(-0.12, 0.12)], [0.0, 1.0 / aspect]])
    contours = [[contour @ pose.T for contour in part] for part in parts]
    points = np.concatenate([contour for part in contours for contour in part])
    low, high = points.min(0), points.max(0)

    area = rng.uniform(*np.sqrt(OBJECT_AREA)) ** 2 * size * size
    scale = np.sqrt(area / np.prod(high - low))
    extent = (high - low) * scale
    # A sixth of the object may reach out of the picture on each side.
    center = rng.uniform(extent * 0.33, np.maximum(size - extent * 0.33, extent * 0.33 + 1))
    shift = center - (low + high) / 2 * scale

    # Drawn on a patch that holds the whole object, whatever part of it is in the picture.
    origin = np.floor(low * scale + shift).astype(int) - 2
    patch = np.ceil(extent).astype(int) + 5
    part_masks = []
    for part in contours:
        mask = np.zeros(patch[::-1], np.uint8)
        polygons = [np.round((c * scale + shift - origin) * 16).astype(np.int32) for c in part]
        cv2.fillPoly(mask, polygons, 255, cv2.LINE_AA, 4)
        part_masks.append(mask)
    silhouette = np.max(part_masks, axis=0)
    x0, y0 = np.maximum(origin, 0)
    x1, y1 = np.minimum(origin + patch, size)
    window = (slice(y0 - origin[1], y1 - origin[1]), slice(x0 - origin[0], x1 - origin[0]))
    mask = np.zeros((size, size), bool)
    mask[y0:y1, x0:x1] = silhouette[window] > 127
    keypoints = np.array(list(keypoints.values())) @ pose.T * scale + shift
    return {
        "label": label,
        "mask": mask,
        "whole_area": np.count_nonzero(silhouette > 127),
        "part_masks": part_masks,
        "silhouette": silhouette,
        "window": window,
        "place": (slice(y0, y1), slice(x0, x1)),
        "keypoints": keypoints,
        "extent": float(np.sqrt(area)),
    }


def _paint_object(rng, canvas, depth, placed, light, distance):
    """Paints an object and its shadow on the canvas, and its relief into the depth."""
    window, place = placed["window"], placed["place"]
    extent = placed["extent"]
    silhouette = placed["silhouette"]
    height = np.zeros(silhouette.shape, np.float32)
    edges = np.zeros(silhouette.shape, np.float32)
    for mask in placed["part_masks"]:
        inside = mask > 127
        bulge = cv2.distanceTransform(inside.astype(np.uint8), cv2.DIST_L2, 3)
        top = max(float(bulge.max()), 1.0)
        bulge = np.sqrt(np.clip(bulge / top, 0, 1)) * top
        height = np.where(inside, bulge, height)
        edges[inside] = 0
        outline = cv2.morphologyEx(mask, cv2.MORPH_GRADIENT, np.ones((3, 3), np.uint8))
        edges += outline * np.float32(1 / 255)
    height = cv2.GaussianBlur(height, (0, 0), max(0.6, extent / 90))

    # Lambert's law with a highlight, on the surface that the height describes.
    normal_x = -cv2.Sobel(height, cv2.CV_32F, 1, 0, scale=0.125) * rng.uniform(0.7, 1.3)
    normal_y = -cv2.Sobel(height, cv2.CV_32F, 0, 1, scale=0.125) * rng.uniform(0.7, 1.3)
    length = np.sqrt(normal_x**2 + normal_y**2 + 1)
    light_x, light_y, light_z = light.tolist()
    lambert = np.clip((normal_x * light_x + normal_y * light_y + light_z) / length, 0, 1)
    ambient = rng.uniform(0.25, 0.5)
    shade = ambient + (1.15 - ambient) * lambert
    highlight = rng.uniform(0, 90) * lambert ** rng.uniform(10, 40)

    rows, columns = canvas[place].shape[:2]
    behind = canvas[place].reshape(-1, 3).mean(0)
    color = _contrasting_color(rng, behind)
    texture = _texture(rng, silhouette.shape, color)
    painted = texture * (shade * (1 - rng.uniform(0.1, 0.4) * np.clip(edges, 0, 1)))[:, :, None]
    painted = np.clip(painted + highlight[:, :, None], 0, 255)

    # The shadow falls away from the light, on whatever is behind.
    offset = np.round(-light[:2] * extent * rng.uniform(0.05, 0.16)).astype(int)
    shadow = np.zeros(canvas.shape[:2], np.float32)
    shadow[place] = silhouette[window] * np.float32(1 / 255)
    shift = np.float32([[1, 0, offset[0]], [0, 1, offset[1]]])
    shadow = cv2.warpAffine(shadow, shift, shadow.shape[::-1])
    shadow = cv2.blur(shadow, (int(extent / 12) | 1,) * 2)
    canvas *= (1 - rng.uniform(0.2, 0.55) * shadow)[:, :, None]

    alpha = silhouette[window][:, :, None] * np.float32(1 / 255)
    canvas[place] += (painted[window] - canvas[place]) * alpha
    visible = placed["mask"][place]
    # Half a metre a picture width, so that no relief reaches the object in front.
    relief = distance - height[window] / canvas.shape[0] * 0.5
    depth[place] = np.where(visible, relief, depth[place])


def _visible_keypoints(placed, size):
    """(4, 3) of relative (y, x) and visibility 0, 1 or 2; (0, 0, 0) outside the picture."""
    result = np.zeros((NUM_KEYPOINTS, 3), np.float32)
    for k, (x, y) in enumerate(placed["keypoints"]):
        if 0 <= x < size and 0 <= y < size:
            result[k] = y / size, x / size, 2 if placed["visible"][int(y), int(x)] else 1
    return result


def _color(rng):
    hue, saturation, value = rng.uniform(0, 6), rng.uniform(0, 1) ** 0.7, rng.uniform(0.25, 1.0)
    wheel = np.clip(np.abs((hue + np.array([0.0, 4.0, 2.0])) % 6 - 3) - 1, 0, 1)
    return (255 * value * (1 - saturation * (1 - wheel))).astype(np.float32)


def _contrasting_color(rng, behind):
    """A random colour that differs from the mean colour behind the object."""
    for _ in range(8):
        color = _color(rng)
        if np.linalg.norm(color - behind) > MIN_CONTRAST:
            break
    return color


def _noise(rng, shape, cells, channels=1):
    """Smooth noise of mean 0 and deviation about 1, with `cells` cells along a side."""
    coarse = rng.normal(0, 1, (cells + 1, cells + 1, channels)).astype(np.float32)
    return cv2.resize(coarse, shape[::-1], interpolation=cv2.INTER_CUBIC).reshape(*shape, channels)


def _texture(rng, shape, color):
    """(H, W, 3) float32 of one of several materials around a colour."""
    kind = max(0, rng.integers(-4, 6))  # half of the things are plain
    second = np.minimum(color * rng.uniform(0.6, 0.85) + rng.uniform(0, 40), 255)
    if kind == 0:
        mix = np.zeros(shape, np.float32)
    elif kind == 1:
        mix = np.clip(0.5 + 0.5 * _noise(rng, shape, int(rng.integers(3, 12)))[:, :, 0], 0, 1)
    else:
        y, x = np.mgrid[: shape[0], : shape[1]].astype(np.float32)
        angle, period = rng.uniform(0, np.pi), max(shape) / rng.uniform(3, 9)
        cos, sin = (float(f(angle) * 2 * np.pi / period) for f in (np.cos, np.sin))
        u, v = cos * x + sin * y, cos * y - sin * x
        if kind == 2:  # stripes
            mix = np.sin(u) > rng.uniform(-0.5, 0.5)
        elif kind == 3:  # checks
            mix = (np.sin(u) > 0) ^ (np.sin(v) > 0)
        elif kind == 4:  # dots
            mix = np.cos(u) + np.cos(v) > rng.uniform(0.5, 1.2)
        else:  # grain
            mix = 0.5 + 0.5 * np.sin(u + 2 * _noise(rng, shape, 4)[:, :, 0])
    mix = np.asarray(mix, np.float32)[:, :, None]
    texture = color * (1 - mix) + second * mix
    return texture + rng.uniform(2, 9) * _noise(rng, shape, 24)


def _background(rng, size):
    """(size, size, 3) float32: a wall, planks, tiles, bricks, a landscape or a room."""
    shape = (size, size)
    first, second = _color(rng), _color(rng)
    kind = rng.integers(6)
    y, x = np.mgrid[:size, :size].astype(np.float32) / size
    if kind == 0:  # blurred shapes, out of focus
        mix = np.clip(0.5 + 0.6 * _noise(rng, shape, int(rng.integers(2, 6)), 3), 0, 1)
        picture = first * (1 - mix) + second * mix
    elif kind == 1:  # a texture
        picture = cv2.resize(_texture(rng, (size // 2, size // 2), first), shape)
    elif kind == 2:  # planks
        planks = int(rng.integers(4, 9))
        tone = rng.normal(1, 0.12, planks).astype(np.float32)[np.minimum((x * planks).astype(int), planks - 1)]
        gap = np.abs((x * planks) % 1 - 0.5) > 0.47
        wave = 0.08 * np.sin(60 * x + 3 * _noise(rng, shape, 3)[:, :, 0])
        picture = first * (tone * (1 + wave) * np.where(gap, np.float32(0.45), 1))[:, :, None]
    elif kind == 3:  # bricks or tiles
        rows = int(rng.integers(4, 10))
        shifted = x * rows / rng.uniform(1, 2.2) + 0.5 * ((y * rows).astype(int) % 2)
        joint = (np.abs((y * rows) % 1 - 0.5) > 0.44) | (np.abs(shifted % 1 - 0.5) > 0.46)
        tone = 1 + 0.15 * _noise(rng, shape, rows)
        picture = np.where(joint[:, :, None], second, first * tone)
    elif kind == 4:  # landscape
        horizon = rng.uniform(0.3, 0.7) + 0.06 * _noise(rng, (1, size), 5)[0, :, 0]
        ground = first * (0.8 + 0.4 * y + 0.15 * _noise(rng, shape, 40)[:, :, 0])[:, :, None]
        picture = np.where((y < horizon)[:, :, None], second * (1.1 - 0.4 * y)[:, :, None], ground)
    else:  # room
        horizon, slope = rng.uniform(0.35, 0.75), rng.uniform(-0.15, 0.15)
        floor = y > horizon + slope * (x - 0.5)
        tiles = (np.sin((x - 0.5) / np.maximum(y, 0.1) * 40) > 0) ^ (np.sin(9 / np.maximum(y, 0.1)) > 0)
        picture = np.where(
            floor[:, :, None], first * (0.85 + 0.15 * tiles)[:, :, None], second * (0.7 + 0.3 * y)[:, :, None]
        )
    picture = picture + rng.uniform(0, 8) * _noise(rng, shape, 48)
    return np.clip(picture + rng.uniform(0, 18) * _noise(rng, shape, 6), 0, 255)


def _draw_distractor(rng, canvas):
    """Paints a blob, a bar or a polygon that is no object, with some shading."""
    size = canvas.shape[0]
    side = size * rng.uniform(0.04, 0.16)
    count = rng.integers(3, 7)
    angle = np.sort(rng.uniform(0, 2 * np.pi, count))
    radius = side * rng.uniform(0.4, 1.0, (count, 1))
    stretch = np.array([rng.uniform(0.3, 1.0), 1.0])
    points = rng.uniform(0, size, 2) + radius * stretch * np.stack([np.cos(angle), np.sin(angle)], 1)
    low = np.clip(np.floor(points.min(0)).astype(int) - 2, 0, size - 1)
    high = np.clip(np.ceil(points.max(0)).astype(int) + 3, low + 1, size)
    mask = np.zeros((high - low)[::-1], np.uint8)
    cv2.fillPoly(mask, [np.round((points - low) * 16).astype(np.int32)], 255, cv2.LINE_AA, 4)
    alpha = cv2.blur(mask, (3, 3))[:, :, None] * np.float32(rng.uniform(0.5, 1.0) / 255)
    part = canvas[low[1] : high[1], low[0] : high[0]]
    part += (_color(rng) - part) * alpha


def _draw_scratch(rng, canvas):
    """Paints a thin curve across everything: a wire, a twig, a hair on the lens."""
    size = canvas.shape[0]
    t = np.linspace(0, 1, 24)[:, None]
    p, q, r = rng.uniform(-0.1, 1.1, (3, 2)) * size
    curve = (1 - t) ** 2 * p + 2 * t * (1 - t) * q + t**2 * r
    color = _color(rng).tolist()
    cv2.polylines(canvas, [np.round(curve * 16).astype(np.int32)], False, color, 1, cv2.LINE_AA, 4)


def _photograph(rng, canvas, size):
    """Light falling off, exposure, white balance, blur and noise of a camera."""
    y, x = np.mgrid[-1 : 1 : size * 1j, -1 : 1 : size * 1j].astype(np.float32)
    light = 1 + rng.uniform(-0.25, 0.25) * x + rng.uniform(-0.25, 0.25) * y
    light -= rng.uniform(0, 0.25) * (x**2 + y**2)
    gain = rng.uniform(0.75, 1.2) * rng.uniform(0.9, 1.1, 3)
    picture = canvas * light[:, :, None] * gain.astype(np.float32)
    blur = rng.uniform(0, MAX_BLUR) * size / 256
    if blur > 0.3:
        picture = cv2.GaussianBlur(picture, (0, 0), blur)
    noise = rng.standard_normal((size, size, 3), dtype=np.float32)
    noise *= rng.uniform(0.5, MAX_NOISE)
    return cv2.convertScaleAbs(np.maximum(picture + noise, 0.0))


class ScenesConfig(tfds.core.BuilderConfig):
    """Size, seed and numbers of pictures of one variant of `Scenes`.

    Args:
        size: side of the pictures in pixels.
        seed: of all pictures.
        train, validation, test: how many pictures the splits have.
        full: whether masks, keypoints and depth are stored too.
    """

    def __init__(self, *, size=256, seed=0, train=4000, validation=300, test=500, full=False, **kwargs):
        super().__init__(**kwargs)
        self.size = size
        self.seed = seed
        self.examples = {"train": train, "validation": validation, "test": test}
        self.full = full


class Scenes(tfds.core.GeneratorBasedBuilder):
    """TensorFlow Datasets builder of scenes; see the top of this file."""

    VERSION = tfds.core.Version("1.0.0")
    BUILDER_CONFIGS = [
        ScenesConfig(name="detection", description="Boxes."),
        ScenesConfig(name="full", description="Boxes, masks, keypoints and depth.", full=True),
    ]

    def _info(self):
        size = self.builder_config.size
        objects = {
            "bbox": tfds.features.BBoxFeature(),
            "label": tfds.features.ClassLabel(names=CLASS_NAMES),
        }
        features = {"image": tfds.features.Image(shape=(size, size, 3)), "image/id": np.int64}
        if self.builder_config.full:
            # (y, x, visibility) as in `draw_scene`.
            objects["keypoints"] = tfds.features.Tensor(shape=(NUM_KEYPOINTS, 3), dtype=np.float32)
            # 0 = background, i + 1 = the i-th object; and depth in millimetres.
            features["instances"] = tfds.features.Image(shape=(size, size, 1), dtype=np.uint8)
            features["depth"] = tfds.features.Image(shape=(size, size, 1), dtype=np.uint16)
        features["objects"] = tfds.features.Sequence(objects)
        return tfds.core.DatasetInfo(
            builder=self,
            description=__doc__,
            features=tfds.features.FeaturesDict(features),
            license="Apache-2.0",
        )

    def _split_generators(self, dl_manager):
        del dl_manager
        examples = self.builder_config.examples
        return {
            split: self._generate_examples(number, count)
            for number, (split, count) in enumerate(examples.items())
        }

    def _generate_examples(self, split, count):
        # OpenCV and NumPy let another thread work while they do.
        with concurrent.futures.ThreadPoolExecutor() as pool:
            numbers = range(count)
            yield from zip(numbers, pool.map(self._example, itertools.repeat(split), numbers))

    def _example(self, split, number):
        config = self.builder_config
        scene = draw_scene((config.seed, split, number), config.size)
        quality = [cv2.IMWRITE_JPEG_QUALITY, 92]
        _, encoded = cv2.imencode(".jpg", scene["image"][:, :, ::-1], quality)
        objects = [
            {"bbox": tfds.features.BBox(*map(float, box)), "label": int(label)}
            for box, label in zip(scene["boxes"], scene["labels"])
        ]
        example = {
            "image": encoded.tobytes(),
            "image/id": split * 10**9 + number,
            "objects": objects,
        }
        if config.full:
            for row, keypoints in zip(objects, scene["keypoints"]):
                row["keypoints"] = keypoints
            ids = np.arange(1, len(objects) + 1, dtype=np.uint8)[:, None, None]
            example["instances"] = (scene["masks"] * ids).sum(0, dtype=np.uint8)[:, :, None]
            example["depth"] = np.round(scene["depth"] * 1000).astype(np.uint16)[:, :, None]
        return example
