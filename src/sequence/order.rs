//! Which lines are measured, in which shot, at which echo.

use super::{Kind, LineOrder, SamplingKind, SequenceError, SequenceParams, Timing};

/// One line of k-space in a shot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Line {
    /// Echo of the train; 0 is the first. Gradient echoes of one excitation share their line.
    pub echo: usize,
    /// Line along pe1; the centre is at `n / 2`.
    pub pe1: usize,
    /// Line along pe2.
    pub pe2: usize,
    /// On the accelerated pattern.
    pub is_imaging: bool,
    /// In the block of calibration lines.
    pub is_calibration: bool,
}

/// What follows one excitation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shot {
    /// Which average.
    pub average: usize,
    /// Which echo shift of Dixon.
    pub shift: usize,
    /// Lines by echo. An echo that has no line is played and not measured.
    pub lines: Vec<Line>,
}

/// All shots of a slice or slab, in time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Order {
    /// Lines of full k-space along pe1 and pe2.
    pub n_lines: [usize; 2],
    /// Different lines that are measured.
    pub n_measured: usize,
    /// The echo that fills the centre.
    pub effective_echo: usize,
    /// Shots: averages outermost, then shifts.
    pub shots: Vec<Shot>,
}

impl Order {
    /// Orders the lines of a sequence that is possible.
    ///
    /// # Errors
    /// [`SequenceError`] if the sequence is impossible: key, what was asked, the nearest that would do.
    pub fn plan(params: &SequenceParams) -> Result<Self, SequenceError> {
        Timing::plan(params)?;
        Ok(Self::of(params))
    }

    /// As `plan`, for parameters that were checked.
    pub(super) fn of(params: &SequenceParams) -> Self {
        let mut lines = pattern(params);
        let n_measured = lines.len();
        let etl = match params.kind {
            Kind::Tse => params.echo_train_length,
            Kind::Gre => 1,
        };
        let n_shots = n_measured.div_ceil(etl);
        let effective_echo = params.effective_echo();
        let mut once = vec![Vec::new(); n_shots];
        match params.line_order {
            LineOrder::Linear => {
                // A ring of n_shots x etl places. The centre stands in the middle of the run of its echo, the others
                // follow along pe1; where k-space ends the ring goes on with its beginning.
                let [c1, c2] = params.n_lines().map(|n| n / 2);
                let centre = lines
                    .iter()
                    .position(|l| (l.pe1, l.pe2) >= (c1, c2))
                    .unwrap_or(0);
                let places = n_shots * etl;
                for (i, mut line) in lines.into_iter().enumerate() {
                    let at =
                        (effective_echo * n_shots + n_shots / 2 + places + i - centre) % places;
                    line.echo = at / n_shots;
                    once[at % n_shots].push(line);
                }
            }
            LineOrder::Centric => {
                let mut echoes: Vec<usize> = (0..etl).collect();
                echoes.sort_by_key(|e| (e.abs_diff(effective_echo), *e));
                let n = params.n_lines();
                lines.sort_by(|a, b| radius(n, a).total_cmp(&radius(n, b)));
                for (i, mut line) in lines.into_iter().enumerate() {
                    line.echo = echoes[i / n_shots];
                    once[i % n_shots].push(line);
                }
            }
        }
        for shot in &mut once {
            shot.sort_by_key(|l| l.echo);
        }
        let mut shots = Vec::with_capacity(n_shots * params.averages * params.n_shifts());
        for average in 0..params.averages {
            for shift in 0..params.n_shifts() {
                shots.extend(once.iter().map(|lines| Shot {
                    average,
                    shift,
                    lines: lines.clone(),
                }));
            }
        }
        Self {
            n_lines: params.n_lines(),
            n_measured,
            effective_echo,
            shots,
        }
    }

    /// The echo at which each line of full k-space is measured, `[pe2, pe1]`; `None` where it is left out.
    pub fn echo_of_line(&self) -> Vec<Option<usize>> {
        let [n1, n2] = self.n_lines;
        let mut out = vec![None; n1 * n2];
        for line in self.shots.iter().flat_map(|s| &s.lines) {
            out[line.pe2 * n1 + line.pe1] = Some(line.echo);
        }
        out
    }
}

/// Distance from the centre; 1 at the edge of either axis.
fn radius(n: [usize; 2], line: &Line) -> f64 {
    let along = |n: usize, at: usize| match n {
        1 => 0.0,
        n => (at as f64 - (n / 2) as f64) / (n as f64 / 2.0),
    };
    along(n[0], line.pe1).hypot(along(n[1], line.pe2))
}

/// Measured lines along pe1 of the full ones: the first are left out by partial Fourier.
pub(super) fn first_line(params: &SequenceParams) -> usize {
    let n = params.n_lines()[0];
    n - ((n as f64 * params.partial_fourier).ceil() as usize).min(n)
}

/// The lines that are measured, by pe1, then pe2.
fn pattern(params: &SequenceParams) -> Vec<Line> {
    let [n1, n2] = params.n_lines();
    let (c1, c2) = (n1 / 2, n2 / 2);
    let a = params.acceleration;
    let is_accelerated = a.pe1 * a.pe2 > 1;
    let near = |at: usize, centre: usize, n_acs: usize| {
        at + n_acs / 2 >= centre && at < centre + n_acs.div_ceil(2)
    };
    let on_pattern = |pe1: usize, pe2: usize| {
        let d2 = pe2 as i64 - c2 as i64;
        if d2.rem_euclid(a.pe2 as i64) != 0 {
            return false;
        }
        let shift = a.caipi_shift as i64 * d2.div_euclid(a.pe2 as i64);
        (pe1 as i64 - c1 as i64 - shift).rem_euclid(a.pe1 as i64) == 0
    };
    let mut all = Vec::new();
    for pe1 in first_line(params)..n1 {
        for pe2 in 0..n2 {
            all.push(Line {
                echo: 0,
                pe1,
                pe2,
                is_imaging: on_pattern(pe1, pe2),
                is_calibration: is_accelerated
                    && near(pe1, c1, a.acs_pe1)
                    && (n2 == 1 || near(pe2, c2, a.acs_pe2)),
            });
        }
    }
    if params.sampling.kind == SamplingKind::VariableDensity && is_accelerated {
        let n_wanted = all.iter().filter(|l| l.is_imaging).count();
        let mut random = SplitMix(params.sampling.seed);
        let n = [n1, n2];
        // Weighted choice without replacement (Efraimidis and Spirakis): the largest of u^(1/weight).
        let mut keyed: Vec<(f64, usize)> = all
            .iter()
            .enumerate()
            .map(|(i, line)| {
                let far = (radius(n, line) / if n2 > 1 { 2f64.sqrt() } else { 1.0 }).min(1.0);
                let weight = (1.0 - far).max(1e-3).powf(params.sampling.power);
                let is_centre = line.pe1 == c1 && line.pe2 == c2;
                let chance = random.unit().ln() / weight;
                (if is_centre { f64::INFINITY } else { chance }, i)
            })
            .collect();
        keyed.sort_by(|a, b| b.0.total_cmp(&a.0));
        for line in &mut all {
            line.is_imaging = false;
        }
        for (_, i) in keyed.into_iter().take(n_wanted) {
            all[i].is_imaging = true;
        }
    }
    all.retain(|l| l.is_imaging || l.is_calibration);
    all
}

/// SplitMix64 (Steele, Lea and Flood 2014).
struct SplitMix(u64);

impl SplitMix {
    /// In (0, 1).
    fn unit(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) >> 11) as f64 / (1u64 << 53) as f64 + f64::EPSILON / 4.0
    }
}
