//! One turbo spin echo slice of a digital spine, point by point, for a simulator of others: `scripts/check_simulator.py`.
//!
//! Usage: `one_slice FOLDER field|no-field` writes `slice.json` (what is played, in order), `points.f32` (`[point][x, y,
//! pd, fat_fraction, T1 ms, T2 ms, Hz]`, places in encoded fields of view), `image.c64` (`[y, x]`, the truth of
//! `Scan::run`, f32 pairs) and `trains.f64` (`[tissue, B1][echo]`).

use std::error::Error;
use std::path::Path;

use cauda::phantom::acquire::{AcquireParams, Matter, MotionParams, Scan, Subject};
use cauda::phantom::spine::{Patient, Request};
use cauda::phantom::{Material, Tissue, Voxel};
use cauda::sequence::{
    FAT_PEAKS, HYDROGEN_HZ_PER_T, Order, PhaseDirection, REFERENCE_TISSUES, SequenceParams, Train,
};

/// A patient whose field may be even.
struct Shimmed(Subject, bool);

impl Matter for Shimmed {
    fn at(&self, p_mm: [f32; 3]) -> Voxel {
        self.0.at(p_mm)
    }
    fn materials(&self) -> &[Material] {
        self.0.materials()
    }
    fn fat_t1_t2_ms(&self) -> [f64; 2] {
        self.0.fat_t1_t2_ms()
    }
    fn field_ppm(&self, p_mm: [f32; 3]) -> f32 {
        if self.1 { self.0.field_ppm(p_mm) } else { 0.0 }
    }
    fn extent_mm(&self) -> [[f32; 2]; 3] {
        self.0.extent_mm()
    }
    fn centre_mm(&self) -> [f64; 3] {
        self.0.centre_mm()
    }
}

const B1: [f64; 3] = [0.85, 1.0, 1.15];

#[allow(clippy::cast_possible_truncation)] // storage precision
fn main() -> Result<(), Box<dyn Error>> {
    let mut args = std::env::args().skip(1);
    let (Some(folder), Some(field)) = (args.next(), args.next()) else {
        return Err("needed: FOLDER field|no-field".into());
    };
    let folder = Path::new(&folder);
    let s = SequenceParams {
        phase: PhaseDirection::AnteriorPosterior,
        tr_ms: 2000.0,
        te_ms: 40.0,
        echo_spacing_ms: 10.0,
        echo_train_length: 8,
        refocusing_deg: 150.0,
        matrix: [64, 64],
        fov_mm: [320.0, 320.0],
        phase_oversampling: 0.0,
        bandwidth_hz_per_pixel: 400.0,
        n_slices: 1,
        ..SequenceParams::default()
    };
    // One depth: samples lie in the middle of the raster's pixels.
    let params = AcquireParams {
        n_coils: 1,
        n_depths: 1,
        b1_spread: 0.0,
        motion: MotionParams::none(),
        ..AcquireParams::default()
    };
    let patient = Patient::draw(&Request {
        seed: 4,
        ..Request::default()
    })?;
    let body = Shimmed(Subject::new(patient, s.field_strength_t), field == "field");
    let scan = Scan::plan(&body, &s, &params, "one slice")?;
    let truth = scan
        .run(true, |_| Ok::<(), std::convert::Infallible>(()))?
        .ok_or("no truth")?;

    let [nx, ny, _] = s.encoded_matrix();
    let [fov_x, fov_y, _] = s.encoded_fov_mm();
    let (fx, fy) = (2 * nx, 2 * ny);
    let axes = scan.block().axes;
    let centre = body.centre_mm();
    let [low, high] = body.extent_mm()[2];
    let hz_per_ppm = s.field_strength_t * HYDROGEN_HZ_PER_T * 1e-6;
    let mut points: Vec<f32> = Vec::new();
    for y in 0..fy {
        for x in 0..fx {
            let u = (x as f64 - nx as f64) / fx as f64;
            let v = (y as f64 - ny as f64) / fy as f64;
            let p: [f32; 3] = std::array::from_fn(|i| {
                (centre[i] + u * fov_x * axes[2][i] + v * fov_y * axes[1][i]) as f32
            });
            let at = body.at(p);
            if at.pd <= 0.0 || p[2] < low || p[2] > high {
                continue;
            }
            let m = &body.materials()[usize::from(at.material)];
            // A spin echo sees a twentieth of flowing blood: a rule of the acquisition, not of the physics tested here.
            let flow = if m.tissue == Tissue::FlowingBlood {
                0.05
            } else {
                1.0
            };
            points.extend([
                u as f32,
                v as f32,
                at.pd * flow,
                at.fat_fraction,
                m.water_t1_ms,
                m.water_t2_ms,
                body.field_ppm(p) * hz_per_ppm as f32,
            ]);
        }
    }
    let train = Train::plan(&s)?;
    let fat_time = body.fat_t1_t2_ms();
    let mut tissues: Vec<(&str, [f64; 2])> = REFERENCE_TISSUES
        .iter()
        .filter(|t| ["csf", "cord", "marrow"].contains(&t.name))
        .map(|t| (t.name, [t.t1_ms[1], t.t2_ms]))
        .collect();
    tissues.push(("fat", fat_time));
    let trains: Vec<f64> = tissues
        .iter()
        .flat_map(|(_, [t1, t2])| B1.map(|b1| train.echoes(*t1, *t2, b1)))
        .flatten()
        .collect();
    let shots: Vec<Vec<[usize; 2]>> = Order::plan(&s)?
        .shots
        .iter()
        .map(|shot| shot.lines.iter().map(|l| [l.echo, l.pe1]).collect())
        .collect();
    let json = serde_json::json!({
        "tr_ms": s.tr_ms, "echo_spacing_ms": s.echo_spacing_ms, "echo_train_length": s.echo_train_length,
        "excitation_deg": s.excitation_deg, "refocusing_deg": s.refocusing_deg, "dwell_ms": s.dwell_us() * 1e-3,
        "encoded": [nx, ny], "raster": [fx, fy], "matrix": s.matrix, "shots": shots, "b1": B1,
        "fat_ms": fat_time, "fat_peaks_hz": FAT_PEAKS.map(|(ppm, part)| [ppm * hz_per_ppm, part]),
        "tissues": tissues,
    });
    std::fs::create_dir_all(folder)?;
    std::fs::write(folder.join("slice.json"), json.to_string())?;
    let f32s = |v: &[f32]| v.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<u8>>();
    std::fs::write(folder.join("points.f32"), f32s(&points))?;
    let image: Vec<f32> = truth.images.iter().flat_map(|v| [v.re, v.im]).collect();
    std::fs::write(folder.join("image.c64"), f32s(&image))?;
    let bytes: Vec<u8> = trains.iter().flat_map(|v| v.to_le_bytes()).collect();
    std::fs::write(folder.join("trains.f64"), bytes)?;
    Ok(())
}
