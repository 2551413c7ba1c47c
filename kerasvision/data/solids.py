"""Solids: small 3-D models with keypoints, and their rasterisation into pixels.

Models live in (x right, y up, z towards the viewer); pixels in (column right, row down, z).
"""

from typing import NamedTuple

import cv2
import numpy as np

ASPECT = (0.85, 1.18)  # stretch of the models along x
ROLL = 20.0  # degrees in the picture plane, both ways

# The named keypoints of each class.
KEYPOINT_NAMES = {
    "arrow": ("tip", "left_barb", "right_barb", "tail"),
    "bottle": ("mouth", "left_shoulder", "right_shoulder", "left_base", "right_base"),
    "chair": (
        *("back_left", "back_right", "seat_left", "seat_right"),
        *("front_left_foot", "front_right_foot", "rear_left_foot", "rear_right_foot"),
    ),
    "cone": ("apex", "left_base", "right_base"),
    "cube": (
        *("top_near", "top_left", "top_right", "top_far"),
        *("bottom_near", "bottom_left", "bottom_right"),
    ),
    "heart": ("notch", "left_lobe", "right_lobe", "tip"),
    "mug": ("left_rim", "right_rim", "left_base", "right_base", "handle"),
    "mushroom": ("top", "left_brim", "right_brim", "foot"),
    "ring": ("top", "left", "bottom", "right"),
    "star": ("top", "left", "lower_left", "lower_right", "right"),
}
DISTRACTORS = ("lump", "stick", "shard")  # models that belong to no class

# Degrees about the vertical axis (yaw) and of looking down on the model (pitch). Bodies of
# revolution keep yaw 0, so that their left and right points are those that one sees.
TURNS = {
    "arrow": ((-35, 35), (-30, 30)),
    "bottle": ((0, 0), (-5, 35)),
    "chair": ((-50, 50), (8, 35)),
    "cone": ((0, 0), (-25, 30)),
    "cube": ((20, 70), (18, 40)),
    "heart": ((-35, 35), (-30, 30)),
    "mug": ((-40, 40), (8, 40)),
    "mushroom": ((0, 0), (-20, 30)),
    "ring": ((-45, 45), (-45, 45)),
    "star": ((-35, 35), (-30, 30)),
    "lump": ((-60, 60), (-60, 60)),
    "stick": ((-60, 60), (-60, 60)),
    "shard": ((-60, 60), (-60, 60)),
}


# A part of a model is a grid of points (M, N, 3) whose cells are its faces. Seen from outside, its
# columns run to the right and its rows upwards; the last column closes it.


def polar(angles, radius=1.0):
    """Points (N, 2) at angles in radians."""
    return np.stack([radius * np.cos(angles), radius * np.sin(angles)], -1)


CIRCLE = polar(np.linspace(0, 2 * np.pi, 21))
SQUARE = np.array([(1, -1), (1, 1), (-1, 1), (-1, -1), (1, -1)], float)


def loft(outline, profile):
    """Part whose closed outline (N, 2) in x, y is scaled and lifted by rows of (scale, z).

    A repeated row makes a crease.
    """
    scale, height = np.array(profile, float).T[:, :, None]
    x, y = scale * outline[:, 0], scale * outline[:, 1]
    return np.stack([x, y, np.broadcast_to(height, x.shape)], -1)


def lathe(profile):
    """Part turned about the y axis: rows of (radius, y)."""
    return loft(CIRCLE, profile)[..., [0, 2, 1]] * (1, 1, -1)


def plate(outline, thickness, centre=(0, 0)):
    """Flat part of a closed outline, all of which can be seen from `centre`."""
    profile = [(0, -thickness), (1, -thickness), (1, thickness), (0, thickness)]
    return loft(np.array(outline) - centre, profile) + (*centre, 0)


def box(centre, half_sizes):
    """Part with six rectangles."""
    return plate(SQUARE, 1) * half_sizes + centre


def tube(path, radius):
    """Part around a path (M, 2) in x, y, with a radius or one each point."""
    tangent = np.gradient(path, axis=0)
    tangent /= np.linalg.norm(tangent, axis=-1, keepdims=True)
    left = np.stack([-tangent[:, 1], tangent[:, 0]], -1)[:, None]
    radius = np.broadcast_to(radius, len(path))[:, None, None]
    section = CIRCLE[::2]
    xy = path[:, None] + radius * section[:, :1] * left
    return np.concatenate([xy, radius * np.broadcast_to(section[:, 1:], (*xy.shape[:2], 1))], -1)


def build_model(name, rng):
    """Makes one specimen of a class or of a distractor.

    Returns:
        parts: list of grids (M, N, 3).
        smooth: whether the shading is smooth over the faces.
        keypoints: list of (x, y, z) in the order of `KEYPOINT_NAMES`, empty for distractors.
    """
    a, b, c = rng.random(3)  # the proportions of this specimen
    turn = np.linspace(0, 2 * np.pi, 31)
    if name == "arrow":
        shaft, barb, neck, thick = 0.2 + 0.12 * a, 0.62 + 0.2 * b, 0.05 + 0.25 * c, 0.15
        outline = [(-shaft, -1), (shaft, -1), (shaft, neck), (barb, neck), (0, 1)]
        outline += [(-barb, neck), (-shaft, neck), (-shaft, -1)]
        keypoints = [(0, 1, thick), (-barb, neck, thick), (barb, neck, thick), (0, -1, thick)]
        return [plate(outline, thick, (0, neck + 0.05))], False, keypoints
    if name == "bottle":
        neck, shoulder, radius = 0.14 + 0.06 * a, 0.1 + 0.25 * b, 0.4 + 0.08 * c
        profile = [(0, -1), (radius, -1), (radius, -1), (radius, shoulder - 0.4)]
        profile += [(radius, shoulder), (0.85 * radius, shoulder + 0.14), (neck, shoulder + 0.3)]
        profile += [(neck, 0.85), (neck + 0.05, 0.85), (neck + 0.05, 0.85)]
        profile += [(neck + 0.05, 1), (neck + 0.05, 1), (0, 1)]
        keypoints = [(0, 1, 0), (-radius, shoulder, 0), (radius, shoulder, 0)]
        return [lathe(profile)], True, [*keypoints, (-radius, -1, 0), (radius, -1, 0)]
    if name == "chair":
        seat, leg, depth = -0.15 + 0.2 * a, 0.06 + 0.05 * b, 0.5 + 0.1 * c
        feet = [(x, z) for z in (depth - leg, leg - depth) for x in (leg - 0.55, 0.55 - leg)]
        parts = [box((x, (seat - 1) / 2, z), (leg, (seat + 1) / 2, leg)) for x, z in feet]
        parts += [box((0, seat, 0), (0.55, 0.08, depth))]
        parts += [box((0, (seat + 1) / 2, 0.07 - depth), (0.55, (1 - seat) / 2, 0.07))]
        keypoints = [(-0.55, 1, 0.14 - depth), (0.55, 1, 0.14 - depth)]
        keypoints += [(-0.55, seat, depth), (0.55, seat, depth)]
        return parts, False, keypoints + [(x, -1, z) for x, z in feet]
    if name == "cone":
        radius = 0.6 + 0.3 * a
        profile = [(0, -1), (radius, -1), (radius, -1), (0.5 * radius, 0), (0.02, 0.98), (0, 1)]
        return [lathe(profile)], True, [(0, 1, 0), (-radius, -1, 0), (radius, -1, 0)]
    if name == "cube":
        y = 0.85 + 0.3 * a
        # Turned by about 45 degrees, the corner at x = -1, z = 1 comes to the viewer.
        keypoints = [(-1, y, 1), (-1, y, -1), (1, y, 1), (1, y, -1)]
        keypoints += [(-1, -y, 1), (-1, -y, -1), (1, -y, 1)]
        return [box((0, 0, 0), (1, y, 1))], False, keypoints
    if name == "heart":
        y = 13 * np.cos(turn) - 5 * np.cos(2 * turn) - 2 * np.cos(3 * turn) - np.cos(4 * turn)
        outline = np.stack([-(np.sin(turn) ** 3), y / 17], -1)
        profile = polar(np.pi * np.linspace(-0.5, 0.5, 11)) * (1, 0.3 + 0.3 * a)
        keypoints = [(0, 5 / 17, 0), (-0.35, 0.68, 0), (0.35, 0.68, 0), (0, -1, 0)]
        return [loft(outline, profile)], True, keypoints
    if name == "mug":
        base, size, thick, half = 0.6 + 0.15 * a, 0.3 + 0.15 * b, 0.08 + 0.04 * c, 0.7 + 0.2 * b
        profile = [(0, -half), (base, -half), (base, -half), (base / 2 + 0.375, 0), (0.75, half)]
        profile += [(0.75, half), (0.67, half), (0.67, half), (base / 2 + 0.295, 0)]
        profile += [(base - 0.08, 0.15 - half), (base - 0.08, 0.15 - half), (0, 0.15 - half)]
        arc = polar(np.linspace(-np.pi / 2, np.pi / 2, 12)) * (size, 0.55 * half)
        arc += (base / 2 + 0.36, 0)
        side = rng.choice((-1, 1))  # where the handle is
        parts = [part * (side, 1, side) for part in (lathe(profile), tube(arc, thick))]
        keypoints = [(-0.75, half, 0), (0.75, half, 0), (-base, -half, 0), (base, -half, 0)]
        return parts, True, [*keypoints, (side * (arc[:, 0].max() + thick), 0, 0)]
    if name == "mushroom":
        stem, brim, rise = 0.22 + 0.1 * a, 0.8 + 0.15 * b, 0.5 + 0.25 * c
        profile = [(0, -1), (1.2 * stem, -1), (1.2 * stem, -1), (stem, -0.6), (stem, 0), (stem, 0)]
        profile += [(brim, -0.05), (brim, -0.05)]
        profile += [*(polar(np.linspace(0.1, np.pi / 2, 6)) * (brim, rise))]
        keypoints = [(0, rise, 0), (-brim, 0, 0), (brim, 0, 0), (0, -1, 1.2 * stem)]
        return [lathe(profile)], True, keypoints
    if name == "ring":
        thick = 0.2 + 0.12 * a
        profile = thick * polar(np.pi * np.linspace(-1, 1, 11)) + (1, 0)
        keypoints = [(0, 1, thick), (-1, 0, thick), (0, -1, thick), (1, 0, thick)]
        return [loft(CIRCLE, profile)], True, keypoints
    if name == "star":
        radius, height = np.where(np.arange(11) % 2, 0.4 + 0.12 * a, 1), 0.2 + 0.2 * b
        outline = polar(np.pi / 2 + np.linspace(0, 2 * np.pi, 11), radius)
        profile = [(0, -height), (1, -0.05), (1, 0.05), (0, height)]
        return [loft(outline, profile)], False, [(x, y, 0) for x, y in outline[:10:2]]
    if name == "lump":
        radius = 1 + 0.4 * a * np.sin(2 * turn + 6 * b) + 0.25 * b * np.sin(3 * turn + 6 * a)
        profile = polar(np.pi * np.linspace(-0.5, 0.5, 9)) * (1, 0.7)
        return [loft(polar(turn, radius), profile)], True, []
    if name == "stick":
        t = np.linspace(-1, 1, 16)
        path = np.stack([t, 0.5 * a * np.sin(3 * t + 6 * b)], -1)
        return [tube(path, (0.06 + 0.15 * b) * np.sqrt(1.001 - t**4))], True, []
    if name == "shard":
        corners = polar(np.sort(rng.uniform(0, 2 * np.pi, 4)) + 0.2 * np.arange(4))
        return [plate(corners[[0, 1, 2, 3, 0]], 0.1, corners.mean(0))], False, []
    raise ValueError(f"name must be one of {', '.join(TURNS)}; received: {name}")


class Solid(NamedTuple):
    """A turned and rasterised model, not yet at its place in a picture."""

    faces: np.ndarray  # (h, w) int32, number of the face seen in each pixel, -1 outside
    planes: np.ndarray  # (F, 3, 4) float32: (z, normal) = (column, row, 1) @ plane of the face
    to_model: np.ndarray  # (3, 3): (column, row, z) to model units, but for a shift
    keypoints: np.ndarray  # (k, 3): column, row, z in pixels
    scale: float  # pixels in a model unit


def rotation(axis, degrees):
    """Rotation matrix (3, 3) about axis 0, 1 or 2 (x, y, z)."""
    cos, sin = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    i, j = (axis + 1) % 3, (axis + 2) % 3
    matrix = np.eye(3)
    matrix[i, i], matrix[i, j], matrix[j, i], matrix[j, j] = cos, -sin, sin, cos
    return matrix


def random_turn(name, rng, roll):
    """Rotation matrix (3, 3) within `TURNS`, rolled by up to `roll` degrees in the picture."""
    yaw, pitch = (rng.uniform(*limits) for limits in TURNS[name])
    return rotation(2, rng.uniform(-roll, roll)) @ rotation(0, pitch) @ rotation(1, yaw)


def rasterise(name, rng, box_area, turn=None):
    """Draws a specimen of `name`, whose silhouette's box covers `box_area` pixels.

    Args:
        turn: rotation matrix (3, 3) of the model; None: anyhow, within `TURNS` and `ROLL`.

    Returns:
        A `Solid`.
    """
    parts, smooth, keypoints = build_model(name, rng)
    model = random_turn(name, rng, ROLL) if turn is None else turn
    model = model * (np.exp(rng.uniform(*np.log(ASPECT))), 1, 1)
    corners, normals = map(
        np.concatenate, zip(*(_corners_and_normals(part @ model.T, smooth) for part in parts))
    )

    low, high = corners.min((0, 1)), corners.max((0, 1))
    scale = np.sqrt(box_area / np.prod((high - low)[:2]))
    model = model * scale * ((1,), (-1,), (1,))
    shift = np.array([1 - scale * low[0], 1 + scale * high[1], 0])
    corners = corners * scale * (1, -1, 1) + shift

    # The faces that look at the viewer, from far to near: the painter's algorithm.
    (x02, y02), (x13, y13) = ((corners[:, i + 2, :2] - corners[:, i, :2]).T for i in (0, 1))
    seen = np.flatnonzero(x02 * y13 < y02 * x13)
    seen = seen[np.argsort(corners[seen, :, 2].mean(1))]
    corners, normals = corners[seen], normals[seen]
    width, height = np.ceil((high - low)[:2] * scale).astype(int) + 2
    faces = np.full((height, width), -1, np.int32)
    for number, polygon in enumerate(np.round(corners[..., :2] * 16).astype(np.int32)):
        cv2.fillConvexPoly(faces, polygon, number, cv2.LINE_8, 4)  # 4: in sixteenths of a pixel

    # Depth and normal over each face by least squares, damped for those seen edge-on.
    middle = corners[:, :, :2].mean(1)
    points = np.concatenate([corners[..., :2] - middle[:, None], np.ones((len(seen), 4, 1))], -1)
    values = np.concatenate([corners[..., 2:], normals], -1)
    transposed = points.transpose(0, 2, 1)
    planes = np.linalg.solve(transposed @ points + 0.01 * np.eye(3), transposed @ values)
    planes[:, 2] -= (middle[:, :, None] * planes[:, :2]).sum(1)
    keypoints = np.array(keypoints, float).reshape(-1, 3) @ model.T + shift
    return Solid(faces, planes.astype(np.float32), np.linalg.inv(model), keypoints, scale)


def _corners_and_normals(part, smooth):
    """Corners (F, 4, 3) of the faces of a part, and the unit normals there."""
    corners = _corners(part)
    first, second = corners[:, :, 2] - corners[:, :, 0], corners[:, :, 3] - corners[:, :, 1]
    normals = np.cross(first, second)  # as long as the face is large
    if smooth:
        at_points = np.zeros_like(part)
        for row in (0, 1):
            for column in (0, 1):
                rows, columns = normals.shape[:2]
                at_points[row : row + rows, column : column + columns] += normals
        at_points[:, 0] = at_points[:, -1] = at_points[:, 0] + at_points[:, -1]
        normals = _corners(at_points)
    else:
        normals = np.repeat(normals[:, :, None], 4, 2)
    normals = normals / (np.linalg.norm(normals, axis=-1, keepdims=True) + 1e-9)
    return corners.reshape(-1, 4, 3), normals.reshape(-1, 4, 3)


def _corners(grid):
    """Values (M - 1, N - 1, 4, 3) of a grid at the corners of its cells, counterclockwise."""
    return np.stack([grid[:-1, :-1], grid[:-1, 1:], grid[1:, 1:], grid[1:, :-1]], 2)
