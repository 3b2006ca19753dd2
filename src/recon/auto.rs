//! Which method reconstructs a frame: a pure function of mask, calibration block, coils and what was asked for.

use super::error::ReconError;
use super::grappa::calibrate;
use super::grappa::window::Window;
use super::params::{Method, ReconParams};
use super::sampling::{Block, Lattice, Sampling};

/// What was chosen, and why.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Choice {
    /// Never [`Method::Auto`].
    pub(crate) method: Method,
    /// The pattern that the method relies on.
    pub(crate) lattice: Option<Lattice>,
    /// Sentence for people.
    pub(crate) reason: String,
    /// Something that a reader of the image must know.
    pub(crate) warning: Option<(&'static str, String)>,
}

/// What the choice depends on.
pub(crate) struct Facts<'a> {
    pub(crate) sampling: &'a Sampling,
    /// Calibration block, wherever it comes from.
    pub(crate) calibration: &'a Block,
    pub(crate) n_coils: usize,
    /// Measured samples along the readout.
    pub(crate) n_ro: usize,
    /// Lines along pe2 and pe1.
    pub(crate) grid: [usize; 2],
}

/// Fewer calibration lines than this along an undersampled axis make no sensitivity map.
const LEAST_MAP_LINES: usize = 8;

/// Chooses.
///
/// # Errors
/// * [`ReconError::Calibration`]: too few calibration lines for the method; it names how many there are.
/// * [`ReconError::Pattern`]: the method asked for cannot reconstruct this sampling.
pub(crate) fn choose(facts: &Facts<'_>, params: &ReconParams) -> Result<Choice, ReconError> {
    let pattern = describe(facts.sampling);
    let lattice = facts.sampling.lattice;
    let is_full = lattice.is_some_and(|l| l.reduction() == 1);
    let chosen = |method, reason: String| Choice {
        method,
        lattice,
        reason,
        warning: None,
    };
    match params.method {
        Method::Fft => Ok(Choice {
            warning: (!is_full).then(|| {
                (
                    "undersampled",
                    format!("`fft` was asked for although {pattern}: the image is aliased"),
                )
            }),
            ..chosen(Method::Fft, format!("asked for; {pattern}"))
        }),
        Method::Grappa => match lattice {
            Some(_) if is_full => Ok(Choice {
                warning: Some((
                    "nothing_to_fill",
                    format!("`grappa` was asked for, but {pattern}: plain Fourier transform"),
                )),
                ..chosen(Method::Fft, format!("grappa was asked for, but {pattern}"))
            }),
            Some(lattice) => {
                check_grappa(facts, params, lattice)?;
                Ok(chosen(Method::Grappa, format!("asked for; {pattern}")))
            }
            None => Err(ReconError::Pattern {
                method: "grappa",
                found: pattern,
                hint: "use `method = \"cg_sense\"` or `\"auto\"`".into(),
            }),
        },
        Method::Sense => {
            check_maps(facts, "sense")?;
            if lattice.is_none() {
                return Err(ReconError::Pattern {
                    method: "sense",
                    found: pattern,
                    hint: "use `method = \"cg_sense\"` or `\"auto\"`".into(),
                });
            }
            Ok(chosen(Method::Sense, format!("asked for; {pattern}")))
        }
        Method::CgSense => {
            check_maps(facts, "cg_sense")?;
            Ok(chosen(Method::CgSense, format!("asked for; {pattern}")))
        }
        Method::Unrolled => {
            check_maps(facts, "unrolled")?;
            Ok(chosen(Method::Unrolled, format!("asked for; {pattern}")))
        }
        Method::Auto if is_full => Ok(chosen(Method::Fft, pattern)),
        Method::Auto if facts.n_coils < 2 => Err(ReconError::Pattern {
            method: "auto",
            found: format!("{pattern} and there is one coil, which cannot tell aliases apart"),
            hint: "set `method = \"fft\"` for a zero-filled image".into(),
        }),
        Method::Auto => {
            let calibrated = format!(
                "{pattern}, with {} to calibrate from",
                block(facts.calibration)
            );
            match lattice {
                // Measured on simulated and real scans, GRAPPA with weights fitted for the missing lines has the
                // smaller error at nearly every reduction, needs no maps and is faster.
                Some(lattice) => {
                    let grappa = check_grappa(facts, params, lattice);
                    if grappa.is_err() && has_lines(facts, LEAST_MAP_LINES) {
                        return Ok(chosen(
                            Method::Sense,
                            format!(
                                "{calibrated}: too little for grappa, enough for sensitivity maps"
                            ),
                        ));
                    }
                    grappa?;
                    Ok(chosen(
                        Method::Grappa,
                        format!("{calibrated}: enough for grappa"),
                    ))
                }
                None => {
                    check_maps(facts, "cg_sense")?;
                    Ok(chosen(Method::CgSense, calibrated))
                }
            }
        }
    }
}

fn has_lines(facts: &Facts<'_>, least: usize) -> bool {
    facts.calibration.pe2.len() >= facts.grid[0].min(least)
        && facts.calibration.pe1.len() >= facts.grid[1].min(least)
}

fn check_grappa(
    facts: &Facts<'_>,
    params: &ReconParams,
    lattice: Lattice,
) -> Result<(), ReconError> {
    let block = facts.calibration;
    let window = Window::new(lattice, &params.grappa, facts.grid[0] > 1, block);
    calibrate::check(&window, facts.calibration, facts.n_coils, facts.n_ro)
}

fn check_maps(facts: &Facts<'_>, method: &'static str) -> Result<(), ReconError> {
    let need = [
        facts.grid[0].min(LEAST_MAP_LINES),
        facts.grid[1].min(LEAST_MAP_LINES),
    ];
    let found = [facts.calibration.pe2.len(), facts.calibration.pe1.len()];
    if has_lines(facts, LEAST_MAP_LINES) {
        return Ok(());
    }
    Err(ReconError::Calibration {
        method,
        need: format!("{} x {} (pe1 x pe2) or more", need[1], need[0]),
        found: format!("{} x {}", found[1], found[0]),
        hint: "measure a reference scan, or set `method = \"fft\"` for a zero-filled image".into(),
    })
}

fn block(b: &Block) -> String {
    if b.pe2.len() > 1 {
        format!("{} x {} lines (pe1 x pe2)", b.pe1.len(), b.pe2.len())
    } else {
        format!("{} lines", b.pe1.len())
    }
}

/// The sampling in words.
pub(crate) fn describe(sampling: &Sampling) -> String {
    let n = sampling.extent.len();
    match sampling.lattice {
        None => format!(
            "{} of {n} lines were measured, without a regular pattern",
            sampling.n_lines
        ),
        Some(l) if l.reduction() == 1 && sampling.missing == 0 => {
            format!("all {n} lines of the measured extent are there")
        }
        Some(l) if l.reduction() == 1 => {
            format!(
                "all lines but {} in the corners are there",
                sampling.missing
            )
        }
        Some(l) if l.r2 == 1 && l.shift == 0 => {
            format!(
                "every {}. line was measured ({} of {n})",
                l.r1, sampling.n_lines
            )
        }
        Some(l) => format!(
            "the pattern is regular, {} x {} (pe1 x pe2){} ({} of {n} lines)",
            l.r1,
            l.r2,
            if l.shift > 0 {
                format!(", shifted by {}", l.shift)
            } else {
                String::new()
            },
            sampling.n_lines
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recon::sampling::analyse;

    fn choice(mask: &[bool], n_coils: usize, method: Method) -> Result<Choice, ReconError> {
        let sampling = analyse(mask, 1, mask.len());
        let facts = Facts {
            calibration: &sampling.acs.clone(),
            sampling: &sampling,
            n_coils,
            n_ro: 64,
            grid: [1, mask.len()],
        };
        choose(
            &facts,
            &ReconParams {
                method,
                ..Default::default()
            },
        )
    }

    fn every(r: usize, acs: usize) -> Vec<bool> {
        (0..64usize)
            .map(|k| k % r == 0 || k.abs_diff(32) < acs.div_ceil(2))
            .collect()
    }

    #[test]
    fn the_table_of_choices() {
        let method = |mask: &[bool]| choice(mask, 4, Method::Auto).map(|c| c.method).ok();
        assert_eq!(method(&every(1, 0)), Some(Method::Fft));
        assert_eq!(method(&every(2, 20)), Some(Method::Grappa));
        assert_eq!(method(&every(2, 10)), Some(Method::Grappa));
        // 64 coils: ten lines give GRAPPA fewer equations than unknowns, and are enough for maps.
        let many = choice(&every(2, 10), 64, Method::Auto).map(|c| c.method);
        assert_eq!(many.ok(), Some(Method::Sense));
        let mut odd = every(2, 20);
        odd[4] = false;
        assert_eq!(method(&odd), Some(Method::CgSense));
        assert!(matches!(
            choice(&odd, 4, Method::Grappa),
            Err(ReconError::Pattern { .. })
        ));
        assert!(matches!(
            choice(&every(4, 4), 4, Method::Auto),
            Err(ReconError::Calibration { .. })
        ));
        assert!(matches!(
            choice(&every(2, 20), 1, Method::Auto),
            Err(ReconError::Pattern { .. })
        ));
        assert!(
            choice(&every(2, 20), 1, Method::Fft)
                .unwrap()
                .warning
                .is_some()
        );
        assert_eq!(
            choice(&every(1, 0), 4, Method::Grappa).unwrap().method,
            Method::Fft
        );
    }

    #[test]
    fn too_little_calibration_says_how_much_and_what_to_try() {
        let message = choice(&every(4, 4), 4, Method::Auto)
            .unwrap_err()
            .to_string();
        assert!(
            message.contains("needs 5")
                && message.contains("found 3")
                && message.contains("cg_sense"),
            "{message}"
        );
    }
}
