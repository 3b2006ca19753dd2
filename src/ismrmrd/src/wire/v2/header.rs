//! The header record → [`Header`].

use super::record::{Record, Result_, narrow};
use super::value::Value;
use crate::header::*;

impl<'s, 'v> Record<'s, 'v> {
    pub(super) fn header(&self) -> Result_<Header> {
        let text = |r: &Self, n: &str| r.text(n).unwrap_or_default();
        let mut encoding = Vec::new();
        for e in self.records("encoding") {
            encoding.push(e.encoding()?);
        }
        let measurement = |m: Record<'s, 'v>| -> Result_<MeasurementInformation> {
            let table = m.sub("relativeTablePosition");
            let dependency = |d: &Self| MeasurementDependency {
                dependency_type: text(d, "dependencyType"),
                measurement_id: text(d, "measurementID"),
            };
            let uids = m
                .sub("referencedImageSequence")
                .map(|r| r.texts("referencedSOPInstanceUID"));
            Ok(MeasurementInformation {
                measurement_id: m.text("measurementID"),
                series_date: m.date("seriesDate"),
                series_time: m.time("seriesTime"),
                patient_position: m
                    .symbol("patientPosition")
                    .unwrap_or_default()
                    .to_ascii_uppercase(),
                relative_table_position: table.map(|t| t.xyz()),
                initial_series_number: m.signed("initialSeriesNumber"),
                protocol_name: m.text("protocolName"),
                sequence_name: m.text("sequenceName"),
                series_description: m.text("seriesDescription"),
                measurement_dependency: m
                    .records("measurementDependency")
                    .iter()
                    .map(dependency)
                    .collect(),
                series_instance_uid_root: m.text("seriesInstanceUIDRoot"),
                frame_of_reference_uid: m.text("frameOfReferenceUID"),
                referenced_image_sequence: uids.unwrap_or_default(),
            })
        };
        let system = |a: Record<'s, 'v>| -> Result_<AcquisitionSystemInformation> {
            let mut coil_label = Vec::new();
            for c in a.records("coilLabel") {
                coil_label.push(CoilLabel {
                    coil_number: c.small("coilNumber")?,
                    coil_name: text(&c, "coilName"),
                });
            }
            Ok(AcquisitionSystemInformation {
                system_vendor: a.text("systemVendor"),
                system_model: a.text("systemModel"),
                system_field_strength_t: a.real("systemFieldStrengthT"),
                relative_receiver_noise_bandwidth: a.real("relativeReceiverNoiseBandwidth"),
                receiver_channels: a
                    .unsigned("receiverChannels")
                    .map(|v| narrow(v, "receiverChannels"))
                    .transpose()?,
                coil_label,
                institution_name: a.text("institutionName"),
                station_name: a.text("stationName"),
                device_id: a.text("deviceID"),
                device_serial_number: a.text("deviceSerialNumber"),
            })
        };
        let waveform = |w: &Self| WaveformInformation {
            waveform_name: text(w, "waveformName"),
            waveform_type: w.symbol("waveformType").unwrap_or_default(),
            user_parameters: w
                .sub("userParameters")
                .map(|u| u.user())
                .unwrap_or_default(),
        };
        Ok(Header {
            version: self.signed("version"),
            subject_information: self.sub("subjectInformation").map(|s| SubjectInformation {
                patient_name: s.text("patientName"),
                patient_weight_kg: s.real("patientWeightKg"),
                patient_height_m: s.real("patientHeightM"),
                patient_id: s.text("patientID"),
                patient_birthdate: s.date("patientBirthdate"),
                patient_gender: s.symbol("patientGender").map(|g| g.to_ascii_uppercase()),
            }),
            study_information: self.sub("studyInformation").map(|s| StudyInformation {
                study_date: s.date("studyDate"),
                study_time: s.time("studyTime"),
                study_id: s.text("studyID"),
                accession_number: s.signed("accessionNumber"),
                referring_physician_name: s.text("referringPhysicianName"),
                study_description: s.text("studyDescription"),
                study_instance_uid: s.text("studyInstanceUID"),
                body_part_examined: s.text("bodyPartExamined"),
            }),
            measurement_information: self
                .sub("measurementInformation")
                .map(measurement)
                .transpose()?,
            acquisition_system_information: self
                .sub("acquisitionSystemInformation")
                .map(system)
                .transpose()?,
            experimental_conditions: ExperimentalConditions {
                h1_resonance_frequency_hz: self
                    .sub("experimentalConditions")
                    .and_then(|e| e.signed("h1resonanceFrequencyHz"))
                    .unwrap_or(0),
            },
            encoding,
            sequence_parameters: self.sub("sequenceParameters").map(|s| s.sequence()),
            user_parameters: self.sub("userParameters").map(|u| u.user()),
            waveform_information: self
                .records("waveformInformation")
                .iter()
                .map(waveform)
                .collect(),
            unknown: Vec::new(),
        })
    }

    fn texts(&self, name: &str) -> Vec<String> {
        let text = |v: &Value<'_>| match v {
            Value::Text(t) => Some(t.to_string()),
            _ => None,
        };
        self.list(name).iter().filter_map(text).collect()
    }

    fn reals(&self, name: &str) -> Vec<f32> {
        let real = |v: &Value<'_>| match v {
            Value::Real(v) => Some(*v as f32),
            _ => None,
        };
        self.list(name).iter().filter_map(real).collect()
    }

    fn xyz(&self) -> [f32; 3] {
        ["x", "y", "z"].map(|n| self.real(n).unwrap_or(0.0))
    }

    fn space(&self) -> Result_<EncodingSpace> {
        let m = self.needed("matrixSize")?;
        Ok(EncodingSpace {
            matrix_size: [m.small("x")?, m.small("y")?, m.small("z")?],
            field_of_view_mm: self.needed("fieldOfViewMm")?.xyz(),
        })
    }

    fn limit(&self, name: &str) -> Result_<Option<Limit>> {
        let Some(l) = self.sub(name) else {
            return Ok(None);
        };
        Ok(Some(Limit {
            minimum: l.small("minimum")?,
            maximum: l.small("maximum")?,
            center: l.small("center")?,
        }))
    }

    fn encoding(&self) -> Result_<Encoding> {
        let l = self.needed("encodingLimits")?;
        let encoding_limits = EncodingLimits::find(|(_, name)| l.limit(name))?;
        let trajectory = Trajectory::of(&self.symbol("trajectory").unwrap_or_default());
        let parallel = |p: Record<'s, 'v>| -> Result_<ParallelImaging> {
            let f = p.needed("accelerationFactor")?;
            let multiband = |m: Record<'s, 'v>| -> Result_<Multiband> {
                Ok(Multiband {
                    spacing: m.records("spacing").iter().map(|s| s.reals("dZ")).collect(),
                    delta_kz: m.real("deltaKz").unwrap_or(0.0),
                    multiband_factor: m.small("multibandFactor")?,
                    calibration: m.symbol("calibration").unwrap_or_default(),
                    calibration_encoding: m.unsigned("calibrationEncoding").unwrap_or(0),
                })
            };
            Ok(ParallelImaging {
                acceleration_factor: [
                    f.small("kspaceEncodingStep1")?,
                    f.small("kspaceEncodingStep2")?,
                ],
                calibration_mode: p.symbol("calibrationMode"),
                interleaving_dimension: p.symbol("interleavingDimension"),
                multiband: p.sub("multiband").map(multiband).transpose()?,
            })
        };
        Ok(Encoding {
            encoded_space: self.needed("encodedSpace")?.space()?,
            recon_space: self.needed("reconSpace")?.space()?,
            encoding_limits,
            trajectory,
            trajectory_description: self.sub("trajectoryDescription").map(|t| {
                TrajectoryDescription {
                    identifier: t.text("identifier").unwrap_or_default(),
                    user_parameters: t.user(),
                    comment: t.text("comment"),
                }
            }),
            parallel_imaging: self.sub("parallelImaging").map(parallel).transpose()?,
            echo_train_length: self.signed("echoTrainLength"),
        })
    }

    fn sequence(&self) -> SequenceParameters {
        let diffusion = |d: &Self| {
            let g = d.sub("gradientDirection");
            let part = |n: &str| g.and_then(|g| g.real(n)).unwrap_or(0.0);
            Diffusion {
                gradient_direction: [part("rl"), part("ap"), part("fh")],
                bvalue: d.real("bvalue").unwrap_or(0.0),
            }
        };
        // "user0" there, "user_0" in the XML schema.
        let dimension = self
            .symbol("diffusionDimension")
            .map(|d| match d.strip_prefix("user") {
                Some(n) => format!("user_{n}"),
                None => d,
            });
        SequenceParameters {
            tr: self.reals("tR"),
            te: self.reals("tE"),
            ti: self.reals("tI"),
            flip_angle_deg: self.reals("flipAngleDeg"),
            sequence_type: self.text("sequenceType"),
            echo_spacing: self.reals("echoSpacing"),
            diffusion_dimension: dimension,
            diffusion: self.records("diffusion").iter().map(diffusion).collect(),
            diffusion_scheme: self.text("diffusionScheme"),
        }
    }

    fn user(&self) -> UserParameters {
        let name = |p: &Self| p.text("name").unwrap_or_default();
        let texts = |list: &str| -> Vec<(String, String)> {
            self.records(list)
                .iter()
                .map(|p| (name(p), p.text("value").unwrap_or_default()))
                .collect()
        };
        let double = |p: &Self| match p.field("value") {
            Some(Value::Real(v)) => *v,
            _ => 0.0,
        };
        UserParameters {
            long: self
                .records("userParameterLong")
                .iter()
                .map(|p| (name(p), p.signed("value").unwrap_or(0)))
                .collect(),
            double: self
                .records("userParameterDouble")
                .iter()
                .map(|p| (name(p), double(p)))
                .collect(),
            string: texts("userParameterString"),
            base64: texts("userParameterBase64"),
        }
    }
}
