//! Interleaved scans.

use super::*;

const R: usize = 3;

/// Five repetitions, each of which keeps every third line, beginning one later than the one before.
fn interleaved() -> Simulated {
    let mut s = simulate(&Simulate {
        n_repetitions: 5,
        noise_std: 1.0,
        ..small()
    })
    .unwrap();
    s.acquisitions.retain(|a| {
        let idx = &a.head.idx;
        a.head.has(Flag::IsNoiseMeasurement)
            || usize::from(idx.kspace_encode_step_1) % R == usize::from(idx.repetition) % R
    });
    let n = s.acquisitions.len();
    for i in 0..n {
        let repetition = s.acquisitions[i].head.idx.repetition;
        let is_last = i + 1 == n || s.acquisitions[i + 1].head.idx.repetition != repetition;
        if is_last && !s.acquisitions[i].head.has(Flag::IsNoiseMeasurement) {
            s.acquisitions[i].head.set(Flag::LastInSlice);
        }
    }
    s.header.encoding[0].parallel_imaging = Some(ismrmrd::header::ParallelImaging {
        acceleration_factor: [R as u32, 1],
        calibration_mode: Some("interleaved".into()),
        interleaving_dimension: Some("repetition".into()),
        multiband: None,
    });
    s
}

/// Frames as they come, readout by readout: how many readouts were in when each came, and the frame.
fn live(s: &Simulated, params: &IngestParams) -> (Vec<(usize, Frame)>, Vec<Frame>) {
    let mut ingest = Ingest::plan(&s.header, params, None).unwrap();
    let mut came = Vec::new();
    for (i, a) in s.acquisitions.iter().enumerate() {
        ingest.push(&[a.as_ref()]).unwrap();
        for frame in ingest.take_complete().unwrap() {
            came.push((i, frame.assemble().unwrap()));
        }
    }
    let rest = ingest.finish().unwrap().frames;
    (
        came,
        rest.into_iter().map(|f| f.assemble().unwrap()).collect(),
    )
}

#[test]
fn a_frame_is_calibrated_from_itself_and_those_before_it_and_none_waits_but_the_first() {
    let s = interleaved();
    let (came, rest) = live(&s, &IngestParams::default());
    assert_eq!(came.len(), 5);
    assert!(rest.is_empty());
    let keys: Vec<u16> = came.iter().map(|(_, f)| f.key.repetition).collect();
    assert_eq!(keys, [0, 1, 2, 3, 4]);
    // The third frame's last readout frees the first three; the others come with their own last readout.
    assert!(came[0].0 == came[2].0 && came[2].0 < came[3].0 && came[3].0 < came[4].0);
    let line = |k: &crate::data::KSpace, pe1: u32, coil: usize| {
        let i = k.lines.iter().position(|l| l.pe1 == pe1)?;
        Some(k.line(coil, i).to_vec())
    };
    for (i, (_, frame)) in came.iter().enumerate() {
        let reference = frame.reference.as_ref().unwrap();
        assert_eq!(reference.lines.len(), 20, "all lines, each once");
        for pe1 in 0..20u32 {
            // The newest of the frames up to this one, or up to the third.
            let from = (0..=i.max(R - 1))
                .rev()
                .find(|r| r % R == pe1 as usize % R)
                .unwrap();
            for coil in 0..3 {
                let expected = line(&came[from].1.kspace, pe1, coil).unwrap();
                let found = line(reference, pe1, coil).unwrap();
                assert!(expected == found, "frame {i} line {pe1}");
                // A twin that keeps the lines of the first frames for ever is seen.
                let stale = line(&came[pe1 as usize % R].1.kspace, pe1, coil).unwrap();
                assert!(from < R || stale != found);
            }
        }
        assert!(codes(&frame.notes).contains(&"reference_rolling"));
    }
}

#[test]
fn a_sliding_window_takes_the_missing_lines_from_the_frames_before() {
    let s = interleaved();
    let params = IngestParams {
        interleaved: Interleaved::SlidingWindow,
        ..IngestParams::default()
    };
    let (came, _) = live(&s, &params);
    let (parallel, _) = live(&s, &IngestParams::default());
    for ((_, window), (_, own)) in came.iter().zip(&parallel) {
        assert_eq!(window.kspace.lines.len(), 20);
        assert!(window.reference.is_none());
        assert!(codes(&window.notes).contains(&"sliding_window"));
        for (i, l) in own.kspace.lines.iter().enumerate() {
            let at = window.kspace.lines.iter().position(|w| w.pe1 == l.pe1);
            assert!(window.kspace.line(0, at.unwrap()) == own.kspace.line(0, i));
        }
    }
}

#[test]
fn a_scan_that_ends_before_its_frames_fill_k_space_still_gives_them() {
    let mut s = interleaved();
    s.acquisitions
        .retain(|a| a.head.has(Flag::IsNoiseMeasurement) || a.head.idx.repetition < 2);
    let (came, rest) = live(&s, &IngestParams::default());
    assert!(came.is_empty());
    assert_eq!(rest.len(), 2);
    let reference = rest[0].reference.as_ref().unwrap();
    assert!((13..=14).contains(&reference.lines.len()));
}

#[test]
fn a_file_gives_the_frames_of_the_stream() {
    let s = interleaved();
    let (came, _) = live(&s, &IngestParams::default());
    let live: Vec<Frame> = came.into_iter().map(|(_, f)| f).collect();
    same(&live, &frames(&s));
}

#[test]
fn lines_of_frames_that_wait_count_as_held_and_no_more_are_held_with_time() {
    let s = interleaved();
    for interleaved in [Interleaved::Parallel, Interleaved::SlidingWindow] {
        let params = IngestParams {
            interleaved,
            ..IngestParams::default()
        };
        let mut ingest = Ingest::plan(&s.header, &params, None).unwrap();
        let (mut line, mut released) = (0, 0);
        let mut held = Vec::new();
        for a in s.acquisitions.iter() {
            ingest.push(&[a.as_ref()]).unwrap();
            if line == 0 {
                line = ingest.held_bytes();
            }
            let before = ingest.held_bytes();
            let n = ingest.take_complete().unwrap().len();
            released += n;
            if released == 0 && a.head.has(Flag::LastInSlice) {
                // A complete frame that cannot be calibrated yet is held as before, and what calibrates the others.
                assert!(ingest.held_bytes() > before);
            }
            if n > 0 {
                held.push(ingest.held_bytes());
            }
        }
        // All lines lie near the centre of so small a matrix: three frames of them, 20 lines in all.
        assert_eq!(held, vec![20 * line; 3]);
        ingest.finish().unwrap();
    }
}
