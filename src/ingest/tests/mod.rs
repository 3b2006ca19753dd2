//! Whole scans through the door.

mod counters;
mod noise;
mod rolling;

use ismrmrd::acquisition::AcquisitionRef;
use ismrmrd::{Acquisition, AcquisitionFlag as Flag};
use num_complex::Complex32;
use proptest::prelude::*;

use super::*;
use crate::data::Frame;
use crate::phantom::{Object, Simulate, Simulated, simulate};

fn refs(a: &[Acquisition]) -> Vec<AcquisitionRef<'_>> {
    a.iter().map(Acquisition::as_ref).collect()
}

fn ingest(s: &Simulated, p: &IngestParams) -> Result<(Vec<Frame>, Ingested), IngestError> {
    let mut ingest = Ingest::plan(&s.header, p, None)?;
    ingest.push(&refs(&s.acquisitions))?;
    let mut done = ingest.finish()?;
    let frames = std::mem::take(&mut done.frames)
        .into_iter()
        .map(PendingFrame::assemble)
        .collect::<Result<_, _>>()?;
    Ok((frames, done))
}

fn frames(s: &Simulated) -> Vec<Frame> {
    ingest(s, &IngestParams::default()).unwrap().0
}

fn codes(notes: &[Note]) -> Vec<&'static str> {
    notes.iter().map(|n| n.code).collect()
}

fn small() -> Simulate {
    Simulate {
        matrix: [24, 20, 1],
        n_coils: 3,
        object: Object::Body,
        n_noise_readouts: 8,
        noise_samples: 64,
        ..Simulate::default()
    }
}

/// Without noise, so that samples compare.
fn silent() -> Simulate {
    Simulate {
        noise_std: 0.0,
        n_noise_readouts: 0,
        ..small()
    }
}

fn nrmse(a: &[Complex32], b: &[Complex32]) -> f64 {
    assert_eq!(a.len(), b.len());
    let e: f64 = a
        .iter()
        .zip(b)
        .map(|(a, b)| f64::from((a - b).norm_sqr()))
        .sum();
    let n: f64 = b.iter().map(|b| f64::from(b.norm_sqr())).sum();
    (e / n).sqrt()
}

fn same(a: &[Frame], b: &[Frame]) {
    assert_eq!(a.len(), b.len());
    for (a, b) in a.iter().zip(b) {
        assert_eq!(a.key, b.key);
        assert_eq!(a.kspace.lines, b.kspace.lines);
        assert_eq!(a.kspace.ro_range, b.kspace.ro_range);
        assert!(
            a.kspace.samples == b.kspace.samples,
            "samples differ in {:?}",
            a.key
        );
        match (&a.reference, &b.reference) {
            (None, None) => {}
            (Some(a), Some(b)) => {
                assert_eq!(a.lines, b.lines);
                assert!(a.samples == b.samples);
            }
            _ => panic!("one has a reference"),
        }
        assert_eq!(a.notes, b.notes);
        assert_eq!(a.geometry, b.geometry);
        assert_eq!(a.stamps, b.stamps);
    }
}

#[test]
fn one_sample_by_hand() {
    // 4 x 2 matrix, one coil, no oversampling: what comes in goes out at its place.
    let sim = Simulate {
        matrix: [4, 2, 1],
        n_coils: 1,
        oversampling: 1.0,
        ..silent()
    };
    let mut s = simulate(&sim).unwrap();
    for (i, a) in s.acquisitions.iter_mut().enumerate() {
        a.data = (0..4)
            .map(|k| Complex32::new((10 * i + k) as f32, 0.0))
            .collect();
    }
    let f = &frames(&s)[0];
    assert_eq!(f.kspace.shape.ro, 4);
    assert_eq!(f.kspace.line(0, 0)[3].re, 3.0);
    assert_eq!(f.kspace.line(0, 1)[0].re, 10.0);
    assert!(!f.is_whitened);
    assert_eq!(codes(&f.notes), ["no_noise_scan"]);
}

#[test]
fn oversampled_scan_agrees_with_plain_one() {
    let plain = frames(
        &simulate(&Simulate {
            oversampling: 1.0,
            ..silent()
        })
        .unwrap(),
    );
    let over = frames(&simulate(&silent()).unwrap());
    assert_eq!(over[0].kspace.shape, plain[0].kspace.shape);
    // Only the ringing beyond the field of view, which the plain scan folds in, differs; and √2 of the unitary scale.
    let e = nrmse(&over[0].kspace.samples, &plain[0].kspace.samples);
    assert!(e < 0.06, "{e}");
    // wrong twin: off by one sample
    let mut twin = over[0].kspace.samples.clone();
    twin.rotate_left(1);
    assert!(nrmse(&twin, &plain[0].kspace.samples) > 0.3);
}

#[test]
fn reversed_and_discarded_samples_change_nothing() {
    let plain = frames(&simulate(&silent()).unwrap());
    for sim in [
        Simulate {
            is_alternating: true,
            ..silent()
        },
        Simulate {
            discard: [3, 2],
            ..silent()
        },
        Simulate {
            discard: [3, 2],
            is_alternating: true,
            ..silent()
        },
    ] {
        let got = frames(&simulate(&sim).unwrap());
        assert!(got[0].kspace.samples == plain[0].kspace.samples);
    }
    // wrong twin: the flag forgotten
    let mut s = simulate(&Simulate {
        is_alternating: true,
        ..silent()
    })
    .unwrap();
    s.acquisitions
        .iter_mut()
        .for_each(|a| a.head.clear(Flag::IsReverse));
    assert!(frames(&s)[0].kspace.samples != plain[0].kspace.samples);
}

#[test]
fn asymmetric_echo_is_placed() {
    let plain = &frames(&simulate(&silent()).unwrap())[0];
    let f = &frames(
        &simulate(&Simulate {
            asymmetric_echo: 0.75,
            ..silent()
        })
        .unwrap(),
    )[0];
    assert_eq!(f.kspace.ro_range, 6..24);
    for line in 0..20 {
        assert_eq!(f.kspace.line(1, line)[..6], [Complex32::ZERO; 6]);
        // The edge of what was measured rings a little into its neighbours.
        assert!(
            nrmse(
                &f.kspace.line(1, line)[8..],
                &plain.kspace.line(1, line)[8..]
            ) < 0.1
        );
    }
    // wrong twin: the echo taken to be at the middle of what was measured
    let mut twin = simulate(&Simulate {
        asymmetric_echo: 0.75,
        ..silent()
    })
    .unwrap();
    for a in &mut twin.acquisitions {
        a.head.center_sample = a.head.number_of_samples / 2;
    }
    let f = &frames(&twin)[0];
    assert!(nrmse(&f.kspace.line(1, 10)[8..], &plain.kspace.line(1, 10)[8..]) > 0.3);
}

#[test]
fn partial_fourier_lines_keep_their_place() {
    let plain = &frames(&simulate(&silent()).unwrap())[0];
    let f = &frames(
        &simulate(&Simulate {
            partial_fourier: [0.7, 1.0],
            ..silent()
        })
        .unwrap(),
    )[0];
    assert_eq!(f.kspace.lines.len(), 14);
    assert_eq!(f.kspace.lines[0].pe1, 6);
    assert!(f.kspace.line(2, 4) == plain.kspace.line(2, 10));
    assert_eq!(codes(&f.notes), ["no_noise_scan"]);
}

#[test]
fn phase_oversampling_stays_on_the_grid() {
    let f = &frames(
        &simulate(&Simulate {
            phase_oversampling: [0.5, 0.0],
            ..silent()
        })
        .unwrap(),
    )[0];
    assert_eq!((f.kspace.shape.pe1, f.kspace.shape.ro), (30, 24));
    assert_eq!(f.geometry.matrix, [24, 20, 1]);
    assert_eq!(f.geometry.field_of_view_mm(), [240.0, 240.0, 5.0]);
}

#[test]
fn presets_leave_no_unexpected_marks() {
    for name in ["small", "tse", "caipi", "random"] {
        let mut sim = Simulate::preset(name).unwrap();
        sim.n_coils = 2;
        sim.n_slices = sim.n_slices.min(2);
        sim.matrix = sim.matrix.map(|n| n.div_ceil(4));
        sim.acs = sim.acs.map(|n| n / 4);
        let f = frames(&simulate(&sim).unwrap());
        let allowed = match name {
            "tse" => vec!["averages_combined"],
            "random" => vec!["irregular_sampling"],
            _ => vec![],
        };
        assert_eq!(codes(&f[0].notes), allowed, "{name}: {:?}", f[0].notes);
    }
}

#[test]
fn streamed_frames_are_those_of_the_file() {
    let sim = Simulate {
        n_slices: 4,
        n_averages: 2,
        acceleration: [2, 1],
        acs: [6, 0],
        ..small()
    };
    let s = simulate(&sim).unwrap();
    let whole = frames(&s);
    for batch in [1, 7, 50] {
        let mut door = Ingest::plan(&s.header, &IngestParams::default(), None).unwrap();
        let mut got = Vec::new();
        let mut early = 0;
        for chunk in s.acquisitions.chunks(batch) {
            door.push(&refs(chunk)).unwrap();
            let taken = door.take_complete().unwrap();
            early += taken.len();
            got.extend(taken);
        }
        got.extend(door.finish().unwrap().frames);
        assert!(early >= 3, "only {early} frames came before the end");
        let mut got: Vec<Frame> = got.into_iter().map(|f| f.assemble().unwrap()).collect();
        got.sort_by_key(|f| f.key);
        same(&got, &whole);
    }
    // a readout of a frame that is gone
    let mut door = Ingest::plan(&s.header, &IngestParams::default(), None).unwrap();
    door.push(&refs(&s.acquisitions)).unwrap();
    assert_eq!(door.take_complete().unwrap().len(), 4);
    assert!(matches!(
        door.push(&refs(&s.acquisitions[20..21])),
        Err(IngestError::Late { .. })
    ));
    // flags that lie: nothing is handed on before the end
    let p = IngestParams {
        release: Release::End,
        ..IngestParams::default()
    };
    let mut door = Ingest::plan(&s.header, &p, None).unwrap();
    door.push(&refs(&s.acquisitions)).unwrap();
    assert!(door.take_complete().unwrap().is_empty());
    assert_eq!(door.finish().unwrap().frames.len(), 4);
}

#[test]
fn threads_change_no_bit() {
    let sim = Simulate {
        n_slices: 2,
        n_averages: 2,
        oversampling: 1.5,
        ..small()
    };
    let s = simulate(&sim).unwrap();
    let of = |threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(threads)
            .build()
            .unwrap();
        pool.install(|| frames(&s))
    };
    let one = of(1);
    same(&of(2), &one);
    same(&of(7), &one);
    let pool = rayon::ThreadPoolBuilder::new()
        .num_threads(7)
        .build()
        .unwrap();
    let again = pool.install(|| simulate(&sim).unwrap());
    assert!(
        again.acquisitions == s.acquisitions,
        "the simulator depends on threads"
    );
}

#[test]
fn hostile_scans_are_refused_with_their_place() {
    let good = simulate(&small()).unwrap();
    let p = IngestParams::default();
    let fails = |change: &dyn Fn(&mut Simulated)| {
        let mut s = good.clone();
        change(&mut s);
        ingest(&s, &p).unwrap_err().to_string()
    };
    let e = fails(&|s| s.acquisitions[12].data[5].re = f32::NAN);
    assert!(
        e.contains("1 samples that are NaN") && e.contains("acquisition 12"),
        "{e}"
    );
    let e = fails(&|s| {
        s.acquisitions[20].data[100].im = f32::INFINITY;
        s.acquisitions[14].data[3].im = f32::NEG_INFINITY;
    });
    assert!(
        e.contains("2 samples") && e.contains("acquisition 14"),
        "{e}"
    );
    let e = fails(&|s| {
        s.acquisitions[15].head.active_channels = 2;
        s.acquisitions[15].data.truncate(96);
    });
    assert!(e.contains("acquisition 15") && e.contains("2 coils"), "{e}");
    let e = fails(&|s| {
        s.acquisitions[15].data.pop();
    });
    assert!(
        e.contains("acquisition 15") && e.contains("143 complex samples"),
        "{e}"
    );
    let e = fails(&|s| s.acquisitions[15].head.idx.kspace_encode_step_1 = 400);
    assert!(e.contains("line 400"), "{e}");
    let e = fails(&|s| s.acquisitions[15].head.encoding_space_ref = 3);
    assert!(e.contains("encoding 3"), "{e}");
    let e = fails(&|s| s.acquisitions[15].head.center_sample = 0);
    assert!(e.contains("outside the encoded matrix"), "{e}");
    let e = fails(&|s| s.acquisitions[15].head.set(Flag::Compression2));
    assert!(e.contains("compressed"), "{e}");
    let e = fails(&|s| s.acquisitions.truncate(8));
    assert!(
        e.contains("no imaging readout") && e.contains("8 noise"),
        "{e}"
    );
    let e = fails(&|s| s.acquisitions.clear());
    assert!(e.contains("no readouts at all"), "{e}");
    // a long finite sample is no NaN
    let mut s = good.clone();
    s.acquisitions[12].data[5].re = 1e30;
    assert!(ingest(&s, &p).is_ok());
}

#[test]
fn other_readouts_are_set_aside_and_counted() {
    let mut s = simulate(&small()).unwrap();
    for (flag, at) in [
        (Flag::IsNavigationData, 9),
        (Flag::IsPhasecorrData, 10),
        (Flag::IsDummyscanData, 11),
        (Flag::IsDummyscanData, 12),
    ] {
        let mut a = s.acquisitions[at].clone();
        a.head.set(flag);
        s.acquisitions.insert(at, a);
    }
    let (f, done) = ingest(&s, &IngestParams::default()).unwrap();
    assert!(f[0].notes.is_empty());
    let note = done
        .notes
        .iter()
        .find(|n| n.code == "readouts_set_aside")
        .unwrap();
    assert_eq!(
        note.text,
        "set aside: 2 dummy, 1 navigator, 1 phase correction"
    );
    assert!(
        done.steps
            .iter()
            .any(|s| s.op == "ingest/sort" && s.detail.contains("20 imaging"))
    );
}

#[test]
fn lines_outside_can_be_skipped() {
    let mut s = simulate(&small()).unwrap();
    s.acquisitions[15].head.idx.kspace_encode_step_1 = 400;
    let p = IngestParams {
        lines_outside: LinesOutside::Skip,
        ..IngestParams::default()
    };
    let (f, done) = ingest(&s, &p).unwrap();
    assert_eq!(codes(&f[0].notes), ["missing_lines"]);
    assert_eq!(codes(&done.notes), ["lines_outside_skipped"]);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn any_order_and_division_give_the_same_frames(
        order in Just((0..88usize).collect::<Vec<_>>()).prop_shuffle(),
        batch in 1usize..40,
    ) {
        let sim = Simulate {
            matrix: [12, 20, 1],
            n_slices: 2,
            n_averages: 2,
            n_coils: 2,
            is_alternating: true,
            ..small()
        };
        let s = simulate(&sim).unwrap();
        prop_assert_eq!(s.acquisitions.len(), 88);
        let want = frames(&s);
        let shuffled: Vec<Acquisition> = order.iter().map(|&i| s.acquisitions[i].clone()).collect();
        let mut door = Ingest::plan(&s.header, &IngestParams::default(), None).unwrap();
        for chunk in shuffled.chunks(batch) {
            door.push(&refs(chunk)).unwrap();
        }
        let got: Vec<Frame> =
            door.finish().unwrap().frames.into_iter().map(|f| f.assemble().unwrap()).collect();
        same(&got, &want);
    }
}

#[test]
fn siemens_directions_are_turned_and_said() {
    let mut scan = simulate(&silent()).unwrap();
    let stated = frames(&scan).remove(0).geometry;
    let system = scan.header.acquisition_system_information.as_mut().unwrap();
    system.system_vendor = Some("SIEMENS".into());
    let frame = frames(&scan).remove(0);
    assert!(codes(&frame.notes).contains(&"directions_turned"));
    assert_eq!(frame.geometry.read_dir, stated.read_dir.map(|v| -v));
    assert_eq!(frame.geometry.phase_dir, stated.phase_dir.map(|v| -v));
    assert_eq!(frame.geometry.slice_dir, stated.slice_dir);
    assert_eq!(frame.geometry.centre_mm, stated.centre_mm);
    let as_stated = IngestParams {
        directions: Directions::AsStated,
        ..IngestParams::default()
    };
    let (mut kept, _) = ingest(&scan, &as_stated).unwrap();
    assert_eq!(kept.remove(0).geometry, stated);
}
