//! XML text → [`Header`].

use std::str::FromStr;

use super::*;
use crate::Error;
use crate::xml::{self, Element};

impl Header {
    /// Reads a header.
    ///
    /// Tolerated: any name-space prefix or none, a byte order mark, an XML declaration of any encoding
    /// (the text is already decoded), trailing NULs, elements in any order, numbers with white space or
    /// written as `256.0`. Elements outside the schema go to [`Header::unknown`].
    ///
    /// # Errors
    /// [`Error::Malformed`] with the element's path, what was found and what was needed: not well formed, a
    /// number that does not parse or is out of range (negative, overflow, NaN), a required element missing,
    /// a single element given twice.
    ///
    /// # Source
    /// `ismrmrd.xsd` of the ISMRMRD project.
    pub fn parse(xml: &str) -> Result<Header, Error> {
        let text = xml::trim(xml);
        let node = xml::parse(text, "header")?;
        if node.name != "ismrmrdHeader" {
            return Err(Error::Malformed {
                place: "header".into(),
                found: format!("the root element <{}>", node.name),
                needed: "<ismrmrdHeader>".into(),
            });
        }
        let mut parser = Parser {
            unknown: Vec::new(),
        };
        let mut header = parser.header(&Element::root(&node, text))?;
        header.unknown = parser.unknown;
        Ok(header)
    }

    /// Reads a header from bytes, as they stand in a file or a message.
    ///
    /// # Errors
    /// As [`Header::parse`], and for bytes that are not text.
    pub fn parse_bytes(bytes: &[u8]) -> Result<Header, Error> {
        Self::parse(&xml::decode(bytes, "header")?)
    }
}

/// Decodes the bytes of a header to text.
///
/// # Errors
/// [`Error::Malformed`]: neither UTF-8, nor UTF-16 with a byte order mark, nor declared Latin-1.
pub fn decode_text(bytes: &[u8]) -> Result<String, Error> {
    Ok(xml::trim(&xml::decode(bytes, "header")?).to_owned())
}

struct Parser {
    unknown: Vec<UnknownElement>,
}

type Result_<T> = Result<T, Error>;

fn shown(text: &str) -> String {
    let mut short: String = text.chars().take(40).collect();
    if short.len() < text.len() {
        short.push('…');
    }
    format!("\"{short}\"")
}

/// An integer; `256.0` is accepted, `256.5` is not.
fn integer<T: TryFrom<i128>>(e: &Element<'_>, needed: &str) -> Result_<T> {
    let word = e.word();
    let value = i128::from_str(word).ok().or_else(|| {
        let (whole, fraction) = word.split_once('.')?;
        (!fraction.is_empty() && fraction.bytes().all(|b| b == b'0'))
            .then(|| i128::from_str(whole).ok())?
    });
    let value = value.and_then(|v| T::try_from(v).ok());
    value.ok_or_else(|| e.malformed("", shown(word), needed))
}

fn long(e: &Element<'_>) -> Result_<i64> {
    integer(e, "a whole number of 64 bits")
}

fn count(e: &Element<'_>) -> Result_<u32> {
    integer(e, "a whole number from 0 to 4294967295")
}

fn float(e: &Element<'_>) -> Result_<f32> {
    let word = e.word();
    match f32::from_str(word) {
        Ok(v) if v.is_finite() => Ok(v),
        _ => Err(e.malformed("", shown(word), "a finite number")),
    }
}

/// `xs:double` allows NaN and INF, and a user parameter may mean them.
fn double(e: &Element<'_>) -> Result_<f64> {
    let word = e.word();
    f64::from_str(word).map_err(|_| e.malformed("", shown(word), "a number"))
}

impl Parser {
    /// Keeps what nobody asked for.
    fn finish(&mut self, e: &Element<'_>) {
        for xml in e.left_over() {
            self.unknown.push(UnknownElement {
                parent: e.path.clone(),
                xml,
            });
        }
    }

    fn opt<T>(
        &self,
        e: &Element<'_>,
        name: &str,
        read: fn(&Element<'_>) -> Result_<T>,
    ) -> Result_<Option<T>> {
        e.child(name)?.map(|c| read(&c)).transpose()
    }

    fn req<T>(
        &self,
        e: &Element<'_>,
        name: &str,
        read: fn(&Element<'_>) -> Result_<T>,
    ) -> Result_<T> {
        read(&e.required(name)?)
    }

    fn all<T>(
        &self,
        e: &Element<'_>,
        name: &str,
        read: fn(&Element<'_>) -> Result_<T>,
    ) -> Result_<Vec<T>> {
        e.children(name).iter().map(read).collect()
    }

    fn word(&self, e: &Element<'_>, name: &str) -> Result_<Option<String>> {
        Ok(e.child(name)?.map(|c| c.word().to_owned()))
    }

    fn header(&mut self, e: &Element<'_>) -> Result_<Header> {
        let version = self.opt(e, "version", long)?;
        let subject_information = match e.child("subjectInformation")? {
            Some(c) => Some(self.subject(&c)?),
            None => None,
        };
        let study_information = match e.child("studyInformation")? {
            Some(c) => Some(self.study(&c)?),
            None => None,
        };
        let measurement_information = match e.child("measurementInformation")? {
            Some(c) => Some(self.measurement(&c)?),
            None => None,
        };
        let acquisition_system_information = match e.child("acquisitionSystemInformation")? {
            Some(c) => Some(self.system(&c)?),
            None => None,
        };
        let experimental_conditions = match e.child("experimentalConditions")? {
            Some(c) => {
                let f = self.opt(&c, "H1resonanceFrequency_Hz", long)?;
                self.finish(&c);
                ExperimentalConditions {
                    h1_resonance_frequency_hz: f.unwrap_or(0),
                }
            }
            None => ExperimentalConditions::default(),
        };
        let mut encoding = Vec::new();
        for c in e.children("encoding") {
            encoding.push(self.encoding(&c)?);
        }
        let sequence_parameters = match e.child("sequenceParameters")? {
            Some(c) => Some(self.sequence(&c)?),
            None => None,
        };
        let user_parameters = match e.child("userParameters")? {
            Some(c) => Some(self.user(&c)?),
            None => None,
        };
        let mut waveform_information = Vec::new();
        for c in e.children("waveformInformation") {
            waveform_information.push(self.waveform(&c)?);
        }
        self.finish(e);
        Ok(Header {
            version,
            subject_information,
            study_information,
            measurement_information,
            acquisition_system_information,
            experimental_conditions,
            encoding,
            sequence_parameters,
            user_parameters,
            waveform_information,
            unknown: Vec::new(),
        })
    }

    fn subject(&mut self, e: &Element<'_>) -> Result_<SubjectInformation> {
        let subject = SubjectInformation {
            patient_name: e.string("patientName")?,
            patient_weight_kg: self.opt(e, "patientWeight_kg", float)?,
            patient_height_m: self.opt(e, "patientHeight_m", float)?,
            patient_id: e.string("patientID")?,
            patient_birthdate: self.word(e, "patientBirthdate")?,
            patient_gender: self.word(e, "patientGender")?,
        };
        self.finish(e);
        Ok(subject)
    }

    fn study(&mut self, e: &Element<'_>) -> Result_<StudyInformation> {
        let study = StudyInformation {
            study_date: self.word(e, "studyDate")?,
            study_time: self.word(e, "studyTime")?,
            study_id: e.string("studyID")?,
            accession_number: self.opt(e, "accessionNumber", long)?,
            referring_physician_name: e.string("referringPhysicianName")?,
            study_description: e.string("studyDescription")?,
            study_instance_uid: e.string("studyInstanceUID")?,
            body_part_examined: e.string("bodyPartExamined")?,
        };
        self.finish(e);
        Ok(study)
    }

    fn measurement(&mut self, e: &Element<'_>) -> Result_<MeasurementInformation> {
        let relative_table_position = match e.child("relativeTablePosition")? {
            Some(c) => Some(self.xyz(&c, float)?),
            None => None,
        };
        let mut measurement_dependency = Vec::new();
        for c in e.children("measurementDependency") {
            measurement_dependency.push(MeasurementDependency {
                dependency_type: c.required("dependencyType")?.text(),
                measurement_id: c.required("measurementID")?.text(),
            });
            self.finish(&c);
        }
        let referenced_image_sequence = match e.child("referencedImageSequence")? {
            Some(c) => {
                let uids = c
                    .children("referencedSOPInstanceUID")
                    .iter()
                    .map(Element::text)
                    .collect();
                self.finish(&c);
                uids
            }
            None => Vec::new(),
        };
        let measurement = MeasurementInformation {
            measurement_id: e.string("measurementID")?,
            series_date: self.word(e, "seriesDate")?,
            series_time: self.word(e, "seriesTime")?,
            patient_position: self.word(e, "patientPosition")?.unwrap_or_default(),
            relative_table_position,
            initial_series_number: self.opt(e, "initialSeriesNumber", long)?,
            protocol_name: e.string("protocolName")?,
            sequence_name: e.string("sequenceName")?,
            series_description: e.string("seriesDescription")?,
            measurement_dependency,
            series_instance_uid_root: e.string("seriesInstanceUIDRoot")?,
            frame_of_reference_uid: e.string("frameOfReferenceUID")?,
            referenced_image_sequence,
        };
        self.finish(e);
        Ok(measurement)
    }

    fn system(&mut self, e: &Element<'_>) -> Result_<AcquisitionSystemInformation> {
        let mut coil_label = Vec::new();
        for c in e.children("coilLabel") {
            coil_label.push(CoilLabel {
                coil_number: self.req(&c, "coilNumber", count)?,
                coil_name: c.required("coilName")?.text(),
            });
            self.finish(&c);
        }
        let system = AcquisitionSystemInformation {
            system_vendor: e.string("systemVendor")?,
            system_model: e.string("systemModel")?,
            system_field_strength_t: self.opt(e, "systemFieldStrength_T", float)?,
            relative_receiver_noise_bandwidth: self.opt(
                e,
                "relativeReceiverNoiseBandwidth",
                float,
            )?,
            receiver_channels: self.opt(e, "receiverChannels", count)?,
            coil_label,
            institution_name: e.string("institutionName")?,
            station_name: e.string("stationName")?,
            device_id: e.string("deviceID")?,
            device_serial_number: e.string("deviceSerialNumber")?,
        };
        self.finish(e);
        Ok(system)
    }

    fn xyz<T>(&mut self, e: &Element<'_>, read: fn(&Element<'_>) -> Result_<T>) -> Result_<[T; 3]> {
        let value = [
            self.req(e, "x", read)?,
            self.req(e, "y", read)?,
            self.req(e, "z", read)?,
        ];
        self.finish(e);
        Ok(value)
    }

    fn space(&mut self, e: &Element<'_>) -> Result_<EncodingSpace> {
        let matrix = |e: &Element<'_>| -> Result_<u32> {
            match integer::<u32>(e, "a whole number from 1 to 4294967295")? {
                0 => Err(e.malformed("", "0".into(), "at least 1")),
                n => Ok(n),
            }
        };
        let length = |e: &Element<'_>| -> Result_<f32> {
            match float(e)? {
                // Zero stands in files that do not know it; less than nothing is an error.
                v if v >= 0.0 => Ok(v),
                v => Err(e.malformed("", v.to_string(), "a length in mm, not negative")),
            }
        };
        let space = EncodingSpace {
            matrix_size: self.xyz(&e.required("matrixSize")?, matrix)?,
            field_of_view_mm: self.xyz(&e.required("fieldOfView_mm")?, length)?,
        };
        self.finish(e);
        Ok(space)
    }

    fn limit(&mut self, e: &Element<'_>, name: &str) -> Result_<Option<Limit>> {
        let Some(c) = e.child(name)? else {
            return Ok(None);
        };
        let limit = Limit {
            minimum: self.opt(&c, "minimum", count)?.unwrap_or(0),
            maximum: self.opt(&c, "maximum", count)?.unwrap_or(0),
            center: self.opt(&c, "center", count)?.unwrap_or(0),
        };
        self.finish(&c);
        Ok(Some(limit))
    }

    fn limits(&mut self, e: &Element<'_>) -> Result_<EncodingLimits> {
        let limits = EncodingLimits::find(|(name, _)| self.limit(e, name))?;
        self.finish(e);
        Ok(limits)
    }

    fn encoding(&mut self, e: &Element<'_>) -> Result_<Encoding> {
        let encoded_space = self.space(&e.required("encodedSpace")?)?;
        let recon_space = self.space(&e.required("reconSpace")?)?;
        let encoding_limits = match e.child("encodingLimits")? {
            Some(c) => self.limits(&c)?,
            None => EncodingLimits::default(),
        };
        let trajectory = Trajectory::of(e.required("trajectory")?.word());
        let trajectory_description = match e.child("trajectoryDescription")? {
            Some(c) => {
                let identifier = c.required("identifier")?.text();
                let comment = c.string("comment")?;
                let user_parameters = self.user(&c)?;
                Some(TrajectoryDescription {
                    identifier,
                    user_parameters,
                    comment,
                })
            }
            None => None,
        };
        let parallel_imaging = match e.child("parallelImaging")? {
            Some(c) => Some(self.parallel(&c)?),
            None => None,
        };
        let echo_train_length = self.opt(e, "echoTrainLength", long)?;
        self.finish(e);
        Ok(Encoding {
            encoded_space,
            recon_space,
            encoding_limits,
            trajectory,
            trajectory_description,
            parallel_imaging,
            echo_train_length,
        })
    }

    fn parallel(&mut self, e: &Element<'_>) -> Result_<ParallelImaging> {
        let factor = e.required("accelerationFactor")?;
        let acceleration_factor = [
            self.req(&factor, "kspace_encoding_step_1", count)?,
            self.req(&factor, "kspace_encoding_step_2", count)?,
        ];
        self.finish(&factor);
        let multiband = match e.child("multiband")? {
            Some(c) => {
                let mut spacing = Vec::new();
                for s in c.children("spacing") {
                    spacing.push(self.all(&s, "dZ", float)?);
                    self.finish(&s);
                }
                let multiband = Multiband {
                    spacing,
                    delta_kz: self.req(&c, "deltaKz", float)?,
                    multiband_factor: self.req(&c, "multiband_factor", count)?,
                    calibration: c.required("calibration")?.word().to_owned(),
                    calibration_encoding: integer(
                        &c.required("calibration_encoding")?,
                        "a whole number of 64 bits, not negative",
                    )?,
                };
                self.finish(&c);
                Some(multiband)
            }
            None => None,
        };
        let parallel = ParallelImaging {
            acceleration_factor,
            calibration_mode: self.word(e, "calibrationMode")?,
            interleaving_dimension: self.word(e, "interleavingDimension")?,
            multiband,
        };
        self.finish(e);
        Ok(parallel)
    }

    fn sequence(&mut self, e: &Element<'_>) -> Result_<SequenceParameters> {
        let mut diffusion = Vec::new();
        for c in e.children("diffusion") {
            let g = c.required("gradientDirection")?;
            let gradient_direction = [
                self.req(&g, "rl", float)?,
                self.req(&g, "ap", float)?,
                self.req(&g, "fh", float)?,
            ];
            self.finish(&g);
            diffusion.push(Diffusion {
                gradient_direction,
                bvalue: self.req(&c, "bvalue", float)?,
            });
            self.finish(&c);
        }
        let sequence = SequenceParameters {
            tr: self.all(e, "TR", float)?,
            te: self.all(e, "TE", float)?,
            ti: self.all(e, "TI", float)?,
            flip_angle_deg: self.all(e, "flipAngle_deg", float)?,
            sequence_type: e.string("sequence_type")?,
            echo_spacing: self.all(e, "echo_spacing", float)?,
            diffusion_dimension: self.word(e, "diffusionDimension")?,
            diffusion,
            diffusion_scheme: e.string("diffusionScheme")?,
        };
        self.finish(e);
        Ok(sequence)
    }

    fn user(&mut self, e: &Element<'_>) -> Result_<UserParameters> {
        let mut user = UserParameters::default();
        for c in e.children("userParameterLong") {
            user.long
                .push((c.required("name")?.text(), self.req(&c, "value", long)?));
            self.finish(&c);
        }
        for c in e.children("userParameterDouble") {
            user.double
                .push((c.required("name")?.text(), self.req(&c, "value", double)?));
            self.finish(&c);
        }
        for c in e.children("userParameterString") {
            user.string
                .push((c.required("name")?.text(), c.required("value")?.text()));
            self.finish(&c);
        }
        for c in e.children("userParameterBase64") {
            user.base64
                .push((c.required("name")?.text(), c.required("value")?.text()));
            self.finish(&c);
        }
        self.finish(e);
        Ok(user)
    }

    fn waveform(&mut self, e: &Element<'_>) -> Result_<WaveformInformation> {
        let user_parameters = match e.child("userParameters")? {
            Some(c) => self.user(&c)?,
            None => UserParameters::default(),
        };
        let waveform = WaveformInformation {
            waveform_name: e.required("waveformName")?.text(),
            waveform_type: e.required("waveformType")?.word().to_owned(),
            user_parameters,
        };
        self.finish(e);
        Ok(waveform)
    }
}
