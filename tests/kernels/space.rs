//! Cases of `espirit_space.cu`.

use cauda::data::Complex32;
use cauda::num::rng::Rng;
use kernel_emu::Arg;
use num_complex::Complex64;

use super::{Case, NAN, blocks, complex_output, int, launch, output};

const BLOCK: [u32; 3] = [256, 1, 1];

/// Coils, calibration samples and window along z, y, x.
const CALIBRATIONS: [(usize, [usize; 3], [usize; 3]); 5] = [
    (1, [1, 1, 1], [1, 1, 1]),
    (3, [1, 7, 8], [1, 3, 4]),
    (2, [3, 5, 4], [2, 2, 3]),
    (13, [1, 5, 7], [1, 5, 4]),
    (17, [1, 4, 4], [1, 3, 3]),
];

/// Size, and rows of the factors.
const PRODUCTS: [[usize; 2]; 6] = [[1, 1], [7, 5], [32, 32], [33, 65], [70, 31], [97, 40]];

fn wide(v: &[Complex32]) -> Vec<Complex64> {
    let widened = v.iter();
    widened
        .map(|v| Complex64::new(v.re.into(), v.im.into()))
        .collect()
}

fn narrow(v: &[Complex64]) -> Vec<Complex32> {
    let narrowed = v.iter();
    narrowed
        .map(|v| Complex32::new(v.re as f32, v.im as f32))
        .collect()
}

/// `factor a^H b + beta` by its definition.
fn product(a: &[Complex64], b: &[Complex64], n: usize, factor: f64, beta: f64) -> Vec<Complex64> {
    let element = |i: usize, j: usize| -> Complex64 {
        let rows = a.chunks_exact(n).zip(b.chunks_exact(n));
        let sum: Complex64 = rows.map(|(a, b)| a[i].conj() * b[j]).sum();
        sum * factor + if i == j { beta } else { 0.0 }
    };
    (0..n * n).map(|at| element(at / n, at % n)).collect()
}

pub(super) fn cases() -> impl Iterator<Item = Case> {
    let of_calibrations = CALIBRATIONS
        .into_iter()
        .flat_map(|(n_coils, dims, window)| {
            let what = format!("{n_coils} coils, {dims:?} samples, window {window:?}");
            [
                windows(what.clone(), n_coils, dims, window),
                taps(what, n_coils, window),
            ]
        });
    let of_products = PRODUCTS.into_iter().flat_map(|[n, k]| {
        // A factor with itself, and a Hermitian matrix with a polynomial of it.
        [of_product(n, k, false), of_product(n, n, true), scale(n)]
    });
    of_calibrations.chain(of_products)
}

fn windows(what: String, n_coils: usize, dims: [usize; 3], window: [usize; 3]) -> Case {
    let samples = Rng::new(3).complex(n_coils * dims.iter().product::<usize>());
    let places = [0, 1, 2].map(|d| dims[d] - window[d] + 1);
    let mut truth = Vec::new();
    for z in 0..places[0] {
        for y in 0..places[1] {
            for x in 0..places[2] {
                for coil in 0..n_coils {
                    for a in 0..window[0] {
                        for b in 0..window[1] {
                            for c in 0..window[2] {
                                let row = ((coil * dims[0] + z + a) * dims[1] + y + b) * dims[2];
                                truth.push(samples[row + x + c]);
                            }
                        }
                    }
                }
            }
        }
    }
    Case::new("espirit_windows_c32", what, move |kernel, on| {
        let n = n_coils * window.iter().product::<usize>();
        let mut out = vec![NAN; truth.len()];
        let ([d2, d1, d0], [w2, w1, w0]) = (dims.map(int), window.map(int));
        let args = &mut [
            Arg::input(&samples),
            Arg::output(&mut out),
            int(n),
            d2,
            d1,
            d0,
            w2,
            w1,
            w0,
        ];
        let grid = [blocks(truth.len(), n), blocks(n, 256), 1];
        launch(kernel, grid, BLOCK, args, on)?;
        Ok(vec![complex_output("matrix", &out, &truth)])
    })
}

fn taps(what: String, n_coils: usize, window: [usize; 3]) -> Case {
    let size: usize = window.iter().product();
    let n = n_coils * size;
    let mut sign = Rng::new(5).complex(n * n);
    for i in 0..n {
        for j in 0..=i {
            sign[j * n + i] = sign[i * n + j].conj();
        }
        sign[i * n + i].im = 0.0;
    }
    let n_pairs = (n_coils * (n_coils + 1) / 2).next_multiple_of(8);
    let [t2, t1, t0] = window.map(|w| 2 * w - 1);
    let mut truth = vec![Complex64::ZERO; t2 * t1 * t0 * n_pairs];
    let place = |o: usize| {
        let [_, w1, w0] = window;
        [o / (w1 * w0), o / w0 % w1, o % w0]
    };
    let mut pair = 0;
    for j in 0..n_coils {
        for i in j..n_coils {
            for (a, b) in (0..size * size).map(|at| (at / size, at % size)) {
                let [d2, d1, d0] = [0, 1, 2].map(|d| place(a)[d] + window[d] - 1 - place(b)[d]);
                let (row, column) = (i * size + a, j * size + b);
                // The projector onto the rows' span is the transposed one of the normal matrix.
                let v = sign[column * n + row];
                let one = f64::from(u8::from(row == column));
                let projector = Complex64::new(one - f64::from(v.re), -f64::from(v.im)) / 2.0;
                truth[((d2 * t1 + d1) * t0 + d0) * n_pairs + pair] += projector / size as f64;
            }
            pair += 1;
        }
    }
    let truth = narrow(&truth);
    Case::new("espirit_taps_c32", what, move |kernel, on| {
        let mut out = vec![NAN; truth.len()];
        let [w2, w1, w0] = window.map(int);
        let args = &mut [
            Arg::input(&sign),
            Arg::output(&mut out),
            int(n_coils),
            int(n_pairs),
            w2,
            w1,
            w0,
        ];
        let grid = [(t2 * t1 * t0) as u32, blocks(n_pairs, 128), 1];
        launch(kernel, grid, [128, 1, 1], args, on)?;
        Ok(vec![complex_output("taps", &out, &truth)])
    })
}

fn of_product(n: usize, k: usize, is_polynomial: bool) -> Case {
    let random = Rng::new(7).complex(n * k);
    let gram = narrow(&product(&wide(&random), &wide(&random), n, 1.0, 0.0));
    let (a, b) = if is_polynomial {
        let square = product(&wide(&gram), &wide(&gram), n, 0.01, 2.0);
        (gram, narrow(&square))
    } else {
        (random.clone(), random)
    };
    // Of one sign: what cancels has no digits to compare.
    let (scale, alpha, beta) = (0.25f32, -1.5f32, -0.75f32);
    let truth = product(&wide(&a), &wide(&b), n, -0.375, -0.75);
    let what = format!("{n} x {n} of {k} rows, polynomial: {is_polynomial}");
    Case::new("hermitian_product_c32", what, move |kernel, on| {
        let mut out = vec![NAN; n * n];
        let args = &mut [
            Arg::input(&a),
            Arg::input(&b),
            Arg::input(std::slice::from_ref(&scale)),
            Arg::output(&mut out),
            int(n),
            int(k),
            Arg::F32(alpha),
            Arg::F32(beta),
        ];
        let t = n.div_ceil(32);
        launch(kernel, [(t * (t + 1) / 2) as u32, 1, 1], BLOCK, args, on)?;
        let is_hermitian = (0..n * n).all(|at| out[at] == out[at % n * n + at / n].conj());
        if !is_hermitian {
            return Err("not Hermitian to the bit".into());
        }
        Ok(vec![complex_output("out", &out, &narrow(&truth))])
    })
}

fn scale(n: usize) -> Case {
    let mut rng = Rng::new(9);
    let (m, other) = (rng.complex(n * n), rng.complex(n * n));
    // Far from zero, which they are divided by.
    let m: Vec<Complex32> = m.iter().map(|v| v + 3.0).collect();
    let other: Vec<Complex32> = other.iter().map(|v| v + 2.0).collect();
    let trace: f64 = (0..n).map(|i| f64::from(m[i * n + i].re)).sum();
    let dots: Vec<f64> = wide(&m)
        .chunks_exact(n)
        .zip(wide(&other).chunks_exact(n))
        .map(|(a, b)| a.iter().zip(b).map(|(a, b)| (a.conj() * b).re).sum())
        .collect();
    let sum: f64 = dots.iter().sum();
    let truths = [5.0 * trace / sum, 1.0 / (trace * trace)].map(|v| v as f32);
    let narrow: Vec<f32> = dots.iter().map(|v| *v as f32).collect();
    let mut case = Case::new(
        "trace_scale_f32",
        format!("{n} x {n}"),
        move |kernel, on| {
            let twin = kernel.strip_suffix("trace_scale_f32").unwrap_or_default();
            let mut found = vec![f64::NAN; n];
            let args = &mut [
                Arg::input(&m),
                Arg::input(&other),
                Arg::output(&mut found),
                int(n),
            ];
            launch(
                &format!("{twin}row_dots_f64"),
                [n as u32, 1, 1],
                BLOCK,
                args,
                on,
            )?;
            let mut scales = [f32::NAN; 2];
            for (is_power, scale) in (0..).zip(&mut scales) {
                let args = &mut [
                    Arg::input(&m),
                    Arg::input(&found),
                    Arg::output(std::slice::from_mut(scale)),
                    int(n),
                    Arg::I32(is_power),
                    Arg::F32(5.0),
                ];
                launch(kernel, [1, 1, 1], BLOCK, args, on)?;
            }
            let found: Vec<f32> = found.iter().map(|v| *v as f32).collect();
            Ok(vec![
                output("dots", &found, &narrow),
                output("scale by dots", &scales[..1], &truths[..1]),
                output("scale of a power", &scales[1..], &truths[1..]),
            ])
        },
    );
    case.others = &["row_dots_f64"];
    case
}
