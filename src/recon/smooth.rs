//! Sums over boxes of neighbours: what noise estimates from few replicas are averaged with.

/// Replaces every value of `image` (`matrix`: z, y, x) by the sum over `half` neighbours to each side along one axis;
/// fewer at the edges.
pub(crate) fn box_sum(image: &mut [f32], matrix: [usize; 3], axis: usize, half: usize) {
    let n = matrix[axis];
    if n == 1 {
        return;
    }
    let inner: usize = matrix[axis + 1..].iter().product();
    let mut line = vec![0.0f32; n];
    for block in image.chunks_exact_mut(n * inner) {
        for i in 0..inner {
            for (k, v) in line.iter_mut().enumerate() {
                *v = block[k * inner + i];
            }
            for k in 0..n {
                block[k * inner + i] = line[k.saturating_sub(half)..(k + half + 1).min(n)]
                    .iter()
                    .sum();
            }
        }
    }
}
