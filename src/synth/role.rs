//! Which series is which: by times and names in the header, and by the voxels, which do not lie.

use super::grid::Volume;
use super::series::{Facts, Series};
use super::{Exam, SynthError};

/// What a header says of a contrast.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Contrast {
    T1w,
    T2w,
    /// Something else: what.
    Other(String),
    /// It does not say.
    Unstated,
}

impl Contrast {
    fn words(&self) -> String {
        match self {
            Self::T1w => "its times or its name are those of T1w".to_owned(),
            Self::T2w => "its times or its name are those of T2w".to_owned(),
            Self::Other(what) => what.clone(),
            Self::Unstated => "its header does not say what it is".to_owned(),
        }
    }
}

/// Times go before names; where they contradict each other it is neither.
pub(super) fn contrast(f: &Facts) -> Contrast {
    let words: Vec<&str> = f
        .words
        .split(|c: char| !c.is_ascii_alphanumeric())
        .filter(|w| !w.is_empty())
        .collect();
    let has = |list: &[&str]| words.iter().any(|w| list.contains(w));
    let begins = |with: &str| words.iter().any(|w| w.starts_with(with));
    if f.ti_ms.is_some() || has(&["stir", "tirm", "flair", "ir"]) {
        return Contrast::Other("it is an inversion recovery".to_owned());
    }
    if has(&["fs", "fatsat", "spair", "spir", "chess", "dixon", "ideal"])
        || begins("t2fs")
        || begins("t1fs")
    {
        return Contrast::Other("its fat is suppressed or separated".to_owned());
    }
    if begins("t2star") || has(&["medic", "merge", "t2s"]) {
        return Contrast::Other("it is T2*-weighted".to_owned());
    }
    let by_time = match (f.tr_ms, f.te_ms) {
        (Some(tr), Some(te)) if tr < 1200.0 && te < 35.0 => Some(Contrast::T1w),
        (Some(tr), Some(te)) if tr >= 1500.0 && te >= 60.0 => Some(Contrast::T2w),
        (Some(tr), Some(te)) => Some(Contrast::Other(format!(
            "TR {tr} ms and TE {te} ms are neither T1w nor T2w of a spine"
        ))),
        _ => None,
    };
    let by_name = match (begins("t1"), begins("t2")) {
        (true, false) => Some(Contrast::T1w),
        (false, true) => Some(Contrast::T2w),
        _ => None,
    };
    match (by_time, by_name) {
        (Some(Contrast::T1w), Some(Contrast::T2w)) | (Some(Contrast::T2w), Some(Contrast::T1w)) => {
            Contrast::Other(format!(
                "its name ({}) and its times (TR {:?}, TE {:?} ms) contradict each other",
                f.name, f.tr_ms, f.te_ms
            ))
        }
        (Some(c), _) | (None, Some(c)) => c,
        (None, None) => Contrast::Unstated,
    }
}

impl Exam {
    /// Series that a person has put into their roles: refused where the header says otherwise.
    ///
    /// # Errors
    /// [`SynthError::Role`].
    pub fn given(t1w: Option<Series>, t2w: Option<Series>) -> Result<Self, SynthError> {
        for (series, given, wanted) in [(&t1w, "T1w", Contrast::T1w), (&t2w, "T2w", Contrast::T2w)]
        {
            let Some(series) = series else { continue };
            let found = contrast(&series.facts);
            if found != wanted && found != Contrast::Unstated {
                return Err(SynthError::Role {
                    series: series.facts.name.clone(),
                    given,
                    why: found.words(),
                });
            }
        }
        Ok(Self { t1w, t2w })
    }

    /// The role of one series, if its header states it.
    pub fn role(facts: &Facts) -> Option<&'static str> {
        match contrast(facts) {
            Contrast::T1w => Some("T1w"),
            Contrast::T2w => Some("T2w"),
            _ => None,
        }
    }

    /// Finds the roles of a study's series; what is neither T1w nor T2w is left out.
    ///
    /// # Errors
    /// [`SynthError::Twice`].
    pub fn sort(series: Vec<Series>) -> Result<Self, SynthError> {
        let mut exam = Self {
            t1w: None,
            t2w: None,
        };
        for s in series {
            let (role, place) = match Self::role(&s.facts) {
                Some("T1w") => ("T1w", &mut exam.t1w),
                Some(_) => ("T2w", &mut exam.t2w),
                None => continue,
            };
            if let Some(there) = place {
                return Err(SynthError::Twice {
                    role,
                    first: there.facts.name.clone(),
                    second: s.facts.name,
                });
            }
            *place = Some(s);
        }
        Ok(exam)
    }
}

/// Whether two volumes of one grid can be T1w and T2w: fluid is bright on T2w and dark on T1w, and little is the other way
/// round; and the two are not one and the same. Against the body around, so that the shading of coils is no matter.
pub(super) fn signal(t1w: &Volume, t2w: &Volume, body: &[bool]) -> Result<(), String> {
    let [a, b] = [t1w, t2w].map(|v| v.local(body, 20.0));
    let (mut n, mut fluid, mut reverse) = (0_u64, 0_u64, 0_u64);
    let mut sums = [0.0_f64; 5];
    for ((a, b), _) in a.iter().zip(&b).zip(body).filter(|(_, is_in)| **is_in) {
        n += 1;
        fluid += u64::from(*b > 1.7 && *a < 0.7);
        reverse += u64::from(*a > 1.7 && *b < 0.7);
        let (a, b) = (f64::from(*a), f64::from(*b));
        for (sum, v) in sums.iter_mut().zip([a, b, a * a, b * b, a * b]) {
            *sum += v;
        }
    }
    if n == 0 {
        return Err("they have no voxel of the body in common".to_owned());
    }
    let count = n as f64;
    let [a, b, aa, bb, ab] = sums.map(|s| s / count);
    let correlation = (ab - a * b) / ((aa - a * a) * (bb - b * b)).sqrt().max(1e-12);
    if correlation > 0.97 {
        return Err(format!(
            "their voxels are alike (correlation {correlation:.3})"
        ));
    }
    let permille = |v: u64| 1e3 * v as f64 / count;
    if permille(fluid) < 0.5 || fluid < 2 * reverse {
        return Err(format!(
            "of a thousand voxels {:.1} are bright on T2w and dark on T1w, as fluid is, and {:.1} the other way round",
            permille(fluid),
            permille(reverse)
        ));
    }
    Ok(())
}
