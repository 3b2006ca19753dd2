//! A sequence in words.

use super::{FatMethod, Kind, Region, SamplingKind, SequenceParams, Timing};

impl SequenceParams {
    /// What is played, in a few lines; `timing` is its own.
    pub fn in_words(&self, timing: &Timing) -> Vec<String> {
        let region = match self.region {
            Region::Lumbar => "lumbar",
            Region::Cervical => "cervical",
        };
        let name = |words: String| words.to_lowercase();
        let (kind, train) = match self.kind {
            Kind::Tse => (
                "turbo spin echo",
                format!(
                    "{} echoes every {} ms with {} degree pulses, echo {} fills the centre",
                    self.echo_train_length,
                    self.echo_spacing_ms,
                    self.refocusing_deg,
                    self.effective_echo() + 1
                ),
            ),
            Kind::Gre => (
                "spoiled gradient echo",
                format!(
                    "{} echo(es) every {} ms after {} degrees",
                    self.n_echoes, self.echo_spacing_ms, self.excitation_deg
                ),
            ),
        };
        let ti = self
            .ti_ms
            .map_or_else(String::new, |ti| format!(", TI {ti} ms"));
        let fat = match self.fat.method {
            FatMethod::None => String::new(),
            FatMethod::Chess => ", fat saturated (CHESS)".to_owned(),
            FatMethod::Spair => ", fat inverted (SPAIR)".to_owned(),
            FatMethod::Dixon => format!(", Dixon with {} echo shifts", self.n_shifts()),
        };
        let [x, y, z] = self.pixel_mm();
        let [n1, n2] = self.n_lines();
        let pattern = match (
            self.acceleration.pe1 * self.acceleration.pe2,
            self.sampling.kind,
        ) {
            (1, _) => "no acceleration".to_owned(),
            (r, SamplingKind::VariableDensity) => format!("{r}-fold, random"),
            (_, SamplingKind::Regular) => format!(
                "R = {} x {} with {} calibration lines",
                self.acceleration.pe1, self.acceleration.pe2, self.acceleration.acs_pe1
            ),
        };
        vec![
            format!(
                "{region} {} {} by {kind} at {} T: TR {} ms, TE {} ms{ti}{fat}",
                name(format!("{:?}", self.plane)),
                name(format!("{:?}", self.contrast)),
                self.field_strength_t,
                self.tr_ms,
                self.te_ms
            ),
            train,
            format!(
                "{} x {} slices (partitions), {x:.2} x {y:.2} x {z:.2} mm, {} Hz per pixel",
                self.n_slices, self.n_partitions, self.bandwidth_hz_per_pixel
            ),
            format!(
                "{} of {} lines ({pattern}), {} average(s)",
                timing.n_lines,
                n1 * n2,
                self.averages
            ),
            format!(
                "{:.1} s: {} shots of {} ms in {} concatenation(s); a slice takes {:.1} ms, a TR has room for {}",
                timing.scan_s,
                timing.n_shots + self.dummy_shots,
                self.tr_ms,
                timing.concatenations,
                timing.slice_ms,
                timing.slices_fitting
            ),
        ]
    }
}
