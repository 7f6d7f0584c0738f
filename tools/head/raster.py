"""Triangles to pixels: depth buffer, normals, and the light on a head, compiled by numba."""

import numba
import numpy as np

_compiled = numba.njit(cache=True, fastmath=True)


@_compiled
def rasterise(
    points: np.ndarray, faces: np.ndarray, height: int, width: int, facing: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Draw triangles [T, 3] of points [V, 3] (pixels x and y, depth), the nearest on top.

    Args:
        facing: 1 leaves out triangles that look away, 0 draws both sides.

    Returns:
        Depth float32 [H, W] (1e9: nothing there), triangle int32 [H, W] (-1), and the weights float32
        [H, W, 2] of its second and third corner.
    """
    depth = np.full((height, width), 1e9, np.float32)
    triangle = np.full((height, width), -1, np.int32)
    weights = np.zeros((height, width, 2), np.float32)
    for t in range(len(faces)):
        ax, ay, az = points[faces[t, 0]]
        bx, by, bz = points[faces[t, 1]] - points[faces[t, 0]]
        cx, cy, cz = points[faces[t, 2]] - points[faces[t, 0]]
        area = bx * cy - cx * by
        if facing * area > 0 or abs(area) < 1e-9:
            continue
        left, right = int(np.ceil(ax + min(0, bx, cx) - 0.5)), int(ax + max(0, bx, cx) - 0.5)
        top, bottom = int(np.ceil(ay + min(0, by, cy) - 0.5)), int(ay + max(0, by, cy) - 0.5)
        for y in range(max(0, top), min(height - 1, bottom) + 1):
            for x in range(max(0, left), min(width - 1, right) + 1):
                px, py = x + 0.5 - ax, y + 0.5 - ay
                u, v = (px * cy - cx * py) / area, (bx * py - px * by) / area
                z = az + u * bz + v * cz
                if u >= 0 and v >= 0 and u + v <= 1 and z < depth[y, x]:
                    depth[y, x], triangle[y, x] = z, t
                    weights[y, x, 0], weights[y, x, 1] = u, v
    return depth, triangle, weights


@_compiled
def vertex_normals(points: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """Unit normals [V, 3] of points, the mean of their triangles' weighted by area."""
    normals = np.zeros_like(points)
    for t in range(len(faces)):
        a, b, c = faces[t]
        ux, uy, uz = points[b] - points[a]
        vx, vy, vz = points[c] - points[a]
        x, y, z = uy * vz - uz * vy, uz * vx - ux * vz, ux * vy - uy * vx
        for k in faces[t]:
            normals[k, 0] += x
            normals[k, 1] += y
            normals[k, 2] += z
    for k in range(len(normals)):
        normals[k] /= np.sqrt((normals[k] ** 2).sum()) + 1e-12
    return normals
