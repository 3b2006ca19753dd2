//! Extended phase graphs of a train of equal refocusing pulses (Hennig 1991; Weigel 2015, doi 10.1002/jmri.24619).
//!
//! Under the CPMG condition everything is real, and the graph falls into two parts that never meet, by the parity of the
//! dephasing at a pulse. The odd part carries the excited magnetisation and makes the echoes; the even part carries
//! what relaxes back and makes the longitudinal magnetisation at the end. Each is a triangle of states: state `j` at pulse
//! `n` matters only if it was reached (`j <= n`) and can come back (`j < n_pulses - n`).
//!
//! `L` compartments are computed side by side, so that the compiler can use vector registers.

/// `L` numbers that belong to `L` compartments.
pub(super) type Lanes<const L: usize> = [f64; L];

/// Room for the states, kept between calls.
#[derive(Clone, Debug)]
pub(super) struct States<const L: usize> {
    plus: Vec<Lanes<L>>,
    minus: Vec<Lanes<L>>,
    long: Vec<Lanes<L>>,
}

impl<const L: usize> States<L> {
    /// For trains of `n_pulses`.
    pub(super) fn new(n_pulses: usize) -> Self {
        let zeros = vec![[0.0; L]; n_pulses / 2 + 3];
        Self {
            plus: zeros.clone(),
            minus: zeros.clone(),
            long: zeros,
        }
    }

    fn clear(&mut self) {
        for states in [&mut self.plus, &mut self.minus, &mut self.long] {
            states.fill([0.0; L]);
        }
    }
}

/// A pulse, and the relaxation of half an echo spacing and of a whole one.
#[derive(Clone, Copy, Debug)]
pub(super) struct Step<const L: usize> {
    cos2: Lanes<L>,
    sin2: Lanes<L>,
    sin: Lanes<L>,
    cos: Lanes<L>,
    half_t1: Lanes<L>,
    half_t2: Lanes<L>,
}

impl<const L: usize> Step<L> {
    /// From angles in radians and the parts `exp(-ESP/2 / T)` that half an echo spacing leaves.
    pub(super) fn new(angle: Lanes<L>, half_t1: Lanes<L>, half_t2: Lanes<L>) -> Self {
        Self {
            cos2: angle.map(|a| (a / 2.0).cos().powi(2)),
            sin2: angle.map(|a| (a / 2.0).sin().powi(2)),
            sin: angle.map(f64::sin),
            cos: angle.map(f64::cos),
            half_t1,
            half_t2,
        }
    }
}

/// How many states of a pulse matter.
fn reach(pulse: usize, n_pulses: usize) -> usize {
    (pulse + 1).min(n_pulses - pulse)
}

/// Echo amplitudes, `echoes[n]` of the `n`th echo, of transverse magnetisation 1 at the excitation.
pub(super) fn echoes<const L: usize>(
    step: &Step<L>,
    states: &mut States<L>,
    echoes: &mut [Lanes<L>],
) {
    let n_pulses = echoes.len();
    states.clear();
    let States { plus, minus, long } = states;
    let s = step;
    plus[0] = s.half_t2;
    for (pulse, echo) in echoes.iter_mut().enumerate() {
        let n = reach(pulse, n_pulses);
        // The first F- passes zero between the pulses, is the echo there, and is the first F+ at the next pulse.
        let mut carry = [0.0; L];
        for j in 0..n {
            for l in 0..L {
                let (a, b, z) = (plus[j][l], minus[j][l], long[j][l]);
                let to_plus = s.cos2[l] * a + s.sin2[l] * b - s.sin[l] * z;
                let to_minus = s.sin2[l] * a + s.cos2[l] * b + s.sin[l] * z;
                let to_long = 0.5 * s.sin[l] * (a - b) + s.cos[l] * z;
                let (e1, e2) = (s.half_t1[l] * s.half_t1[l], s.half_t2[l] * s.half_t2[l]);
                if j == 0 {
                    echo[l] = to_minus * s.half_t2[l];
                    plus[0][l] = to_minus * e2;
                } else {
                    minus[j - 1][l] = to_minus * e2;
                    plus[j][l] = carry[l];
                }
                carry[l] = to_plus * e2;
                long[j][l] = to_long * e1;
            }
        }
        plus[n] = carry;
        minus[n - 1] = [0.0; L];
        minus[n] = [0.0; L];
        long[n] = [0.0; L];
    }
}

/// Longitudinal magnetisation half an echo spacing after the last pulse, from what there was at the excitation:
/// `start` right after it, and `recovery`, 1 with the return to equilibrium and 0 without (the answer is affine).
pub(super) fn longitudinal_end<const L: usize>(
    step: &Step<L>,
    n_pulses: usize,
    start: Lanes<L>,
    recovery: f64,
    states: &mut States<L>,
) -> Lanes<L> {
    states.clear();
    let States { plus, minus, long } = states;
    let s = step;
    for l in 0..L {
        long[0][l] = start[l] * s.half_t1[l] + recovery * (1.0 - s.half_t1[l]);
    }
    for pulse in 0..n_pulses {
        let n = reach(pulse, n_pulses);
        let is_last = pulse + 1 == n_pulses;
        let mut carry = [0.0; L];
        for j in 0..n {
            for l in 0..L {
                let (a, b, z) = (plus[j][l], minus[j][l], long[j][l]);
                let to_plus = s.cos2[l] * a - s.sin2[l] * b + s.sin[l] * z;
                let to_minus = -s.sin2[l] * a + s.cos2[l] * b + s.sin[l] * z;
                let to_long = -0.5 * s.sin[l] * (a + b) + s.cos[l] * z;
                let e2 = s.half_t2[l] * s.half_t2[l];
                let e1 = if is_last {
                    s.half_t1[l]
                } else {
                    s.half_t1[l] * s.half_t1[l]
                };
                if j > 0 {
                    minus[j - 1][l] = to_minus * e2;
                    plus[j][l] = carry[l];
                }
                carry[l] = to_plus * e2;
                long[j][l] = to_long * e1;
                if j == 0 {
                    long[0][l] += recovery * (1.0 - e1);
                }
            }
        }
        plus[n] = carry;
        minus[n - 1] = [0.0; L];
        minus[n] = [0.0; L];
        long[n] = [0.0; L];
        // The state without dephasing is its own mirror.
        plus[0] = minus[0];
    }
    long[0]
}
