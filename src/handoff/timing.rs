//! Sequence times of one contrast, as far as the header states them.

use crate::data::Scan;

/// Times and flip angle; `None` where the header says nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Timing {
    pub(super) tr_ms: Option<f32>,
    pub(super) te_ms: Option<f32>,
    pub(super) ti_ms: Option<f32>,
    pub(super) flip_angle_deg: Option<f32>,
}

/// The values of contrast `contrast`: its own entry of each list, or the only one there is.
pub(super) fn of(scan: &Scan, contrast: usize) -> Timing {
    let Some(sequence) = &scan.header.sequence_parameters else {
        return Timing::default();
    };
    let pick = |list: &[f32]| match list {
        [only] => Some(*only),
        _ => list.get(contrast).copied(),
    };
    Timing {
        tr_ms: pick(&sequence.tr),
        te_ms: pick(&sequence.te),
        ti_ms: pick(&sequence.ti),
        flip_angle_deg: pick(&sequence.flip_angle_deg),
    }
}
