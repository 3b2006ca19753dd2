//! A drawn patient as matter at one field strength.

use super::Matter;
use crate::phantom::spine::Patient;
use crate::phantom::{Material, Voxel};

/// A patient in a magnet.
#[derive(Clone, Debug)]
pub struct Subject {
    patient: Patient,
    materials: Vec<Material>,
    fat: [f64; 2],
    extent_mm: [[f32; 2]; 3],
    centre_mm: [f64; 3],
}

impl Subject {
    /// Puts a patient into a magnet.
    pub fn new(patient: Patient, field_strength_t: f64) -> Self {
        let fat = patient.fat_pool(field_strength_t);
        Self {
            materials: patient.materials(field_strength_t),
            fat: [fat.t1_ms.into(), fat.t2_ms.into()],
            extent_mm: patient.extent_mm(),
            centre_mm: patient.stack_centre_mm().map(f64::from),
            patient,
        }
    }

    /// The patient.
    pub fn patient(&self) -> &Patient {
        &self.patient
    }
}

impl Matter for Subject {
    fn at(&self, p_mm: [f32; 3]) -> Voxel {
        self.patient.at(p_mm)
    }

    fn materials(&self) -> &[Material] {
        &self.materials
    }

    fn fat_t1_t2_ms(&self) -> [f64; 2] {
        self.fat
    }

    fn field_ppm(&self, p_mm: [f32; 3]) -> f32 {
        self.patient.field_ppm(p_mm)
    }

    fn extent_mm(&self) -> [[f32; 2]; 3] {
        self.extent_mm
    }

    fn centre_mm(&self) -> [f64; 3] {
        self.centre_mm
    }
}
