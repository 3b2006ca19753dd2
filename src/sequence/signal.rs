//! What one compartment answers: the amplitude of each echo, relative to its equilibrium magnetisation.

use super::epg::{self, Lanes, States, Step};
use super::fat;
use super::{FatParams, FatPeak, Kind, SequenceError, SequenceParams, Timing};

/// What a train of refocusing pulses leaves of the longitudinal magnetisation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Recovery {
    /// What the phase graph says, in the steady state of repeated trains.
    #[default]
    PhaseGraph,
    /// Nothing: `1 - exp(-(TR - ETL ESP) / T1)`, the textbook's saturation recovery.
    Saturated,
}

/// Compartments computed side by side in [`Train::echoes_of_many`].
const LANES: usize = 8;

/// A planned train: from relaxation times to echo amplitudes.
#[derive(Clone, Debug)]
pub struct Train {
    params: SequenceParams,
    recovery: Recovery,
    n_echoes: usize,
}

impl Train {
    /// Takes a sequence that is possible.
    ///
    /// # Errors
    /// [`SequenceError`] if the sequence is impossible: key, what was asked, the nearest that would do.
    pub fn plan(params: &SequenceParams) -> Result<Self, SequenceError> {
        Timing::plan(params)?;
        Ok(Self::of(params))
    }

    /// As `plan`, for parameters that were checked.
    pub(super) fn of(params: &SequenceParams) -> Self {
        Self {
            n_echoes: match params.kind {
                Kind::Tse => params.echo_train_length,
                Kind::Gre => params.n_echoes,
            },
            params: params.clone(),
            recovery: Recovery::PhaseGraph,
        }
    }

    /// The same train with another account of what it leaves.
    #[must_use]
    pub fn with_recovery(mut self, recovery: Recovery) -> Self {
        self.recovery = recovery;
        self
    }

    /// Echoes of a train (TSE), gradient echoes of an excitation (GRE).
    pub fn n_echoes(&self) -> usize {
        self.n_echoes
    }

    /// Amplitude of each echo, signed (negative before an inversion's null), as part of the equilibrium magnetisation.
    ///
    /// Times in ms; for GRE `t2_ms` is T2*, without what the caller computes as dephasing. `b1` scales excitation and
    /// refocusing. Fat is the same with its own T1 and its apparent T2; [`Train::fat_peaks`] says how it is spread over
    /// frequencies, and what suppression leaves.
    pub fn echoes(&self, t1_ms: f64, t2_ms: f64, b1: f64) -> Vec<f64> {
        let mut out = vec![0.0; self.n_echoes];
        self.echoes_of_many(&[[t1_ms, t2_ms, b1]], &mut out);
        out
    }

    /// [`Train::echoes`] of many compartments `[T1, T2, B1]`, into `out`, `[compartment, echo]`. Allocates once per call.
    ///
    /// Results do not depend on how compartments are split over calls. A shorter `out` takes the first compartments.
    pub fn echoes_of_many(&self, compartments: &[[f64; 3]], out: &mut [f64]) {
        let n = self.n_echoes;
        let mut room = vec![[0.0; LANES]; n];
        let mut states = States::new(n);
        for (group, out) in compartments.chunks(LANES).zip(out.chunks_mut(LANES * n)) {
            // A group that is not full is filled with its first.
            let lanes = |k: usize| -> Lanes<LANES> {
                std::array::from_fn(|l| group.get(l).map_or(group[0][k], |c| c[k]))
            };
            match self.params.kind {
                Kind::Tse => self.tse(lanes(0), lanes(1), lanes(2), &mut states, &mut room),
                Kind::Gre => self.gre(lanes(0), lanes(1), lanes(2), &mut room),
            }
            for (l, row) in out.chunks_mut(n).enumerate() {
                for (o, echo) in row.iter_mut().zip(&room) {
                    *o = echo[l];
                }
            }
        }
    }

    fn tse<const L: usize>(
        &self,
        t1: Lanes<L>,
        t2: Lanes<L>,
        b1: Lanes<L>,
        states: &mut States<L>,
        out: &mut [Lanes<L>],
    ) {
        let p = &self.params;
        let half = p.echo_spacing_ms / 2.0;
        let step = Step::new(
            b1.map(|b| b * p.refocusing_deg.to_radians()),
            t1.map(|t| (-half / t).exp()),
            t2.map(|t| (-half / t).exp()),
        );
        let excitation = b1.map(|b| b * p.excitation_deg.to_radians());
        let (from_start, from_recovery) = match self.recovery {
            Recovery::Saturated => ([0.0; L], [0.0; L]),
            Recovery::PhaseGraph => (
                epg::longitudinal_end(&step, out.len(), excitation.map(f64::cos), 0.0, states),
                epg::longitudinal_end(&step, out.len(), [0.0; L], 1.0, states),
            ),
        };
        epg::echoes(&step, states, out);
        let train_ms = p.echo_spacing_ms * out.len() as f64;
        let mz: Lanes<L> = std::array::from_fn(|l| {
            let rest = (-(p.tr_ms - train_ms - p.ti_ms.unwrap_or(0.0)) / t1[l]).exp();
            // At the end of TR (before an inversion): `at_rest + kept * mz`; solved for the steady state.
            let at_rest = 1.0 - rest + rest * from_recovery[l];
            let kept = rest * from_start[l];
            match p.ti_ms {
                None => at_rest / (1.0 - kept),
                Some(ti) => {
                    let left = (-ti / t1[l]).exp();
                    let turned = p.inversion_efficiency * left;
                    (1.0 - left - turned * at_rest) / (1.0 + turned * kept)
                }
            }
        });
        for echo in out {
            for l in 0..L {
                echo[l] *= mz[l] * excitation[l].sin();
            }
        }
    }

    /// Spoiled gradient echo in its steady state (Ernst).
    fn gre<const L: usize>(
        &self,
        t1: Lanes<L>,
        t2star: Lanes<L>,
        b1: Lanes<L>,
        out: &mut [Lanes<L>],
    ) {
        let p = &self.params;
        for (i, echo) in out.iter_mut().enumerate() {
            let te = p.echo_time_ms(i);
            *echo = std::array::from_fn(|l| {
                let angle = b1[l] * p.excitation_deg.to_radians();
                let e1 = (-p.tr_ms / t1[l]).exp();
                angle.sin() * (1.0 - e1) / (1.0 - angle.cos() * e1) * (-te / t2star[l]).exp()
            });
        }
    }

    /// The peaks of fat with what suppression leaves of them, where water is off resonance by `off_resonance_hz`:
    /// the signal of fat at echo `n` is `echoes[n] * sum(weight * exp(2 pi i (frequency + off) * dephasing))`.
    pub fn fat_peaks(&self, t1_ms: f64, b1: f64, off_resonance_hz: f64) -> [FatPeak; 6] {
        fat::peaks(
            self.fat(),
            self.params.field_strength_t,
            t1_ms,
            b1,
            off_resonance_hz,
        )
    }

    /// What fat suppression leaves of water that is off resonance by `off_resonance_hz`.
    pub fn water_left(&self, t1_ms: f64, b1: f64, off_resonance_hz: f64) -> f64 {
        fat::water_left(
            self.fat(),
            self.params.field_strength_t,
            t1_ms,
            b1,
            off_resonance_hz,
        )
    }

    fn fat(&self) -> &FatParams {
        &self.params.fat
    }

    /// Time over which frequencies dephase until the middle of an echo, ms: the shift of Dixon for TSE, the echo time for GRE.
    pub fn dephasing_ms(&self, shift: usize, echo: usize) -> f64 {
        let shifted = match self.params.n_shifts() {
            0 | 1 => 0.0,
            _ => self
                .params
                .fat
                .echo_shifts_ms
                .get(shift)
                .copied()
                .unwrap_or(0.0),
        };
        match self.params.kind {
            Kind::Tse => shifted,
            Kind::Gre => self.params.echo_time_ms(echo) + shifted,
        }
    }
}
