//! [`Header`] → XML text, in the order of the schema.

use std::fmt::Display;

use super::*;
use crate::xml::escape;

impl Header {
    /// Writes the header as XML: UTF-8, schema order, unknown elements at the end of their parents.
    ///
    /// Numbers are written with the fewest digits that read back to the same bits. Characters that XML
    /// cannot carry (NUL and other controls) become U+FFFD. An unknown element whose parent is not
    /// written any more stands at the end of the root.
    pub fn to_xml(&self) -> String {
        let mut w = Writer::new(&self.unknown);
        w.out.push_str("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<ismrmrdHeader xmlns=\"http://www.ismrm.org/ISMRMRD\">\n");
        w.opt("version", self.version.as_ref());
        if let Some(s) = &self.subject_information {
            w.group("subjectInformation", |w| subject(w, s));
        }
        if let Some(s) = &self.study_information {
            w.group("studyInformation", |w| study(w, s));
        }
        if let Some(m) = &self.measurement_information {
            w.group("measurementInformation", |w| measurement(w, m));
        }
        if let Some(s) = &self.acquisition_system_information {
            w.group("acquisitionSystemInformation", |w| system(w, s));
        }
        w.group("experimentalConditions", |w| {
            w.leaf(
                "H1resonanceFrequency_Hz",
                self.experimental_conditions.h1_resonance_frequency_hz,
            );
        });
        for (i, e) in self.encoding.iter().enumerate() {
            w.indexed("encoding", i, |w| encoding(w, e));
        }
        if let Some(s) = &self.sequence_parameters {
            w.group("sequenceParameters", |w| sequence(w, s));
        }
        if let Some(u) = &self.user_parameters {
            w.group("userParameters", |w| user(w, u));
        }
        for (i, f) in self.waveform_information.iter().enumerate() {
            w.indexed("waveformInformation", i, |w| {
                w.text("waveformName", &f.waveform_name);
                w.text("waveformType", &f.waveform_type);
                w.group("userParameters", |w| user(w, &f.user_parameters));
            });
        }
        w.unknown_of_root();
        w.out.push_str("</ismrmrdHeader>\n");
        w.out
    }
}

struct Writer<'a> {
    out: String,
    path: Vec<String>,
    unknown: &'a [UnknownElement],
    written: Vec<bool>,
}

impl<'a> Writer<'a> {
    fn new(unknown: &'a [UnknownElement]) -> Self {
        Self {
            out: String::new(),
            path: Vec::new(),
            unknown,
            written: vec![false; unknown.len()],
        }
    }

    fn indent(&mut self) {
        for _ in 0..=self.path.len() {
            self.out.push_str("  ");
        }
    }

    fn leaf(&mut self, name: &str, value: impl Display) {
        self.text(name, &value.to_string());
    }

    fn text(&mut self, name: &str, value: &str) {
        self.indent();
        self.out
            .push_str(&format!("<{name}>{}</{name}>\n", escape(value)));
    }

    fn opt(&mut self, name: &str, value: Option<&impl Display>) {
        if let Some(v) = value {
            self.leaf(name, v);
        }
    }

    fn each(&mut self, name: &str, values: &[f32]) {
        for v in values {
            self.leaf(name, v);
        }
    }

    fn group(&mut self, name: &str, body: impl FnOnce(&mut Self)) {
        self.element(name, name.to_owned(), body);
    }

    fn indexed(&mut self, name: &str, index: usize, body: impl FnOnce(&mut Self)) {
        self.element(name, format!("{name}[{index}]"), body);
    }

    fn element(&mut self, name: &str, step: String, body: impl FnOnce(&mut Self)) {
        self.indent();
        self.out.push_str(&format!("<{name}>\n"));
        self.path.push(step);
        body(self);
        let here = self.path.join("/");
        for (i, u) in self
            .unknown
            .iter()
            .enumerate()
            .filter(|(_, u)| u.parent == here)
        {
            self.out.push_str(&u.xml);
            self.out.push('\n');
            if let Some(done) = self.written.get_mut(i) {
                *done = true;
            }
        }
        self.path.pop();
        self.indent();
        self.out.push_str(&format!("</{name}>\n"));
    }

    fn unknown_of_root(&mut self) {
        for (u, _) in self
            .unknown
            .iter()
            .zip(&self.written)
            .filter(|(_, done)| !**done)
        {
            self.out.push_str(&u.xml);
            self.out.push('\n');
        }
    }
}

fn subject(w: &mut Writer<'_>, s: &SubjectInformation) {
    w.opt("patientName", s.patient_name.as_ref());
    w.opt("patientWeight_kg", s.patient_weight_kg.as_ref());
    w.opt("patientHeight_m", s.patient_height_m.as_ref());
    w.opt("patientID", s.patient_id.as_ref());
    w.opt("patientBirthdate", s.patient_birthdate.as_ref());
    w.opt("patientGender", s.patient_gender.as_ref());
}

fn study(w: &mut Writer<'_>, s: &StudyInformation) {
    w.opt("studyDate", s.study_date.as_ref());
    w.opt("studyTime", s.study_time.as_ref());
    w.opt("studyID", s.study_id.as_ref());
    w.opt("accessionNumber", s.accession_number.as_ref());
    w.opt(
        "referringPhysicianName",
        s.referring_physician_name.as_ref(),
    );
    w.opt("studyDescription", s.study_description.as_ref());
    w.opt("studyInstanceUID", s.study_instance_uid.as_ref());
    w.opt("bodyPartExamined", s.body_part_examined.as_ref());
}

fn measurement(w: &mut Writer<'_>, m: &MeasurementInformation) {
    w.opt("measurementID", m.measurement_id.as_ref());
    w.opt("seriesDate", m.series_date.as_ref());
    w.opt("seriesTime", m.series_time.as_ref());
    if !m.patient_position.is_empty() {
        w.text("patientPosition", &m.patient_position);
    }
    if let Some(p) = &m.relative_table_position {
        w.group("relativeTablePosition", |w| xyz(w, p));
    }
    w.opt("initialSeriesNumber", m.initial_series_number.as_ref());
    w.opt("protocolName", m.protocol_name.as_ref());
    w.opt("sequenceName", m.sequence_name.as_ref());
    w.opt("seriesDescription", m.series_description.as_ref());
    for (i, d) in m.measurement_dependency.iter().enumerate() {
        w.indexed("measurementDependency", i, |w| {
            w.text("dependencyType", &d.dependency_type);
            w.text("measurementID", &d.measurement_id);
        });
    }
    w.opt("seriesInstanceUIDRoot", m.series_instance_uid_root.as_ref());
    w.opt("frameOfReferenceUID", m.frame_of_reference_uid.as_ref());
    if !m.referenced_image_sequence.is_empty() {
        w.group("referencedImageSequence", |w| {
            for uid in &m.referenced_image_sequence {
                w.text("referencedSOPInstanceUID", uid);
            }
        });
    }
}

fn system(w: &mut Writer<'_>, s: &AcquisitionSystemInformation) {
    w.opt("systemVendor", s.system_vendor.as_ref());
    w.opt("systemModel", s.system_model.as_ref());
    w.opt("systemFieldStrength_T", s.system_field_strength_t.as_ref());
    w.opt(
        "relativeReceiverNoiseBandwidth",
        s.relative_receiver_noise_bandwidth.as_ref(),
    );
    w.opt("receiverChannels", s.receiver_channels.as_ref());
    for (i, c) in s.coil_label.iter().enumerate() {
        w.indexed("coilLabel", i, |w| {
            w.leaf("coilNumber", c.coil_number);
            w.text("coilName", &c.coil_name);
        });
    }
    w.opt("institutionName", s.institution_name.as_ref());
    w.opt("stationName", s.station_name.as_ref());
    w.opt("deviceID", s.device_id.as_ref());
    w.opt("deviceSerialNumber", s.device_serial_number.as_ref());
}

fn xyz<T: Display>(w: &mut Writer<'_>, v: &[T; 3]) {
    let [x, y, z] = v;
    w.leaf("x", x);
    w.leaf("y", y);
    w.leaf("z", z);
}

fn space(w: &mut Writer<'_>, s: &EncodingSpace) {
    w.group("matrixSize", |w| xyz(w, &s.matrix_size));
    w.group("fieldOfView_mm", |w| xyz(w, &s.field_of_view_mm));
}

fn encoding(w: &mut Writer<'_>, e: &Encoding) {
    w.group("encodedSpace", |w| space(w, &e.encoded_space));
    w.group("reconSpace", |w| space(w, &e.recon_space));
    w.group("encodingLimits", |w| {
        for ((name, _), limit) in EncodingLimits::NAMES
            .into_iter()
            .zip(e.encoding_limits.all())
        {
            if let Some(l) = limit {
                w.group(name, |w| {
                    w.leaf("minimum", l.minimum);
                    w.leaf("maximum", l.maximum);
                    w.leaf("center", l.center);
                });
            }
        }
    });
    w.text("trajectory", e.trajectory.word());
    if let Some(t) = &e.trajectory_description {
        w.group("trajectoryDescription", |w| {
            w.text("identifier", &t.identifier);
            user(w, &t.user_parameters);
            w.opt("comment", t.comment.as_ref());
        });
    }
    if let Some(p) = &e.parallel_imaging {
        w.group("parallelImaging", |w| parallel(w, p));
    }
    w.opt("echoTrainLength", e.echo_train_length.as_ref());
}

fn parallel(w: &mut Writer<'_>, p: &ParallelImaging) {
    w.group("accelerationFactor", |w| {
        let [r1, r2] = p.acceleration_factor;
        w.leaf("kspace_encoding_step_1", r1);
        w.leaf("kspace_encoding_step_2", r2);
    });
    w.opt("calibrationMode", p.calibration_mode.as_ref());
    w.opt("interleavingDimension", p.interleaving_dimension.as_ref());
    if let Some(m) = &p.multiband {
        w.group("multiband", |w| {
            for (i, s) in m.spacing.iter().enumerate() {
                w.indexed("spacing", i, |w| w.each("dZ", s));
            }
            w.leaf("deltaKz", m.delta_kz);
            w.leaf("multiband_factor", m.multiband_factor);
            w.text("calibration", &m.calibration);
            w.leaf("calibration_encoding", m.calibration_encoding);
        });
    }
}

fn sequence(w: &mut Writer<'_>, s: &SequenceParameters) {
    w.each("TR", &s.tr);
    w.each("TE", &s.te);
    w.each("TI", &s.ti);
    w.each("flipAngle_deg", &s.flip_angle_deg);
    w.opt("sequence_type", s.sequence_type.as_ref());
    w.each("echo_spacing", &s.echo_spacing);
    w.opt("diffusionDimension", s.diffusion_dimension.as_ref());
    for (i, d) in s.diffusion.iter().enumerate() {
        w.indexed("diffusion", i, |w| {
            w.group("gradientDirection", |w| {
                let [rl, ap, fh] = d.gradient_direction;
                w.leaf("rl", rl);
                w.leaf("ap", ap);
                w.leaf("fh", fh);
            });
            w.leaf("bvalue", d.bvalue);
        });
    }
    w.opt("diffusionScheme", s.diffusion_scheme.as_ref());
}

fn user(w: &mut Writer<'_>, u: &UserParameters) {
    for (i, (name, value)) in u.long.iter().enumerate() {
        pair(w, "userParameterLong", i, name, &value.to_string());
    }
    for (i, (name, value)) in u.double.iter().enumerate() {
        // XML Schema spells infinity its own way.
        let text = match *value {
            v if v == f64::INFINITY => "INF".to_owned(),
            v if v == f64::NEG_INFINITY => "-INF".to_owned(),
            v => v.to_string(),
        };
        pair(w, "userParameterDouble", i, name, &text);
    }
    for (i, (name, value)) in u.string.iter().enumerate() {
        pair(w, "userParameterString", i, name, value);
    }
    for (i, (name, value)) in u.base64.iter().enumerate() {
        pair(w, "userParameterBase64", i, name, value);
    }
}

fn pair(w: &mut Writer<'_>, element: &str, index: usize, name: &str, value: &str) {
    w.indexed(element, index, |w| {
        w.text("name", name);
        w.text("value", value);
    });
}
