//! Which lines a scan measures, and in which order.

use super::{CalibrationLines, Sampling, Simulate};
use crate::phantom::noise::Rng;

/// A line of the encoded grid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PlannedLine {
    pub(crate) pe1: usize,
    pub(crate) pe2: usize,
    /// Within the calibration region.
    pub(crate) is_acs: bool,
    /// On the undersampling pattern.
    pub(crate) is_pattern: bool,
}

/// First measured index along pe1 and pe2 (partial Fourier leaves out the first lines).
pub(crate) fn first_measured(sim: &Simulate) -> [usize; 2] {
    let n = sim.encoded_matrix();
    [0, 1].map(|i| {
        let n = n[i + 1];
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // 0.5..=1 of n
        let kept = (n as f64 * sim.partial_fourier[i]).round() as usize;
        // The centre line is always measured.
        (n - kept.clamp(1, n)).min(n / 2)
    })
}

/// All lines that an imaging frame measures, and apart from them the separate calibration lines.
pub(crate) fn lines(sim: &Simulate) -> (Vec<PlannedLine>, Vec<PlannedLine>) {
    let [_, n1, n2] = sim.encoded_matrix();
    let first = first_measured(sim);
    let acs = |i: usize, n: usize, width: usize| {
        let width = width.min(n);
        // One partition (2D): the calibration region covers it.
        let start = n / 2 - width / 2;
        n == 1 || (start..start + width).contains(&i)
    };
    let has_acs = sim.acs[0] > 0;
    let chosen = match sim.sampling {
        Sampling::Regular => None,
        Sampling::Random { fraction, power } => Some(random(sim, n1, n2, fraction, power)),
    };
    let (mut imaging, mut separate) = (Vec::new(), Vec::new());
    for pe2 in first[1]..n2 {
        for pe1 in first[0]..n1 {
            let is_acs = has_acs && acs(pe1, n1, sim.acs[0]) && acs(pe2, n2, sim.acs[1]);
            let is_pattern = match &chosen {
                Some(mask) => mask[pe2 * n1 + pe1],
                None => is_on_pattern(sim, pe1, pe2, n1, n2),
            };
            let line = PlannedLine {
                pe1,
                pe2,
                is_acs,
                is_pattern,
            };
            if sim.calibration == CalibrationLines::Separate {
                if is_acs {
                    separate.push(line);
                }
                if is_pattern {
                    imaging.push(line);
                }
            } else if is_acs || is_pattern {
                imaging.push(line);
            }
        }
    }
    (imaging, separate)
}

/// The centre is on the pattern; from one measured partition to the next the pattern moves by `caipi_shift`.
fn is_on_pattern(sim: &Simulate, pe1: usize, pe2: usize, n1: usize, n2: usize) -> bool {
    let [r1, r2] = sim.acceleration.map(|r| r as i64);
    let k1 = pe1 as i64 - (n1 / 2) as i64;
    let k2 = pe2 as i64 - (n2 / 2) as i64;
    k2.rem_euclid(r2) == 0 && (k1 - k2.div_euclid(r2) * sim.caipi_shift as i64).rem_euclid(r1) == 0
}

/// Weighted choice without replacement: the lines with the largest `u^(1/weight)`.
///
/// # Source
/// Efraimidis and Spirakis, Inf Process Lett 97:181-185 (2006), doi:10.1016/j.ipl.2005.11.003.
fn random(sim: &Simulate, n1: usize, n2: usize, fraction: f64, power: f64) -> Vec<bool> {
    let mut rng = Rng::new(sim.seed, u64::MAX);
    let mut keys: Vec<(f64, usize)> = (0..n1 * n2)
        .map(|i| {
            let d = |i: usize, n: usize| {
                if n == 1 {
                    0.0
                } else {
                    (i as f64 - (n / 2) as f64) / (n as f64 / 2.0)
                }
            };
            let distance = d(i % n1, n1).hypot(d(i / n1, n2)).min(0.999);
            let weight = (1.0 - distance).powf(power);
            ((1.0 - rng.uniform()).ln() / weight, i)
        })
        .collect();
    keys.sort_by(|a, b| b.0.total_cmp(&a.0));
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // 0..=1 of the lines
    let n = (fraction * (n1 * n2) as f64).round() as usize;
    let mut mask = vec![false; n1 * n2];
    for &(_, i) in keys.iter().take(n) {
        mask[i] = true;
    }
    mask
}

/// One readout of the scan, before its samples are made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Slot {
    pub(crate) line: PlannedLine,
    /// Index into the imaging or the separate calibration lines.
    pub(crate) line_idx: usize,
    pub(crate) is_separate: bool,
    pub(crate) slice: usize,
    pub(crate) contrast: usize,
    pub(crate) phase: usize,
    pub(crate) repetition: usize,
    pub(crate) set: usize,
    pub(crate) average: usize,
    pub(crate) segment: usize,
}

fn slice_order(sim: &Simulate) -> Vec<usize> {
    if sim.is_interleaved {
        (0..sim.n_slices)
            .step_by(2)
            .chain((1..sim.n_slices).step_by(2))
            .collect()
    } else {
        (0..sim.n_slices).collect()
    }
}

/// All readouts in order of time. Shots of a train visit all slices in turn; single lines stay with their slice.
pub(crate) fn slots(
    sim: &Simulate,
    imaging: &[PlannedLine],
    separate: &[PlannedLine],
) -> Vec<Slot> {
    let etl = sim.echo_train_length.min(imaging.len().max(1));
    let n_shots = imaging.len().div_ceil(etl);
    let slices = slice_order(sim);
    let mut out = Vec::new();
    for &slice in &slices {
        for (line_idx, &line) in separate.iter().enumerate() {
            out.push(Slot {
                line,
                line_idx,
                is_separate: true,
                slice,
                contrast: 0,
                phase: 0,
                repetition: 0,
                set: 0,
                average: 0,
                segment: 0,
            });
        }
    }
    for repetition in 0..sim.n_repetitions {
        for average in 0..sim.n_averages {
            for set in 0..sim.n_sets {
                for phase in 0..sim.n_phases {
                    let mut shot = |slice: usize, shot: usize| {
                        for segment in 0..etl {
                            let line_idx = segment * n_shots + shot;
                            let Some(&line) = imaging.get(line_idx) else {
                                continue;
                            };
                            for contrast in 0..sim.n_contrasts {
                                out.push(Slot {
                                    line,
                                    line_idx,
                                    is_separate: false,
                                    slice,
                                    contrast,
                                    phase,
                                    repetition,
                                    set,
                                    average,
                                    segment,
                                });
                            }
                        }
                    };
                    if etl > 1 {
                        (0..n_shots).for_each(|s| slices.iter().for_each(|&slice| shot(slice, s)));
                    } else {
                        slices
                            .iter()
                            .for_each(|&slice| (0..n_shots).for_each(|s| shot(slice, s)));
                    }
                }
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bench_has_98_lines() {
        let sim = Simulate::preset("bench").unwrap();
        let (imaging, separate) = lines(&sim);
        assert_eq!((imaging.len(), separate.len()), (98, 0));
        assert_eq!(slots(&sim, &imaging, &separate).len(), 98 * 20);
        assert!(imaging.iter().any(|l| l.pe1 == 160 && l.is_pattern));
    }

    #[test]
    fn caipi_by_hand() {
        let sim = Simulate {
            matrix: [4, 4, 4],
            acceleration: [2, 2],
            caipi_shift: 1,
            ..Simulate::default()
        };
        let (l, _) = lines(&sim);
        // k2 = -2: shift -1, k1 odd; k2 = 0: k1 even
        let found: Vec<(usize, usize)> = l.iter().map(|l| (l.pe2, l.pe1)).collect();
        assert_eq!(found, [(0, 1), (0, 3), (2, 0), (2, 2)]);
    }

    #[test]
    fn partial_fourier_keeps_the_end() {
        let sim = Simulate {
            matrix: [4, 8, 1],
            partial_fourier: [0.75, 1.0],
            ..Simulate::default()
        };
        let (l, _) = lines(&sim);
        assert_eq!(
            l.iter().map(|l| l.pe1).collect::<Vec<_>>(),
            [2, 3, 4, 5, 6, 7]
        );
    }

    #[test]
    fn trains_visit_slices_in_turn() {
        let sim = Simulate {
            matrix: [4, 4, 1],
            n_slices: 2,
            echo_train_length: 2,
            ..Simulate::default()
        };
        let (l, s) = lines(&sim);
        let order: Vec<(usize, usize, usize)> = slots(&sim, &l, &s)
            .iter()
            .map(|s| (s.slice, s.line.pe1, s.segment))
            .collect();
        assert_eq!(
            order,
            [
                (0, 0, 0),
                (0, 2, 1),
                (1, 0, 0),
                (1, 2, 1),
                (0, 1, 0),
                (0, 3, 1),
                (1, 1, 0),
                (1, 3, 1)
            ]
        );
    }

    #[test]
    fn random_lines_are_denser_at_the_centre() {
        let sim = Simulate {
            matrix: [4, 200, 1],
            sampling: Sampling::Random {
                fraction: 0.3,
                power: 4.0,
            },
            ..Simulate::default()
        };
        let (l, _) = lines(&sim);
        assert_eq!(l.len(), 60);
        let central = l.iter().filter(|l| (50..150).contains(&l.pe1)).count();
        assert!(central > 40, "{central}");
    }
}
