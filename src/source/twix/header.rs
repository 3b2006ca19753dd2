//! From a twix protocol to an ISMRMRD header.
//!
//! The map is that of siemens_to_ismrmrd's `IsmrmrdParameterMap_Siemens.xsl` (MIT), so that a file read directly and a
//! file converted first give the same scan, with two deviations: the k-space centre comes from the readouts' own
//! headers (the stylesheet computes it, wrongly for some partial-Fourier scans: its issues 24 and 142), and names of
//! patients are not carried.

use ismrmrd::Header;
use ismrmrd::header as xml;

use super::protocol::Protocol;
use crate::data::Note;

/// What the readouts themselves say, for what the protocol leaves open.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) max_line: u16,
    pub(crate) max_partition: u16,
    pub(crate) max_samples: u16,
    pub(crate) max_channels: u16,
    /// Of the first imaging line: line, partition.
    pub(crate) centre: Option<[u16; 2]>,
    /// Highest value of: average, slice, contrast, phase, repetition, set, segment.
    pub(crate) max: [u16; 7],
}

/// Factor between the bandwidth given by the dwell time and the effective noise bandwidth of Siemens receivers.
const RELATIVE_NOISE_BANDWIDTH: f32 = 0.793;

pub(crate) fn header(p: &Protocol, seen: &Seen, notes: &mut Vec<Note>) -> Header {
    let text = |keys: &[&str]| p.text(keys).map(str::to_string);
    let base = p.count(&["MEAS.sKSpace.lBaseResolution"]);
    let oversampling = p
        .number(&["YAPS.flReadoutOSFactor", "DICOM.flReadoutOSFactor"])
        .filter(|f| (1.0..=16.0).contains(f))
        .unwrap_or(2.0);
    let trajectory = match p.count(&["MEAS.sKSpace.ucTrajectory"]) {
        Some(1) | None => xml::Trajectory::Cartesian,
        Some(2) => xml::Trajectory::Radial,
        Some(4) => xml::Trajectory::Spiral,
        Some(8) => xml::Trajectory::Unknown("propellor".into()),
        Some(_) => xml::Trajectory::Other,
    };
    let is_cartesian = trajectory == xml::Trajectory::Cartesian;
    let is_epi = is_cartesian
        && p.number(&["YAPS.alRegridRampupTime"]).unwrap_or(0.0) > 0.0
        && p.number(&["YAPS.alRegridRampdownTime"]).unwrap_or(0.0) > 0.0;

    // Encoded matrix. Columns with oversampling; a partial echo has fewer samples but the same grid.
    let columns = p.count(&["YAPS.iNoOfFourierColumns"]).filter(|&n| n > 0);
    let by_base = base.map(|b| (f64::from(b) * oversampling).round() as u32);
    let x = if is_cartesian {
        columns.max(by_base).unwrap_or(u32::from(seen.max_samples))
    } else {
        p.count(&["IRIS.DERIVED.imageColumns"])
            .or(base)
            .unwrap_or(u32::from(seen.max_samples))
    };
    if columns.is_none() {
        notes.push(Note::new(
            "columns_from_data",
            format!("YAPS.iNoOfFourierColumns is absent: {x} columns by base resolution or by the readouts"),
        ));
    }
    let fourier_lines = p
        .count(&["YAPS.iNoOfFourierLines"])
        .filter(|&n| n > 0)
        .unwrap_or(u32::from(seen.max_line) + 1);
    let y = p
        .count(&["MEAS.sKSpace.lPhaseEncodingLines"])
        .filter(|&n| n > 0)
        .unwrap_or(fourier_lines);
    let fourier_partitions = p.count(&["YAPS.iNoOfFourierPartitions"]).filter(|&n| n > 0);
    let dimension = p.count(&["MEAS.sKSpace.ucDimension"]);
    let is_3d = dimension == Some(4)
        || (dimension.is_none()
            && fourier_partitions.is_some_and(|n| n > 1)
            && p.count(&["YAPS.i3DFTLength"]) != Some(1));
    let z = if is_3d {
        p.count(&["MEAS.sKSpace.lPartitions"])
            .unwrap_or(u32::from(seen.max_partition) + 1)
            .max(1)
    } else {
        1
    };
    let fourier_partitions = if is_3d {
        fourier_partitions.unwrap_or(z)
    } else {
        1
    };

    // Field of view; oversampling in phase and slice is in the encoded space only.
    let slice0 = |name: &str| {
        p.number(&[
            &format!("MEAS.sSliceArray.asSlice[0].{name}"),
            &format!("MEAS.sSliceArray.asSlice.0.{name}"),
        ])
    };
    let fov = [
        slice0("dReadoutFOV"),
        slice0("dPhaseFOV"),
        slice0("dThickness"),
    ];
    if fov.iter().any(Option::is_none) {
        notes.push(Note::new(
            "nominal_geometry",
            "the protocol says nothing about the field of view: voxels of 1 mm are assumed",
        ));
    }
    let recon_x = p
        .count(&["IRIS.DERIVED.imageColumns"])
        .filter(|&n| n > 0)
        .or(base)
        .unwrap_or(x / 2)
        .max(1);
    let read_fov = fov[0].unwrap_or(f64::from(recon_x)) as f32;
    let phase_fov = fov[1].unwrap_or(f64::from(y)) as f32;
    let thickness = fov[2].unwrap_or(1.0) as f32;
    let recon_y = p
        .count(&["IRIS.DERIVED.imageLines"])
        .filter(|&n| n > 0)
        .unwrap_or_else(|| ((recon_x as f32 * phase_fov / read_fov).round() as u32).max(1));
    let recon_z = if is_3d {
        p.count(&["MEAS.sKSpace.lImagesPerSlab"])
            .filter(|&n| n > 0)
            .unwrap_or(z)
    } else {
        1
    };
    let phase_oversampling = p
        .number(&[
            "IRIS.DERIVED.phaseOversampling",
            "MEAS.sKSpace.dPhaseOversamplingForDialog",
        ])
        .unwrap_or(0.0) as f32;
    let slice_oversampling = p
        .number(&["MEAS.sKSpace.dSliceOversamplingForDialog"])
        .unwrap_or(0.0) as f32;
    let encoded_space = xml::EncodingSpace {
        matrix_size: [x, y, z],
        field_of_view_mm: [
            if is_cartesian {
                read_fov * oversampling as f32
            } else {
                read_fov
            },
            phase_fov * (1.0 + phase_oversampling),
            thickness * (1.0 + slice_oversampling),
        ],
    };
    let recon_space = xml::EncodingSpace {
        matrix_size: [recon_x, recon_y, recon_z],
        field_of_view_mm: [read_fov, phase_fov, thickness],
    };

    // k-space centre: what the readouts say; the protocol's own sum is only compared.
    let computed = |n: u32, measured: u32| i64::from(n / 2) - (i64::from(n) - i64::from(measured));
    let computed_line = if p.text(&["YAPS.lFirstFourierLine"]).is_some() {
        computed(y, fourier_lines)
    } else {
        i64::from(y / 2)
    };
    let (line, partition) = match seen.centre {
        Some([line, partition]) if is_cartesian => (u32::from(line), u32::from(partition)),
        _ if is_cartesian => (
            computed_line.max(0) as u32,
            computed(z, fourier_partitions).max(0) as u32,
        ),
        _ => (0, 0),
    };
    if is_cartesian && i64::from(line) != computed_line {
        notes.push(Note::new(
            "centre_line_from_data",
            format!(
                "the readouts put the centre of k-space at line {line}, the protocol's numbers give {computed_line}: the \
                 readouts are believed"
            ),
        ));
    }
    let limit = |maximum: u32, center: u32| {
        Some(xml::Limit {
            minimum: 0,
            maximum,
            center,
        })
    };
    let loops = |keys: &[&str], less: u32, seen: u16| {
        limit(
            p.count(keys)
                .map_or(0, |n| n.saturating_sub(less))
                .max(u32::from(seen)),
            0,
        )
    };
    let [average, slice, contrast, phase, repetition, set, segment] = seen.max;
    let encoding_limits = xml::EncodingLimits {
        kspace_encoding_step_0: None,
        kspace_encoding_step_1: limit((fourier_lines - 1).max(u32::from(seen.max_line)), line),
        kspace_encoding_step_2: limit(
            (fourier_partitions - 1).max(u32::from(seen.max_partition)),
            if is_3d { partition } else { 0 },
        ),
        average: loops(&["MEAS.lAverages"], 1, average),
        slice: loops(&["MEAS.sSliceArray.lSize"], 1, slice),
        contrast: loops(&["MEAS.lContrasts"], 1, contrast),
        phase: loops(&["MEAS.sPhysioImaging.lPhases"], 1, phase),
        repetition: loops(&["MEAS.lRepetitions"], 0, repetition),
        set: loops(&["YAPS.iNSet"], 1, set),
        segment: loops(&["MEAS.sFastImaging.lSegments"], 1, segment),
        user: [None; 8],
    };

    let mode = p.count(&["MEAS.sPat.ucRefScanMode"]);
    let parallel_imaging = xml::ParallelImaging {
        acceleration_factor: [
            p.count(&["MEAS.sPat.lAccelFactPE"]).unwrap_or(1).max(1),
            p.count(&["MEAS.sPat.lAccelFact3D"]).unwrap_or(1).max(1),
        ],
        calibration_mode: Some(
            match mode {
                Some(2) => "embedded",
                Some(4 | 8) => "separate",
                Some(16 | 32 | 64) => "interleaved",
                _ => "other",
            }
            .into(),
        ),
        interleaving_dimension: match mode {
            Some(16) => Some("average".into()),
            Some(32) => Some("repetition".into()),
            Some(64) => Some("phase".into()),
            _ => None,
        },
        multiband: None,
    };

    let ms = |list: Vec<f64>| {
        list.into_iter()
            .filter(|t| *t > 0.0)
            .map(|t| (t / 1000.0) as f32)
            .collect::<Vec<_>>()
    };
    let n_contrasts = p.count(&["MEAS.lContrasts"]).unwrap_or(1).max(1) as usize;
    let mut flip: Vec<f32> = p
        .list("DICOM.adFlipAngleDegree")
        .iter()
        .filter_map(|v| v.parse().ok())
        .collect();
    if flip.is_empty() {
        flip = p
            .series("adFlipAngleDegree", 16)
            .iter()
            .map(|v| *v as f32)
            .collect();
    }
    let sequence_parameters = xml::SequenceParameters {
        tr: ms(p.series("alTR", 128)),
        te: ms(p.series("alTE", 128.min(n_contrasts))),
        // The protocol keeps an inversion time even without an inversion pulse (ucInversion: 1, 2, 8 = some; 4 = off).
        ti: if p.count(&["MEAS.sPrepPulses.ucInversion"]) == Some(4) {
            Vec::new()
        } else {
            ms(p.series("alTI", 128))
        },
        flip_angle_deg: flip,
        sequence_type: text(&["MEAS.tSequenceFileName"]),
        echo_spacing: p
            .number(&["YAPS.lEchoSpacing"])
            .filter(|t| *t > 0.0)
            .map(|t| (t / 1000.0) as f32)
            .into_iter()
            .collect(),
        ..Default::default()
    };

    let coils = coil_names(p);
    let user_parameters = {
        let mut user = xml::UserParameters::default();
        for (key, name) in [
            ("MEAS.sPat.lRefLinesPE", "EmbeddedRefLinesE1"),
            ("MEAS.sPat.lRefLines3D", "EmbeddedRefLinesE2"),
        ] {
            if let Some(n) = p.number(&[key]) {
                user.long.push((name.into(), n as i64));
            }
        }
        for (i, name) in coils.iter().enumerate() {
            user.string.push((format!("COIL_{i}"), name.clone()));
        }
        user
    };

    let dependency = |kind: &str| {
        let id = p
            .number(&[&format!("YAPS.ReconMeasDependencies.{kind}")])
            .filter(|n| *n > 0.0)?;
        Some(xml::MeasurementDependency {
            dependency_type: kind.into(),
            measurement_id: (id as i64).to_string(),
        })
    };
    // "5.0.12345" -> "12345": the stylesheet takes what follows the fifth character.
    let loid = |key: &str| {
        p.text(&[key])
            .map(|t| t.chars().skip(5).collect::<String>())
            .unwrap_or_default()
    };
    let measurement_id = format!(
        "{}_{}_{}",
        loid("IRIS.RECOMPOSE.PatientLOID"),
        loid("IRIS.RECOMPOSE.StudyLOID"),
        p.text(&["HEADER.MeasUID"]).unwrap_or("0")
    );
    let patient_position = text(&[
        "YAPS.tPatientPosition",
        "DICOM.tPatientPosition",
        "HEADER.sPatPosition",
    ]);
    if patient_position.is_none() {
        notes.push(Note::new(
            "patient_position_assumed",
            "the protocol does not state the patient's position: HFS is assumed",
        ));
    }
    Header {
        study_information: text(&["DICOM.tBodyPartExamined", "YAPS.tBodyPartExamined"]).map(
            |part| xml::StudyInformation {
                body_part_examined: Some(part),
                ..Default::default()
            },
        ),
        measurement_information: Some(xml::MeasurementInformation {
            measurement_id: Some(measurement_id),
            patient_position: patient_position.unwrap_or_else(|| "HFS".into()),
            protocol_name: text(&["MEAS.tProtocolName", "HEADER.tProtocolName"]),
            sequence_name: text(&["MEAS.tSequenceFileName"]),
            measurement_dependency: ["RFMap", "SenMap", "Noise"]
                .iter()
                .filter_map(|kind| dependency(kind))
                .collect(),
            frame_of_reference_uid: text(&["YAPS.tFrameOfReference"]),
            ..Default::default()
        }),
        acquisition_system_information: Some(xml::AcquisitionSystemInformation {
            system_vendor: Some(text(&["DICOM.Manufacturer"]).unwrap_or_else(|| "SIEMENS".into())),
            system_model: text(&["DICOM.ManufacturersModelName"]),
            system_field_strength_t: p
                .number(&[
                    "YAPS.flMagneticFieldStrength",
                    "DICOM.flMagneticFieldStrength",
                    "MEAS.sProtConsistencyInfo.flNominalB0",
                ])
                .map(|b| b as f32),
            relative_receiver_noise_bandwidth: Some(RELATIVE_NOISE_BANDWIDTH),
            receiver_channels: Some(
                p.count(&["YAPS.iMaxNoOfRxChannels"])
                    .filter(|&n| n > 0)
                    .unwrap_or(u32::from(seen.max_channels)),
            ),
            coil_label: coils
                .iter()
                .enumerate()
                .map(|(i, name)| xml::CoilLabel {
                    coil_number: i as u32,
                    coil_name: name.clone(),
                })
                .collect(),
            institution_name: text(&["DICOM.InstitutionName"]),
            device_serial_number: text(&["DICOM.DeviceSerialNumber"]),
            ..Default::default()
        }),
        experimental_conditions: xml::ExperimentalConditions {
            h1_resonance_frequency_hz: p
                .number(&[
                    "DICOM.lFrequency",
                    "MEAS.sTXSPEC.asNucleusInfo[0].lFrequency",
                ])
                .map_or(0, |f| f as i64),
        },
        encoding: vec![xml::Encoding {
            encoded_space,
            recon_space,
            encoding_limits,
            trajectory: if is_epi {
                xml::Trajectory::Epi
            } else {
                trajectory
            },
            trajectory_description: None,
            parallel_imaging: Some(parallel_imaging),
            echo_train_length: p
                .count(&["MEAS.sFastImaging.lTurboFactor"])
                .filter(|&n| n > 1)
                .map(i64::from),
        }],
        sequence_parameters: Some(sequence_parameters),
        user_parameters: Some(user_parameters),
        ..Default::default()
    }
}

/// Names `coil:element` in the order of the channels.
fn coil_names(p: &Protocol) -> Vec<String> {
    let mut found: Vec<(f64, usize, String)> = Vec::new();
    for list in [
        "sCoilSelectMeas.aRxCoilSelectData[0].asList",
        "asCoilSelectMeas[0].asList",
    ] {
        for i in 0..1024 {
            let key = |name: &str| format!("MEAS.{list}[{i}].{name}");
            let Some(element) = p.text(&[&key("sCoilElementID.tElement")]) else {
                break;
            };
            if p.number(&[&key("lElementSelected")]) != Some(1.0) {
                continue;
            }
            // VD and later number ADC channels, VB receiver channels.
            let channel = p
                .number(&[&key("lADCChannelConnected"), &key("lRxChannelConnected")])
                .unwrap_or(i as f64);
            let coil = p
                .text(&[&key("sCoilElementID.tCoilID")])
                .unwrap_or_default();
            found.push((channel, i, format!("{coil}:{element}")));
        }
        if !found.is_empty() {
            break;
        }
    }
    found.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
    found.into_iter().map(|c| c.2).collect()
}
