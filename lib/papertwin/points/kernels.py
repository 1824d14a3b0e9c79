"""Compiled kernels of the neighbourhood sums: moments of all points within a radius, and the axis of least variance.

The idea is that of dual-tree algorithms (Gray, Moore 2000): neighbouring queries walk the tree together; a node wholly
inside the ball adds the sums of its points without visiting them, only nodes on the boundary are opened, so the
result is exact and its cost grows more slowly than the number of neighbours. `papertwin.points.tree` builds the tree.

Ten moments, always in this order: n, Σx, Σy, Σz, Σxx, Σyy, Σzz, Σxy, Σxz, Σyz.

All functions that call each other live in this one file: numba's cache watches the file of the compiled
function only. Nothing here is parallel; `papertwin.points.moments` runs these kernels in threads (they release the
GIL), so every sum is done by one thread in a fixed order and the results do not depend on the thread count.
"""

import numpy as np

from papertwin.compiled import jit, simd

LEAF = 16  # points in a leaf: two vectors of AVX-512, four of AVX2
GROUP = 4  # leaves of the query tree that walk the source tree together
BATCH = 768  # boundary leaves that are looked at together: their boxes and sums stay in the second-level cache
PAD = 1e100  # coordinate that fills up the last leaf: outside every ball, and its square is finite
COLLINEAR = 1e-10  # middle eigenvalue over the largest one, below which the direction is arbitrary
NEAR, FAR = 1.0 - 1e-12, 1.0 + 1e-12  # rounding of box distances: in doubt a node is opened


@jit
def _add_shifted(total, m, dx, dy, dz):
    """Add moments `m`, whose origin lies at (dx, dy, dz) from the origin of `total`."""
    n, sx, sy, sz = m[0], m[1], m[2], m[3]
    total[0] += n
    total[1] += sx + n * dx
    total[2] += sy + n * dy
    total[3] += sz + n * dz
    total[4] += m[4] + dx * (2.0 * sx + n * dx)
    total[5] += m[5] + dy * (2.0 * sy + n * dy)
    total[6] += m[6] + dz * (2.0 * sz + n * dz)
    total[7] += m[7] + dx * sy + dy * sx + n * dx * dy
    total[8] += m[8] + dx * sz + dz * sx + n * dx * dz
    total[9] += m[9] + dy * sz + dz * sy + n * dy * dz


@jit
def _add_point(total, dx, dy, dz):
    """Add one point at (dx, dy, dz) from the origin of `total`."""
    total[0] += 1.0
    total[1] += dx
    total[2] += dy
    total[3] += dz
    total[4] += dx * dx
    total[5] += dy * dy
    total[6] += dz * dz
    total[7] += dx * dy
    total[8] += dx * dz
    total[9] += dy * dz


@jit
def summarise(x, y, z, leaf, box, moments, start, end, count):
    """Tight boxes, and moments about the centres of these boxes, of nodes [start, end); children come first."""
    for node in range(end - 1, start - 1, -1):
        b, m = box[node], moments[node]
        m[:] = 0.0
        if leaf[node, 1] > 1:
            left, right = node + 1, node + 2 * leaf[node + 1, 1]
            for k in range(3):
                b[k] = min(box[left, k], box[right, k])
                b[k + 3] = max(box[left, k + 3], box[right, k + 3])
            for child in (left, right):
                c = box[child]
                dx = 0.5 * (c[0] - b[0] + (c[3] - b[3]))
                dy = 0.5 * (c[1] - b[1] + (c[4] - b[4]))
                dz = 0.5 * (c[2] - b[2] + (c[5] - b[5]))
                _add_shifted(m, moments[child], dx, dy, dz)
            continue
        low = leaf[node, 0] * LEAF
        high = min(count, low + LEAF)
        for k, key in enumerate((x, y, z)):
            b[k] = b[k + 3] = key[low]
            for i in range(low + 1, high):
                b[k] = min(b[k], key[i])
                b[k + 3] = max(b[k + 3], key[i])
        for i in range(low, high):
            dx, dy, dz = x[i] - 0.5 * (b[0] + b[3]), y[i] - 0.5 * (b[1] + b[4]), z[i] - 0.5 * (b[2] + b[5])
            _add_point(m, dx, dy, dz)


@simd
def _classify(bounds, state, count, px, py, pz, near, far):
    """Mark each box: 1 wholly inside the ball, 2 on its boundary, 0 outside."""
    x0, y0, z0, x1, y1, z1 = bounds[0], bounds[1], bounds[2], bounds[3], bounds[4], bounds[5]
    for j in range(count):
        ax, ay, az = px - x0[j], py - y0[j], pz - z0[j]
        bx, by, bz = x1[j] - px, y1[j] - py, z1[j] - pz
        # a > 0 and b > 0: p lies between the faces; the nearest face is outside by max(-a, -b, 0)
        nx, ny, nz = max(-ax, -bx, 0.0), max(-ay, -by, 0.0), max(-az, -bz, 0.0)
        fx, fy, fz = max(ax, bx), max(ay, by), max(az, bz)
        inside = fx * fx + fy * fy + fz * fz <= near
        touched = nx * nx + ny * ny + nz * nz <= far
        state[j] = 1.0 if inside else (2.0 if touched else 0.0)


@jit
def _add_all(total, sums):
    """Add ten numbers."""
    for k in range(10):
        total[k] += sums[k]


@simd
def _sum_boxes(sums, state, count, total):
    """Add the moments of the boxes in state 1."""
    a0, a1, a2, a3, a4 = sums[0], sums[1], sums[2], sums[3], sums[4]
    a5, a6, a7, a8, a9 = sums[5], sums[6], sums[7], sums[8], sums[9]
    s0 = s1 = s2 = s3 = s4 = s5 = s6 = s7 = s8 = s9 = 0.0
    for j in range(count):
        inside = state[j] == 1.0
        s0 += a0[j] if inside else 0.0
        s1 += a1[j] if inside else 0.0
        s2 += a2[j] if inside else 0.0
        s3 += a3[j] if inside else 0.0
        s4 += a4[j] if inside else 0.0
        s5 += a5[j] if inside else 0.0
        s6 += a6[j] if inside else 0.0
        s7 += a7[j] if inside else 0.0
        s8 += a8[j] if inside else 0.0
        s9 += a9[j] if inside else 0.0
    _add_all(total, (s0, s1, s2, s3, s4, s5, s6, s7, s8, s9))


@jit
def _copy(one, other):
    for t in range(LEAF):
        other[t] = one[t]


@jit
def _squared(dx, dy, dz):
    """Squared length by the letter, never fused or reordered: who is a neighbour is the same on every processor."""
    return dx * dx + dy * dy + dz * dz


@simd
def _sum_points(points, count, px, py, pz, r2, total):
    """Add the moments, about p, of the points with distance <= r."""
    x, y, z = points[0], points[1], points[2]
    s0 = s1 = s2 = s3 = s4 = s5 = s6 = s7 = s8 = s9 = 0.0
    for j in range(count):
        dx, dy, dz = x[j] - px, y[j] - py, z[j] - pz
        inside = _squared(dx, dy, dz) <= r2
        s0 += 1.0 if inside else 0.0
        s1 += dx if inside else 0.0
        s2 += dy if inside else 0.0
        s3 += dz if inside else 0.0
        s4 += dx * dx if inside else 0.0
        s5 += dy * dy if inside else 0.0
        s6 += dz * dz if inside else 0.0
        s7 += dx * dy if inside else 0.0
        s8 += dx * dz if inside else 0.0
        s9 += dy * dz if inside else 0.0
    _add_all(total, (s0, s1, s2, s3, s4, s5, s6, s7, s8, s9))


@jit
def _flush(source, queries, start, end, work, count, r2):
    """Sum the batched leaves for the queries [start, end): whole where inside, point by point on the boundary."""
    names, bounds, sums, state, chosen, buffer, about_centre, about_query = work
    x, y, z = source[0], source[1], source[2]
    for q in range(start, end):
        px, py, pz = queries[0][q], queries[1][q], queries[2][q]
        _classify(bounds, state, count, px, py, pz, r2 * NEAR, r2 * FAR)
        _sum_boxes(sums, state, count, about_centre[q - start])
        found = 0
        for j in range(count):  # without a branch: which boxes are on the boundary cannot be predicted
            chosen[found] = names[j]
            found += state[j] == 2.0
        for j in range(found):
            _copy(x[chosen[j]], buffer[0, j])
            _copy(y[chosen[j]], buffer[1, j])
            _copy(z[chosen[j]], buffer[2, j])
        _sum_points(buffer.reshape(3, -1), found * LEAF, px, py, pz, r2, about_query[q - start])


@jit
def _near_and_far(b, x0, y0, z0, x1, y1, z1):
    """Smallest and largest squared distance between a point of box `b` and one of the other box."""
    nx, ny, nz = max(b[0] - x1, x0 - b[3], 0.0), max(b[1] - y1, y0 - b[4], 0.0), max(b[2] - z1, z0 - b[5], 0.0)
    fx, fy, fz = max(b[3] - x0, x1 - b[0]), max(b[4] - y0, y1 - b[1]), max(b[5] - z0, z1 - b[2])
    return nx * nx + ny * ny + nz * nz, fx * fx + fy * fy + fz * fz


@jit
def _walk(source, queries, start, end, b, r2, work):
    """Sum for each query in [start, end), all in box `b`: boundary points about it, whole leaves about `b`'s centre."""
    leaf, box, moments = source[3], source[4], source[5]
    names, bounds, sums, about_centre, about_query = work[0], work[1], work[2], work[6], work[7]
    cx, cy, cz = 0.5 * (b[0] + b[3]), 0.5 * (b[1] + b[4]), 0.5 * (b[2] + b[5])
    shared, single = np.zeros(10), np.empty(10)
    about_centre[:] = 0.0
    about_query[:] = 0.0
    count, node, nodes = 0, 0, leaf.shape[0]
    while node < nodes:
        c = box[node]
        skip = 2 * leaf[node, 1] - 1
        near, far = _near_and_far(c, b[0], b[1], b[2], b[3], b[4], b[5])
        if near > r2 * FAR:
            node += skip
            continue
        dx, dy, dz = 0.5 * (c[0] + c[3]) - cx, 0.5 * (c[1] + c[4]) - cy, 0.5 * (c[2] + c[5]) - cz
        if far <= r2 * NEAR:
            _add_shifted(shared, moments[node], dx, dy, dz)
            node += skip
            continue
        if skip == 1:
            names[count] = leaf[node, 0]
            single[:] = 0.0
            _add_shifted(single, moments[node], dx, dy, dz)
            for k in range(6):
                bounds[k, count] = c[k]
            for k in range(10):
                sums[k, count] = single[k]
            count += 1
            if count == BATCH:
                _flush(source, queries, start, end, work, count, r2)
                count = 0
        node += 1
    _flush(source, queries, start, end, work, count, r2)
    for q in range(end - start):
        for k in range(10):
            about_centre[q, k] += shared[k]


@jit
def _moments_about(source, px, py, pz, cx, cy, cz, r2, total):
    """Moments about the point c of the points within the radius of p: one query alone, the careful way."""
    x, y, z, leaf, box, moments = source
    total[:] = 0.0
    node, nodes = 0, leaf.shape[0]
    while node < nodes:
        b = box[node]
        skip = 2 * leaf[node, 1] - 1
        near, far = _near_and_far(b, px, py, pz, px, py, pz)
        if near > r2 * FAR:
            node += skip
        elif far <= r2 * NEAR:
            dx, dy, dz = 0.5 * (b[0] + b[3]) - cx, 0.5 * (b[1] + b[4]) - cy, 0.5 * (b[2] + b[5]) - cz
            _add_shifted(total, moments[node], dx, dy, dz)
            node += skip
        else:
            if skip == 1:
                row = leaf[node, 0]
                for t in range(LEAF):
                    if _squared(x[row, t] - px, y[row, t] - py, z[row, t] - pz) <= r2:
                        _add_point(total, x[row, t] - cx, y[row, t] - cy, z[row, t] - cz)
            node += 1


@jit
def _turn(app, aqq, apq):
    """Cosine and sine of the rotation that annuls a_pq, and what it adds to a_qq and takes from a_pp."""
    if apq == 0.0:
        return 1.0, 0.0, 0.0
    gap = aqq - app
    t = 2.0 * apq / (abs(gap) + np.sqrt(gap * gap + 4.0 * apq * apq))
    t = -t if gap < 0.0 else t
    c = 1.0 / np.sqrt(t * t + 1.0)
    return c, t * c, t * apq


@jit
def _smallest_axis(m, v, axis):
    """Write the unit eigenvector of the smallest eigenvalue of the covariance; returns the eigenvalues, ascending.

    Cyclic Jacobi rotations (Jacobi 1846): as exact for repeated eigenvalues as for separate ones.
    """
    n = 1.0 / m[0]
    v[:] = 0.0
    v[0, 0] = v[1, 1] = v[2, 2] = 1.0
    ux, uy, uz = m[1] * n, m[2] * n, m[3] * n
    a, b, c = m[4] * n - ux * ux, m[5] * n - uy * uy, m[6] * n - uz * uz
    d, e, f = m[7] * n - ux * uy, m[8] * n - ux * uz, m[9] * n - uy * uz
    for _ in range(16):
        if d * d + e * e + f * f <= 1e-33 * (a * a + b * b + c * c):
            break
        k, s, h = _turn(a, b, d)
        a, b, d, e, f = a - h, b + h, 0.0, k * e - s * f, s * e + k * f
        for i in range(3):
            v[i, 0], v[i, 1] = k * v[i, 0] - s * v[i, 1], s * v[i, 0] + k * v[i, 1]
        k, s, h = _turn(a, c, e)
        a, c, e, d, f = a - h, c + h, 0.0, k * d - s * f, s * d + k * f
        for i in range(3):
            v[i, 0], v[i, 2] = k * v[i, 0] - s * v[i, 2], s * v[i, 0] + k * v[i, 2]
        k, s, h = _turn(b, c, f)
        b, c, f, d, e = b - h, c + h, 0.0, k * d - s * e, s * d + k * e
        for i in range(3):
            v[i, 1], v[i, 2] = k * v[i, 1] - s * v[i, 2], s * v[i, 1] + k * v[i, 2]
    low = 0 if a <= b and a <= c else (1 if b <= c else 2)
    axis[0], axis[1], axis[2] = v[0, low], v[1, low], v[2, low]
    smallest, largest = min(a, b, c), max(a, b, c)
    return smallest, max(min(a, b), min(max(a, b), c)), largest


@jit
def _fit(source, px, py, pz, r2, total, scale, v, axis):
    """Write the normal at p to `axis`; returns its eigenvalue gap, -1 where there is no normal.

    `scale` is the size of the terms that `total` is made of: where it is far larger than the variance, all
    neighbours are close together and far from the origin of the sums, which are then repeated about the mean.
    """
    n = total[0]
    axis[:] = 0.0
    if n < 3.0:
        return -1.0
    low, middle, high = _smallest_axis(total, v, axis)
    if n * high <= 1e-8 * scale:
        cx, cy, cz = px + total[1] / n, py + total[2] / n, pz + total[3] / n
        _moments_about(source, px, py, pz, cx, cy, cz, r2, total)
        low, middle, high = _smallest_axis(total, v, axis)
    rounding = 1e-15 * (abs(px) + abs(py) + abs(pz))
    if middle <= COLLINEAR * high or high <= rounding * rounding:
        axis[:] = 0.0
        return -1.0
    return (middle - low) / high


@jit
def _orient(axis, eye, fixed, px, py, pz):
    """Flip `axis` when it points against d = v - p; when it is perpendicular, make its largest component positive."""
    dx, dy, dz = eye[0], eye[1], eye[2]
    if not fixed:
        dx, dy, dz = dx - px, dy - py, dz - pz
    dot = axis[0] * dx + axis[1] * dy + axis[2] * dz
    if abs(dot) <= 1e-9 * (abs(dx) + abs(dy) + abs(dz)):
        largest = max(abs(axis[0]), abs(axis[1]), abs(axis[2])) - 1e-9
        k = 0 if abs(axis[0]) >= largest else (1 if abs(axis[1]) >= largest else 2)
        dot = axis[k]
    if dot < 0.0:
        axis[0], axis[1], axis[2] = -axis[0], -axis[1], -axis[2]


@jit
def normals_of_moments(source, points, sums, scale, eye, fixed, r2, vectors, counts, gaps):
    """Normals from finished sums: `sums` (n, 10) about each of `points` (n, 3); otherwise as `normals_of_groups`."""
    v, axis = np.empty((3, 3)), np.empty(3)
    for row in range(len(points)):
        px, py, pz = points[row, 0], points[row, 1], points[row, 2]
        counts[row] = np.int64(sums[row, 0])
        gaps[row] = _fit(source, px, py, pz, r2, sums[row], scale[row], v, axis)
        _orient(axis, eye, fixed, px, py, pz)
        vectors[row] = axis


@jit
def normals_of_groups(source, queries, order, group_leaf, group_box, eye, fixed, r2, vectors, counts, gaps):
    """Normals of all queries of some groups of leaves of the query tree, written to the rows given by `order`.

    Args:
        source: tree of the surface: x, y, z in rows of one leaf, then leaf, box, moments.
        queries: coordinates (x, y, z) in the order of the query tree.
        order: (n,) row of each query.
        group_leaf, group_box: first leaf and number of leaves, and the box, of every group.
        eye, fixed: the viewpoint; with `fixed` a direction shared by all points.
        r2: squared radius.
        vectors, counts, gaps: the results, (n, 3), (n,) and (n,); the gap of a point without a normal is -1.
    """
    x, y, z = queries
    names, chosen, state = np.empty(BATCH, np.int64), np.empty(BATCH + 1, np.int64), np.empty(BATCH)
    bounds, sums, buffer = np.empty((6, BATCH)), np.empty((10, BATCH)), np.empty((3, BATCH, LEAF))
    about_centre, about_query = np.empty((GROUP * LEAF, 10)), np.empty((GROUP * LEAF, 10))
    work = (names, bounds, sums, state, chosen, buffer, about_centre, about_query)
    v, axis = np.empty((3, 3)), np.empty(3)
    for g in range(len(group_leaf)):
        b, start = group_box[g], group_leaf[g, 0] * LEAF
        end = min(len(order), start + group_leaf[g, 1] * LEAF)
        _walk(source, queries, start, end, b, r2, work)
        for q in range(start, end):
            row, part, total = order[q], about_centre[q - start], about_query[q - start]
            dx, dy, dz = 0.5 * (b[0] + b[3]) - x[q], 0.5 * (b[1] + b[4]) - y[q], 0.5 * (b[2] + b[5]) - z[q]
            scale = (
                part[4] + part[5] + part[6] + part[0] * (dx * dx + dy * dy + dz * dz) + total[4] + total[5] + total[6]
            )
            _add_shifted(total, part, dx, dy, dz)
            counts[row] = np.int64(total[0])
            gaps[row] = _fit(source, x[q], y[q], z[q], r2, total, scale, v, axis)
            _orient(axis, eye, fixed, x[q], y[q], z[q])
            vectors[row] = axis
