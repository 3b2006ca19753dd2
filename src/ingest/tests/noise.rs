//! Noise: from the scan, from another file, from the edges; dead and copied coils.

use num_complex::Complex64;

use super::*;

/// Sample covariance of a frame that is all noise.
pub(super) fn frame_covariance(f: &Frame) -> Vec<Complex64> {
    let n = f.kspace.shape.coil;
    let mut c = vec![Complex64::ZERO; n * n];
    let m = f.kspace.coil(0).len();
    for i in 0..n {
        for j in 0..n {
            for (a, b) in f.kspace.coil(i).iter().zip(f.kspace.coil(j)) {
                c[i * n + j] += Complex64::new(a.re.into(), a.im.into())
                    * Complex64::new(b.re.into(), b.im.into()).conj();
            }
            c[i * n + j] /= m as f64;
        }
    }
    c
}

pub(super) fn noisy() -> Simulate {
    Simulate {
        matrix: [64, 64, 1],
        noise_std: 1e4, // the object is nothing beside it
        n_noise_readouts: 64,
        noise_samples: 512,
        noise_correlation: 0.6,
        noise_dwell_us: 3.0,
        dwell_us: 7.0,
        noise_bandwidth_ratio: 0.8,
        ..small()
    }
}

fn is_white(c: &[Complex64]) -> bool {
    let n = c.len().isqrt();
    c.iter().enumerate().all(|(k, v)| {
        let want = if k % (n + 1) == 0 { 2.0 } else { 0.0 };
        (v - want).norm() < 0.12 // 4096 samples, 32768 of noise
    })
}

#[test]
fn whitened_noise_is_white_with_unit_components() {
    let s = simulate(&noisy()).unwrap();
    let (f, done) = ingest(&s, &IngestParams::default()).unwrap();
    assert!(f[0].is_whitened);
    assert!(
        is_white(&frame_covariance(&f[0])),
        "{:?}",
        frame_covariance(&f[0])
    );
    let noise = done.noise.unwrap();
    assert_eq!((noise.n_samples, noise.dwell_us), (64 * 512, Some(3.0)));
    assert!(f[0].notes.is_empty());
    // wrong twins: no whitening; dwell ignored; bandwidth ignored; samples conjugated (as a conjugated matrix would)
    let off = IngestParams {
        whiten: Whiten::Off,
        ..IngestParams::default()
    };
    assert!(!is_white(&frame_covariance(
        &ingest(&s, &off).unwrap().0[0]
    )));
    let mut twin = s.clone();
    twin.acquisitions
        .iter_mut()
        .for_each(|a| a.head.sample_time_us = 5.0);
    assert!(!is_white(&frame_covariance(&frames(&twin)[0])));
    let flat = IngestParams {
        noise_bandwidth_ratio: Some(1.0),
        ..IngestParams::default()
    };
    assert!(!is_white(&frame_covariance(
        &ingest(&s, &flat).unwrap().0[0]
    )));
    let mut twin = s.clone();
    for a in &mut twin.acquisitions {
        if a.head.has(Flag::IsNoiseMeasurement) {
            a.data.iter_mut().for_each(|v| *v = v.conj());
        }
    }
    assert!(!is_white(&frame_covariance(&frames(&twin)[0])));
}

#[test]
fn noise_from_a_separate_file() {
    let s = simulate(&noisy()).unwrap();
    let (noise, rest): (Vec<_>, Vec<_>) = s
        .acquisitions
        .iter()
        .cloned()
        .partition(|a| a.head.has(Flag::IsNoiseMeasurement));
    let psi = noise_covariance(&refs(&noise)).unwrap();
    let mut door = Ingest::plan(&s.header, &IngestParams::default(), Some(psi)).unwrap();
    door.push(&refs(&rest)).unwrap();
    let f = door.finish().unwrap().frames.remove(0).assemble().unwrap();
    assert!(f.kspace.samples == frames(&s)[0].kspace.samples);
    // another coil count is refused
    let mut psi = noise_covariance(&refs(&noise)).unwrap();
    psi.n_coils = 2;
    let mut door = Ingest::plan(&s.header, &IngestParams::default(), Some(psi)).unwrap();
    let e = door.push(&refs(&rest)).unwrap_err().to_string();
    assert!(e.contains("2 coils") && e.contains('3'), "{e}");
}

#[test]
fn missing_dwell_is_marked_never_guessed() {
    let mut s = simulate(&noisy()).unwrap();
    s.acquisitions
        .iter_mut()
        .for_each(|a| a.head.sample_time_us = 0.0);
    let f = &frames(&s)[0];
    assert!(!f.is_whitened);
    assert_eq!(codes(&f.notes), ["no_dwell"]);
    let require = IngestParams {
        whiten: Whiten::Require,
        ..IngestParams::default()
    };
    assert!(matches!(
        ingest(&s, &require),
        Err(IngestError::Noise(NoiseError::MissingDwell { .. }))
    ));
    let stated = IngestParams {
        dwell_us: Some(7.0),
        noise_dwell_us: Some(3.0),
        ..require
    };
    assert!(is_white(&frame_covariance(
        &ingest(&s, &stated).unwrap().0[0]
    )));
}

#[test]
fn noise_from_the_edges_when_asked() {
    let sim = Simulate {
        n_noise_readouts: 0,
        ..noisy()
    };
    let s = simulate(&sim).unwrap();
    let p = IngestParams {
        noise_from_edges: true,
        ..IngestParams::default()
    };
    let f = &ingest(&s, &p).unwrap().0[0];
    assert!(f.is_whitened);
    assert_eq!(codes(&f.notes), ["noise_from_edges"]);
    let c = frame_covariance(f);
    assert!((c[0].re - 2.0).abs() < 0.8, "{c:?}");
}

#[test]
fn bad_coils() {
    let mut s = simulate(&noisy()).unwrap();
    let copy = |s: &mut Simulated, f: &dyn Fn(&mut [Complex32], usize)| {
        for a in &mut s.acquisitions {
            let n = usize::from(a.head.number_of_samples);
            f(&mut a.data, n);
        }
    };
    copy(&mut s, &|d, n| d[n..2 * n].fill(Complex32::ZERO));
    let (f, done) = ingest(&s, &IngestParams::default()).unwrap();
    assert_eq!(f[0].kspace.shape.coil, 2);
    assert_eq!(codes(&f[0].notes), ["dead_coil_dropped"]);
    assert!(codes(&done.notes).contains(&"zero_coil"));
    assert!(is_white(&frame_covariance(&f[0])));
    let refuse = IngestParams {
        dead_coil: BadCoil::Refuse,
        ..IngestParams::default()
    };
    let e = ingest(&s, &refuse).unwrap_err().to_string();
    assert!(e.contains("coil 1 is dead"), "{e}");

    let mut s = simulate(&noisy()).unwrap();
    copy(&mut s, &|d, n| d.copy_within(0..n, 2 * n));
    let e = ingest(&s, &IngestParams::default())
        .unwrap_err()
        .to_string();
    assert!(e.contains("coil 2") && e.contains("repeats coil 0"), "{e}");
    let drop = IngestParams {
        duplicate_coil: BadCoil::Drop,
        ..IngestParams::default()
    };
    let (f, _) = ingest(&s, &drop).unwrap();
    assert_eq!(f[0].kspace.shape.coil, 2);
    assert_eq!(codes(&f[0].notes), ["duplicate_coil_dropped"]);
}
