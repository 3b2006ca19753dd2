//! How a patient moves: within a scan from shot to shot, and from one scan to the next.
//!
//! Within a scan the body and its front wall are displaced, which turns the phase of their lines, and fluid of the spine
//! changes size and phase with the pulse. Between scans the whole patient lies a little elsewhere. Every motion has a
//! strength; 0 is none.

use std::f64::consts::TAU;

use num_complex::Complex64;
use serde::{Deserialize, Serialize};

use crate::phantom::PhantomError;
use crate::phantom::noise::Rng;

/// Strengths of the motions of a patient.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct MotionParams {
    /// Slow drift of the body during a scan, mm.
    pub drift_mm: f64,
    /// Rise of the front wall with a breath, mm; a tenth of it reaches the spine.
    pub respiration_mm: f64,
    /// Change of the signal of cerebrospinal fluid with the pulse, 0 to 1.
    pub pulsation: f64,
    /// Displacement of the neck with a swallow, mm; in the lumbar spine nothing swallows.
    pub swallowing_mm: f64,
    /// Largest displacement from one scan to the next, mm.
    pub between_mm: f64,
    /// Largest rotation from one scan to the next, degrees.
    pub between_deg: f64,
}

impl Default for MotionParams {
    fn default() -> Self {
        Self {
            drift_mm: 0.2,
            respiration_mm: 2.0,
            pulsation: 0.2,
            swallowing_mm: 0.5,
            between_mm: 1.0,
            between_deg: 1.0,
        }
    }
}

impl MotionParams {
    /// A patient who does not move.
    pub fn none() -> Self {
        Self {
            drift_mm: 0.0,
            respiration_mm: 0.0,
            pulsation: 0.0,
            swallowing_mm: 0.0,
            between_mm: 0.0,
            between_deg: 0.0,
        }
    }

    /// Refuses what no patient does.
    ///
    /// # Errors
    /// [`PhantomError`].
    pub fn check(&self) -> Result<(), PhantomError> {
        for (key, value, most, needed) in [
            ("motion.drift_mm", self.drift_mm, 20.0, "0 to 20"),
            (
                "motion.respiration_mm",
                self.respiration_mm,
                30.0,
                "0 to 30",
            ),
            ("motion.pulsation", self.pulsation, 1.0, "0 to 1"),
            ("motion.swallowing_mm", self.swallowing_mm, 20.0, "0 to 20"),
            ("motion.between_mm", self.between_mm, 20.0, "0 to 20"),
            ("motion.between_deg", self.between_deg, 20.0, "0 to 20"),
        ] {
            if !(0.0..=most).contains(&value) {
                return Err(PhantomError {
                    key,
                    found: value.to_string(),
                    needed,
                });
            }
        }
        Ok(())
    }
}

/// State of a moment.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Moment {
    /// Displacement of the body, LPS, mm.
    pub(super) body_mm: [f64; 3],
    /// Displacement of the front wall besides.
    pub(super) wall_mm: [f64; 3],
    /// Signal of pulsing fluid.
    pub(super) csf: Complex64,
}

/// Motion within one scan.
#[derive(Clone, Debug)]
pub(super) struct Motion {
    params: MotionParams,
    is_neck: bool,
    drift: [f64; 3],
    breath_s: f64,
    breath_phase: f64,
    beat_s: f64,
    beat_phase: f64,
    swallow_s: f64,
    swallow_at: f64,
}

impl Motion {
    /// `series` keeps the scans of one patient apart.
    pub(super) fn new(params: &MotionParams, is_neck: bool, seed: u64, series: u64) -> Self {
        let mut rng = Rng::new(seed ^ 0x6d6f_7469_6f6e, series);
        let mut between = |a: f64, b: f64| a + (b - a) * rng.uniform();
        Self {
            params: params.clone(),
            is_neck,
            drift: std::array::from_fn(|_| between(-1.0, 1.0)),
            breath_s: between(3.0, 5.0),
            breath_phase: between(0.0, TAU),
            beat_s: between(0.75, 1.05),
            beat_phase: between(0.0, TAU),
            swallow_s: between(15.0, 40.0),
            swallow_at: between(0.0, 15.0),
        }
    }

    /// Time from beat to beat and from breath to breath, s.
    #[cfg(test)]
    pub(super) fn periods_s(&self) -> [f64; 2] {
        [self.beat_s, self.breath_s]
    }

    pub(super) fn at(&self, time_s: f64) -> Moment {
        let p = &self.params;
        // A drift that levels off; breaths that linger at their end (sin^4); swallows of a second.
        let slow = 1.0 - (-time_s / 90.0).exp();
        let breath = (TAU * time_s / self.breath_s / 2.0 + self.breath_phase)
            .sin()
            .powi(4);
        let beat = TAU * time_s / self.beat_s + self.beat_phase;
        let since = (time_s - self.swallow_at).rem_euclid(self.swallow_s);
        let swallow = if self.is_neck && since < 1.0 {
            (since * TAU / 2.0).sin()
        } else {
            0.0
        };
        let rise = p.respiration_mm * breath * if self.is_neck { 0.3 } else { 1.0 };
        let body = [
            p.drift_mm * self.drift[0] * slow,
            p.drift_mm * self.drift[1] * slow - 0.1 * rise - p.swallowing_mm * 0.3 * swallow,
            p.drift_mm * self.drift[2] * slow + p.swallowing_mm * swallow,
        ];
        Moment {
            body_mm: body,
            wall_mm: [0.0, -rise, 0.0],
            csf: Complex64::from_polar(
                1.0 - 0.5 * p.pulsation * (1.0 + beat.sin()),
                1.5 * p.pulsation * beat.cos(),
            ),
        }
    }
}

/// Where the patient lies in one scan.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Pose {
    centre: [f64; 3],
    shift: [f64; 3],
    rotation: [[f64; 3]; 3],
}

impl Pose {
    /// The first scan (`series` 0) is where the anatomy is.
    pub(super) fn new(params: &MotionParams, centre: [f64; 3], seed: u64, series: u64) -> Self {
        let mut rng = Rng::new(seed ^ 0x706f_7365, series);
        let mut draw = || {
            if series == 0 {
                0.0
            } else {
                2.0 * rng.uniform() - 1.0
            }
        };
        let shift = std::array::from_fn(|_| params.between_mm * draw());
        let angles: [f64; 3] = std::array::from_fn(|_| (params.between_deg * draw()).to_radians());
        let mut rotation = [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]];
        for (axis, angle) in angles.into_iter().enumerate() {
            let (sin, cos) = angle.sin_cos();
            let (a, b) = ((axis + 1) % 3, (axis + 2) % 3);
            for row in &mut rotation {
                (row[a], row[b]) = (row[a] * cos - row[b] * sin, row[a] * sin + row[b] * cos);
            }
        }
        Self {
            centre,
            shift,
            rotation,
        }
    }

    /// Place in the anatomy of a place in the scanner.
    pub(super) fn to_body(&self, p: [f64; 3]) -> [f64; 3] {
        let d: [f64; 3] = std::array::from_fn(|i| p[i] - self.centre[i] - self.shift[i]);
        std::array::from_fn(|i| {
            self.centre[i] + (0..3).map(|k| self.rotation[i][k] * d[k]).sum::<f64>()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_moves_at_strength_zero() {
        let m = Motion::new(&MotionParams::none(), true, 3, 1);
        for t in [0.0, 1.3, 77.0] {
            let at = m.at(t);
            assert_eq!(at.body_mm, [0.0; 3]);
            assert_eq!(at.wall_mm.map(f64::abs), [0.0; 3]);
            assert!((at.csf - 1.0).norm() < 1e-12);
        }
        let pose = Pose::new(&MotionParams::none(), [1.0, 2.0, 3.0], 3, 1);
        for (a, b) in pose.to_body([9.0, 8.0, 7.0]).iter().zip([9.0, 8.0, 7.0]) {
            assert!((a - b).abs() < 1e-12);
        }
    }

    #[test]
    fn scans_differ_within_their_limits_and_repeat() {
        let p = MotionParams {
            between_mm: 5.0,
            between_deg: 5.0,
            ..MotionParams::default()
        };
        let centre = [0.0, 50.0, 10.0];
        assert_eq!(Pose::new(&p, centre, 7, 1), Pose::new(&p, centre, 7, 1));
        for series in 1..30 {
            let pose = Pose::new(&p, centre, 7, series);
            assert_ne!(pose, Pose::new(&p, centre, 8, series));
            let moved = pose.to_body(centre);
            for (a, b) in moved.iter().zip(centre) {
                assert!((a - b).abs() < 5.0 * 1.8, "{moved:?}");
            }
            // A rotation keeps lengths.
            let far = pose.to_body([100.0, 50.0, 10.0]);
            let d2: f64 = far.iter().zip(moved).map(|(a, b)| (a - b).powi(2)).sum();
            assert!((d2.sqrt() - 100.0).abs() < 1e-9);
        }
        let still = Pose::new(&p, centre, 7, 0).to_body([1.0, 2.0, 3.0]);
        for (a, b) in still.iter().zip([1.0, 2.0, 3.0]) {
            assert!((a - b).abs() < 1e-12);
        }
    }
}
