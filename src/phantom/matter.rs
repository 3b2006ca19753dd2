//! What fills a piece of the patient, as a scanner sees it: the plain types between anatomy and acquisition.

use serde::{Deserialize, Serialize};

/// Kinds of tissue: the rows of `parameters.toml`.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(rename_all = "snake_case")]
#[repr(u8)]
pub enum Tissue {
    /// Outside of the body, and gas within.
    #[default]
    Air,
    /// Cerebrospinal fluid; moves with the pulse.
    Csf,
    /// Nucleus pulposus, Pfirrmann I and II.
    NucleusHealthy,
    /// Nucleus pulposus, Pfirrmann III.
    NucleusIntermediate,
    /// Nucleus pulposus, Pfirrmann IV and V.
    NucleusDegenerate,
    /// Gas or vacuum in a disc.
    VacuumCleft,
    /// Annulus fibrosus.
    Annulus,
    /// Cartilage of the endplates.
    EndplateCartilage,
    /// Bone of the endplates.
    BonyEndplate,
    /// Cortical bone.
    CorticalBone,
    /// White matter of the cord.
    CordWhite,
    /// Grey matter of the cord.
    CordGrey,
    /// Nerve roots, ganglia and cauda equina.
    NerveRoot,
    /// Muscle.
    Muscle,
    /// Fat under the skin, around the dura and between muscles.
    Fat,
    /// Marrow of vertebrae.
    Marrow,
    /// Ligamentum flavum and the other ligaments; dura.
    Ligament,
    /// Cartilage of facet joints.
    FacetCartilage,
    /// Fluid in facet joints.
    FacetFluid,
    /// Blood in slow veins.
    VenousBlood,
    /// Blood in arteries and the cava: flows.
    FlowingBlood,
    /// Skin.
    Skin,
    /// Wall of bowel, and solid organs.
    Viscera,
    /// Fluid content of bowel.
    BowelContent,
    /// Modic 1, and other bone marrow oedema.
    Oedema,
    /// Modic 2.
    ModicTwo,
    /// Modic 3.
    ModicThree,
    /// Acute benign fracture.
    FractureOedema,
    /// Lytic metastasis, and malignant fracture.
    MetastasisLytic,
    /// Blastic metastasis.
    MetastasisBlastic,
    /// Typical haemangioma.
    Haemangioma,
    /// Atypical haemangioma.
    HaemangiomaAtypical,
    /// Infected disc and bone.
    Spondylodiscitis,
    /// Lesion of the cord.
    CordLesion,
    /// Implant: no signal, and a field of its own.
    Metal,
}

/// One sort of matter in one patient at one field strength.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Material {
    /// Its kind.
    pub tissue: Tissue,
    /// Proton density, CSF = 1.
    pub pd: f32,
    /// Part of the protons that are fat, 0 to 1.
    pub fat_fraction: f32,
    /// T1 of the water, ms.
    pub water_t1_ms: f32,
    /// T2 of the water, ms.
    pub water_t2_ms: f32,
    /// T2* of the water, without dephasing by the smooth field of the patient, ms.
    pub water_t2star_ms: f32,
    /// CT number, HU.
    pub hu: f32,
}

/// What is at one place.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Voxel {
    /// Index into the patient's materials; relaxation times come from there. 0 is air.
    pub material: u8,
    /// Which part of the body.
    pub structure: Structure,
    /// Which level: index into the patient's levels; 255 for none.
    pub level: u8,
    /// Which lesion: 1 is the first of the patient's lesions; 0 for none.
    pub lesion: u8,
    /// Proton density here, CSF = 1.
    pub pd: f32,
    /// Fat fraction here, 0 to 1.
    pub fat_fraction: f32,
    /// CT number here, HU.
    pub hu: f32,
}

/// Parts of the body, as segmentation labels. The numbers are the labels in files and do not change.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(rename_all = "snake_case")]
#[repr(u8)]
pub enum Structure {
    /// Nothing.
    #[default]
    Outside = 0,
    /// Body of a vertebra.
    VertebralBody = 1,
    /// Pedicles.
    Pedicle = 2,
    /// Laminae.
    Lamina = 3,
    /// Articular processes.
    ArticularProcess = 4,
    /// Spinous process.
    SpinousProcess = 5,
    /// Transverse processes and ribs.
    TransverseProcess = 6,
    /// Sacrum below and beside the body of S1.
    Sacrum = 7,
    /// Endplates, bone and cartilage.
    Endplate = 8,
    /// Nucleus of a disc.
    Nucleus = 9,
    /// Annulus of a disc, with herniated material.
    Annulus = 10,
    /// Space of a facet joint with its cartilage.
    FacetJoint = 11,
    /// Fluid in the dural sac.
    DuralSac = 12,
    /// Spinal cord with the conus.
    Cord = 13,
    /// Roots in the sac, in the foramina, and ganglia.
    NerveRoot = 14,
    /// Fat and veins between dura and bone.
    EpiduralSpace = 15,
    /// Fat in the foramen.
    Foramen = 16,
    /// Ligamentum flavum.
    LigamentumFlavum = 17,
    /// Other ligaments.
    Ligament = 18,
    /// Erector spinae.
    ErectorSpinae = 19,
    /// Multifidus.
    Multifidus = 20,
    /// Psoas, in the neck the prevertebral muscles.
    Psoas = 21,
    /// Other muscles.
    OtherMuscle = 22,
    /// Fat under the skin and skin.
    Subcutaneous = 23,
    /// Fat between organs.
    VisceralFat = 24,
    /// Aorta, in the neck the carotid and vertebral arteries.
    Artery = 25,
    /// Vena cava, jugular veins.
    Vein = 26,
    /// Bowel, airways and gullet.
    Bowel = 27,
    /// Kidney, liver, thyroid.
    Organ = 28,
    /// Implants.
    Implant = 29,
}

impl Structure {
    /// Every structure with its label.
    pub const ALL: [Self; 30] = {
        use Structure::*;
        [
            Outside,
            VertebralBody,
            Pedicle,
            Lamina,
            ArticularProcess,
            SpinousProcess,
            TransverseProcess,
            Sacrum,
            Endplate,
            Nucleus,
            Annulus,
            FacetJoint,
            DuralSac,
            Cord,
            NerveRoot,
            EpiduralSpace,
            Foramen,
            LigamentumFlavum,
            Ligament,
            ErectorSpinae,
            Multifidus,
            Psoas,
            OtherMuscle,
            Subcutaneous,
            VisceralFat,
            Artery,
            Vein,
            Bowel,
            Organ,
            Implant,
        ]
    };
}
