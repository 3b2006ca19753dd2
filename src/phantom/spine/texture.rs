//! Irregularity that is the same on every thread: noise as a function of place and seed, and smooth unions of shapes.

/// Value noise in -1..1 that varies over about one unit.
pub(super) fn noise(seed: u32, p: [f32; 3]) -> f32 {
    let [value] = noises([seed], p);
    value
}

/// The same of several seeds at one place.
#[allow(clippy::cast_possible_truncation)] // places are within metres
#[inline]
pub(super) fn noises<const N: usize>(seeds: [u32; N], p: [f32; 3]) -> [f32; N] {
    let ([x, fx], [y, fy], [z, fz]) = (split(p[0]), split(p[1]), split(p[2]));
    let (x, y, z) = (x as i32, y as i32, z as i32);
    let ease = |t: f32| t * t * (3.0 - 2.0 * t);
    let (fx, fy, fz) = (ease(fx), ease(fy), ease(fz));
    let mut out = [0.0; N];
    for (out, seed) in out.iter_mut().zip(seeds) {
        // As `hash` of the eight corners, with what they share done once.
        let start = seed ^ HASH_START;
        let (near, far) = (stir(start, x), stir(start, x + 1));
        let row =
            |near: u32, far: u32, z: i32| mix(finish(stir(near, z)), finish(stir(far, z)), fx);
        let (near_0, far_0) = (stir(near, y), stir(far, y));
        let (near_1, far_1) = (stir(near, y + 1), stir(far, y + 1));
        *out = mix(
            mix(row(near_0, far_0, z), row(near_1, far_1, z), fy),
            mix(row(near_0, far_0, z + 1), row(near_1, far_1, z + 1), fy),
            fz,
        );
    }
    out
}

/// The nearest whole number, halves away from zero; `round` is a call without SSE 4.1, a cast is not.
#[allow(clippy::cast_possible_truncation)] // places are within metres
pub(super) fn nearest(v: f32) -> f32 {
    let whole = v as i32 as f32;
    if (v - whole).abs() >= 0.5 {
        whole + 1f32.copysign(v)
    } else {
        whole
    }
}

/// Whole part below and the rest. `floor` is a call without SSE 4.1; a cast is not.
#[allow(clippy::cast_possible_truncation)] // places are within metres
fn split(v: f32) -> [f32; 2] {
    let near = v as i32 as f32;
    let whole = if near > v { near - 1.0 } else { near };
    [whole, v - whole]
}

/// Noise of three octaves, about -1..1.
pub(super) fn rough(seed: u32, p: [f32; 3]) -> f32 {
    noise(seed, p) * 0.55
        + noise(seed ^ 0x9e37, p.map(|v| v * 2.03 + 11.5)) * 0.3
        + noise(seed ^ 0x51ed, p.map(|v| v * 4.07 + 5.2)) * 0.15
}

/// One value in -1..1 of a lattice point.
pub(super) fn hash(seed: u32, c: [i32; 3]) -> f32 {
    finish(c.into_iter().fold(seed ^ HASH_START, stir))
}

const HASH_START: u32 = 0x9e37_79b9;

#[inline]
fn stir(h: u32, v: i32) -> u32 {
    let h = (h ^ v.cast_unsigned()).wrapping_mul(0x85eb_ca6b);
    h ^ (h >> 15)
}

#[inline]
fn finish(h: u32) -> f32 {
    let h = h.wrapping_mul(0xc2b2_ae35);
    // 24 bits: signed, because that is one instruction.
    ((h ^ (h >> 16)) >> 8).cast_signed() as f32 * (2.0 / 16_777_216.0) - 1.0
}

/// Distance to the intersection of two shapes, rounded over `k`.
pub(super) fn smooth_max(a: f32, b: f32, k: f32) -> f32 {
    let h = (k - (a - b).abs()).max(0.0);
    a.max(b) + h * h / (4.0 * k)
}

/// Distance to the union of two shapes, rounded over `k`.
pub(super) fn smooth_min(a: f32, b: f32, k: f32) -> f32 {
    -smooth_max(-a, -b, k)
}

/// 0 below `low`, 1 above `high`, smooth between.
pub(super) fn step(low: f32, high: f32, x: f32) -> f32 {
    let t = ((x - low) / (high - low)).clamp(0.0, 1.0);
    t * t * (3.0 - 2.0 * t)
}

/// Linear from `a` to `b`.
pub(super) fn mix(a: f32, b: f32, t: f32) -> f32 {
    a + (b - a) * t
}

/// Approximate signed distance to an ellipse about zero.
pub(super) fn ellipse(x: f32, y: f32, rx: f32, ry: f32) -> f32 {
    ellipsoid([x, y, 0.0], [rx, ry, 1.0])
}

/// Approximate signed distance to an ellipsoid about zero: exact to first order at its surface.
pub(super) fn ellipsoid(p: [f32; 3], r: [f32; 3]) -> f32 {
    let q = [0, 1, 2].map(|i| p[i] / r[i]);
    let n = dot(q, q).sqrt();
    let g = [0, 1, 2].map(|i| q[i] / r[i]);
    let g = dot(g, g).sqrt();
    if g > 1e-9 {
        (n - 1.0) * n / g
    } else {
        -r[0].min(r[1]).min(r[2])
    }
}

/// Whether an ellipsoid about zero is farther than `margin` for certain, by [`ellipsoid`]'s own measure: beyond one of its
/// axes that distance is at least the smallest half axis times the excess.
pub(super) fn misses(p: [f32; 3], r: [f32; 3], margin: f32) -> bool {
    let k = 1.001 + margin / r[0].min(r[1]).min(r[2]);
    p[0].abs() > k * r[0] || p[1].abs() > k * r[1] || p[2].abs() > k * r[2]
}

/// Length of the hypotenuse, as the C library has it, without the call.
#[allow(clippy::cast_possible_truncation)] // from f64 with room to spare
pub(super) fn hypot(x: f32, y: f32) -> f32 {
    let (x, y) = (f64::from(x), f64::from(y));
    (x * x + y * y).sqrt() as f32
}

/// An ellipse about zero whose corners are filled by `corner`: radius relative to its edge, and the edge's own radius in
/// that direction.
pub(super) fn rounded_box(x: f32, y: f32, [rx, ry]: [f32; 2], corner: f32) -> (f32, f32) {
    let (p, q) = (x / rx, y / ry);
    let s = p * p + q * q;
    if s <= 1e-6 {
        return (s.sqrt(), rx.min(ry));
    }
    let rho = s.sqrt() * (1.0 - corner * p * p * q * q / (s * s));
    (rho, (rx * p * p + ry * q * q) / s)
}

/// Distance to the line from `a` to `b`, and where along it (0 to 1).
pub(super) fn segment(p: [f32; 3], a: [f32; 3], b: [f32; 3]) -> (f32, f32) {
    let pa = [0, 1, 2].map(|i| p[i] - a[i]);
    let ab = [0, 1, 2].map(|i| b[i] - a[i]);
    let t = (dot(pa, ab) / dot(ab, ab).max(1e-9)).clamp(0.0, 1.0);
    let d = [0, 1, 2].map(|i| pa[i] - ab[i] * t);
    (dot(d, d).sqrt(), t)
}

pub(super) fn dot(a: [f32; 3], b: [f32; 3]) -> f32 {
    a[0] * b[0] + a[1] * b[1] + a[2] * b[2]
}
