//! Counters: which readouts make one frame, where its lines lie, what is averaged, shared, repeated or missing.

use super::noise::{frame_covariance, noisy};
use super::*;
use crate::phantom::CalibrationLines;

#[test]
fn averages_are_combined_or_kept_apart() {
    let s = simulate(&Simulate {
        n_averages: 4,
        ..noisy()
    })
    .unwrap();
    let (f, _) = ingest(&s, &IngestParams::default()).unwrap();
    assert_eq!(f.len(), 1);
    assert!(f[0].kspace.lines.iter().all(|l| l.averages == 4));
    assert_eq!(codes(&f[0].notes), ["averages_combined"]);
    // the mean of four: variance a quarter
    assert!((frame_covariance(&f[0])[0].re - 0.5).abs() < 0.05);
    // wrong twin: averages counted as repetitions are not averaged
    let mut twin = s.clone();
    for a in &mut twin.acquisitions {
        std::mem::swap(&mut a.head.idx.average, &mut a.head.idx.repetition);
    }
    let f4 = frames(&twin);
    assert_eq!(f4.len(), 4);
    assert!((frame_covariance(&f4[0])[0].re - 0.5).abs() > 1.0);
    let apart = IngestParams {
        averages: Averages::Apart,
        ..IngestParams::default()
    };
    let (f, _) = ingest(&s, &apart).unwrap();
    assert_eq!(
        f.iter().map(|f| f.key.average).collect::<Vec<_>>(),
        [0, 1, 2, 3]
    );
    assert!(f[0].notes.is_empty());
}

#[test]
fn repeated_and_missing_lines_are_said() {
    let mut s = simulate(&silent()).unwrap();
    let mut again = s.acquisitions[7].clone();
    again.head.scan_counter = 1000;
    s.acquisitions.push(again);
    s.acquisitions.remove(3);
    let f = &frames(&s)[0];
    assert_eq!(
        codes(&f.notes),
        ["no_noise_scan", "repeated_lines", "missing_lines"]
    );
    assert!(f.notes[1].text.contains("pe1 7"), "{}", f.notes[1].text);
    assert!(f.notes[2].text.contains("pe1 3"), "{}", f.notes[2].text);
    assert_eq!(f.kspace.lines.len(), 19);
    assert_eq!(f.kspace.lines[6].averages, 2);
}

#[test]
fn keys_order_frames() {
    let sim = Simulate {
        matrix: [6, 4, 1],
        n_slices: 3,
        n_contrasts: 2,
        n_repetitions: 2,
        n_sets: 2,
        n_phases: 2,
        ..silent()
    };
    let f = frames(&simulate(&sim).unwrap());
    assert_eq!(f.len(), 48);
    assert!(f.windows(2).all(|w| w[0].key < w[1].key));
    // slices lie 6 mm apart along z, around the centre
    let z: Vec<f32> = f
        .iter()
        .filter(|f| f.key.repetition == 0 && f.key.contrast == 0)
        .take(6)
        .step_by(2)
        .map(|f| f.geometry.centre_mm[2])
        .collect();
    assert_eq!(z, [-6.0, 0.0, 6.0]);
}

#[test]
fn calibration_lines_go_where_the_mode_says() {
    let base = Simulate {
        matrix: [16, 24, 1],
        acceleration: [3, 1],
        acs: [8, 0],
        n_repetitions: 2,
        ..silent()
    };
    // embedded: all in k-space
    let f = frames(&simulate(&base).unwrap());
    assert!(f.iter().all(
        |f| f.reference.is_none() && f.kspace.lines.len() == 8 + 6 - 1
            || f.kspace.lines.len() == 8 + 5
    ));
    assert_eq!(codes(&f[0].notes), ["no_noise_scan"]);
    // separate: apart, and shared with the second repetition
    let sim = Simulate {
        calibration: CalibrationLines::Separate,
        ..base
    };
    let s = simulate(&sim).unwrap();
    let f = frames(&s);
    assert_eq!(f.len(), 2);
    assert_eq!(f[0].kspace.lines.len(), 8);
    assert_eq!(f[0].reference.as_ref().unwrap().lines.len(), 8);
    assert!(f[1].reference.as_ref().unwrap().samples == f[0].reference.as_ref().unwrap().samples);
    assert_eq!(codes(&f[1].notes), ["no_noise_scan", "reference_shared"]);
    // wrong twin: the flag forgotten, the reference lines are taken for lines of the scan
    let mut twin = s.clone();
    for a in &mut twin.acquisitions {
        a.head.clear(Flag::IsParallelCalibration);
    }
    assert!(frames(&twin)[0].kspace.lines.len() > 8 && frames(&twin)[0].reference.is_none());
    // a header that calls them embedded is contradicted by the repeats
    let mut s = s;
    if let Some(p) = &mut s.header.encoding[0].parallel_imaging {
        p.calibration_mode = Some("embedded".into());
    }
    let f = frames(&s);
    assert!(f[0].reference.is_some());
    assert!(codes(&f[0].notes).contains(&"calibration_repeats_imaging"));
}

/// The frames' samples times a number that only the right readouts carry.
fn is_marked(
    frames: &[Frame],
    plain: &[Frame],
    mark: &dyn Fn(&crate::data::FrameKey) -> f32,
) -> bool {
    frames.len() == plain.len()
        && frames.iter().zip(plain).all(|(f, p)| {
            let wanted: Vec<Complex32> =
                p.kspace.samples.iter().map(|v| v * mark(&f.key)).collect();
            f.key == p.key && nrmse(&f.kspace.samples, &wanted) < 1e-6
        })
}

#[test]
fn every_counter_finds_its_frame() {
    let sim = Simulate {
        matrix: [6, 4, 1],
        n_slices: 3,
        n_contrasts: 2,
        n_repetitions: 2,
        n_sets: 2,
        n_phases: 2,
        ..silent()
    };
    let scan = simulate(&sim).unwrap();
    let plain = frames(&scan);
    let mut marked = scan.clone();
    for a in &mut marked.acquisitions {
        let i = &a.head.idx;
        let n = i.slice + 4 * i.contrast + 8 * i.repetition + 16 * i.set + 32 * i.phase + 1;
        a.data.iter_mut().for_each(|v| *v *= f32::from(n));
    }
    let mark = |k: &crate::data::FrameKey| {
        let n =
            k.slice_idx + 4 * k.contrast + 8 * k.repetition + 16 * k.set + 32 * k.cardiac_phase + 1;
        f32::from(n)
    };
    assert!(is_marked(&frames(&marked), &plain, &mark));
    // wrong twins: each pair of counters exchanged
    type Swap = fn(&mut ismrmrd::EncodingCounters);
    let swaps: [Swap; 4] = [
        |i| std::mem::swap(&mut i.contrast, &mut i.repetition),
        |i| std::mem::swap(&mut i.repetition, &mut i.set),
        |i| std::mem::swap(&mut i.set, &mut i.phase),
        |i| i.slice = 2 - i.slice,
    ];
    for swap in swaps {
        let mut twin = marked.clone();
        twin.acquisitions
            .iter_mut()
            .for_each(|a| swap(&mut a.head.idx));
        assert!(!is_marked(&frames(&twin), &plain, &mark));
    }
}

#[test]
fn segments_are_parts_of_one_frame() {
    let sim = Simulate {
        echo_train_length: 5,
        ..silent()
    };
    let scan = simulate(&sim).unwrap();
    assert!(scan.acquisitions.iter().any(|a| a.head.idx.segment == 4));
    let plain = frames(&simulate(&silent()).unwrap());
    let f = frames(&scan);
    assert_eq!(f.len(), 1);
    assert_eq!(f[0].kspace.lines, plain[0].kspace.lines);
    // wrong twin: segments taken for sets fall apart
    let mut twin = scan.clone();
    for a in &mut twin.acquisitions {
        a.head.idx.set = a.head.idx.segment;
    }
    assert_eq!(frames(&twin).len(), 5);
}

#[test]
fn partitions_are_the_second_phase_axis() {
    let sim = Simulate {
        matrix: [8, 6, 4],
        n_coils: 2,
        ..silent()
    };
    let scan = simulate(&sim).unwrap();
    let holds = |scan: &Simulated| {
        let f = &frames(scan)[0];
        let shape = (f.kspace.shape.ro, f.kspace.shape.pe1, f.kspace.shape.pe2);
        let lines: Vec<(u32, u32)> = f.kspace.lines.iter().map(|l| (l.pe2, l.pe1)).collect();
        // Slowest first, and each line where its counters say.
        let order: Vec<(u32, u32)> = (0..4).flat_map(|z| (0..6).map(move |y| (z, y))).collect();
        let strongest = (0..24)
            .max_by(|&a, &b| {
                let energy = |i| {
                    f.kspace
                        .line(0, i)
                        .iter()
                        .map(|v| v.norm_sqr())
                        .sum::<f32>()
                };
                energy(a).total_cmp(&energy(b))
            })
            .unwrap();
        shape == (8, 6, 4) && lines == order && order[strongest] == (2, 3)
    };
    assert!(holds(&scan));
    // wrong twin: the counters exchanged
    let mut twin = scan.clone();
    for a in &mut twin.acquisitions {
        let i = &mut a.head.idx;
        std::mem::swap(&mut i.kspace_encode_step_1, &mut i.kspace_encode_step_2);
    }
    let p = IngestParams {
        lines_outside: LinesOutside::Skip,
        ..IngestParams::default()
    };
    let (f, done) = ingest(&twin, &p).unwrap();
    assert!(f[0].kspace.lines.len() < 24 && codes(&done.notes).contains(&"lines_outside_skipped"));
}

#[test]
fn repeated_lines_are_averaged_not_added() {
    let plain = frames(&simulate(&silent()).unwrap());
    let mut scan = simulate(&silent()).unwrap();
    let mut again = scan.acquisitions[7].clone();
    again.head.scan_counter = 1000;
    again.data.iter_mut().for_each(|v| *v *= 3.0);
    scan.acquisitions.push(again);
    let f = &frames(&scan)[0];
    let scaled =
        |by: f32| -> Vec<Complex32> { plain[0].kspace.line(1, 7).iter().map(|v| v * by).collect() };
    assert!(nrmse(f.kspace.line(1, 7), &scaled(2.0)) < 1e-6);
    // wrong twins: the last one wins, the first one wins, the sum
    for wrong in [3.0, 1.0, 4.0] {
        assert!(nrmse(f.kspace.line(1, 7), &scaled(wrong)) > 0.2);
    }
    assert_eq!(f.kspace.line(1, 8), plain[0].kspace.line(1, 8));
}
