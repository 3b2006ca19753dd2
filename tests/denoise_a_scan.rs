//! Noise goes, and nothing else does without a word: to the reader of an image that a network has touched, and to whoever
//! waits for one when the network cannot be had.
//!
//! Through the binary. ONNX Runtime comes by `scripts/test.sh`; libtorch, if it is to be tested, by `scripts/torch.sh`.

use std::path::{Path, PathBuf};
use std::process::Command;

use ismrmrd::{Limits, Meta};

use crate::support::{Npy, cauda_in, data, npy};

const QUIET: &str = "--set acquire.n_coils=6 --set acquire.n_depths=3 --set acquire.motion.pulsation=0 \
    --set acquire.motion.respiration_mm=0 --set acquire.motion.drift_mm=0 \
    --set acquire.motion.between_mm=0 --set acquire.motion.between_deg=0";
const SIZE: &str =
    "--set sequence.matrix=[128,96] --set sequence.n_slices=3 --set sequence.slice_thickness_mm=8";

fn good(dir: &std::path::Path, line: &str) -> serde_json::Value {
    let output = cauda_in(dir, line);
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{line}: {said}");
    serde_json::from_slice(&output.stdout).unwrap_or_default()
}

fn note_codes(result: &serde_json::Value) -> Vec<String> {
    let notes = result["notes"].as_array().unwrap();
    let code = |n: &serde_json::Value| n["code"].as_str().unwrap().to_owned();
    notes.iter().map(code).collect()
}

fn bits(a: &Npy) -> Vec<[u32; 2]> {
    a.values
        .iter()
        .map(|v| [v.re.to_bits(), v.im.to_bits()])
        .collect()
}

/// Standard deviation of the noise inside the body, robustly, from two measurements of one patient.
fn noise(a: &Npy, b: &Npy) -> f32 {
    let norms = a
        .values
        .iter()
        .zip(&b.values)
        .map(|(a, b)| [a.norm(), b.norm()]);
    let mut off: Vec<f32> = norms
        .filter(|[a, b]| a + b > 10.0)
        .map(|[a, b]| (a - b).abs())
        .collect();
    assert!(off.len() > 1000);
    let middle = off.len() / 2;
    *off.select_nth_unstable_by(middle, f32::total_cmp).1 / 0.6745 / 2f32.sqrt()
}

#[test]
fn a_fast_scan_gets_its_snr_back() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let fast = "--protocol lumbar_sag_t2_fast";
    // In units of noise: shading is left in.
    let recon = format!("{fast} --set recon.intensity_correction.enabled=false");
    let mut left = Vec::new();
    for series in [1, 2] {
        good(
            dir,
            &format!(
                "simulate {fast} --seed 5 --series {series} {SIZE} {QUIET} --set acquire.snr=1.5 -o noisy.h5 --force"
            ),
        );
        left.push([0.0, 0.5, 1.0].map(|strength| {
            good(dir, &format!("recon noisy.h5 {recon} --set denoise.strength={strength} -o {series}_{strength}.npy"));
            npy(&dir.join(format!("{series}_{strength}.npy")))
        }));
    }
    let [plain, some, all] = [0, 1, 2].map(|i| noise(&left[0][i], &left[1][i]));
    // So coarse an image is little but edges: 1.3 and 1.9; in the protocol's own matrix 1.45 and 2.8.
    assert!(
        plain / some > 1.25 && plain / all > 1.7,
        "{plain} {some} {all}"
    );
    let some = npy(&dir.join("2_0.5.npy"));
    let result = good(
        dir,
        &format!(
            "recon noisy.h5 {recon} --set handoff.quantities=[\"complex\",\"removed\",\"sigma\",\"magnitude\"] -o some.npy -o some.h5 --json"
        ),
    );
    assert!(
        note_codes(&result).contains(&"denoised".to_owned()),
        "{result}"
    );
    assert!(result["stages"].to_string().contains("denoise"));
    let sigma = npy(&dir.join("some_sigma.npy"));
    assert!(sigma.values.iter().all(|s| s.re >= 0.0) && sigma.values.iter().any(|s| s.re > 0.0));
    // What was removed and what is left are what was measured.
    good(
        dir,
        &format!(
            "recon noisy.h5 {recon} --set denoise.strength=0 --set handoff.quantities=[\"complex\"] -o measured.npy"
        ),
    );
    let [complex, removed, measured] = [
        "some_complex.npy",
        "some_removed.npy",
        "measured_complex.npy",
    ]
    .map(|f| npy(&dir.join(f)));
    for ((c, r), m) in complex
        .values
        .iter()
        .zip(&removed.values)
        .zip(&measured.values)
    {
        assert!((c + r - m).norm() <= 1e-5 * (1.0 + m.norm()));
    }
    // Bits are the same on any number of threads.
    good(
        dir,
        &format!("recon noisy.h5 {recon} --threads 1 -o one.npy"),
    );
    assert!(bits(&npy(&dir.join("one.npy"))) == bits(&some));

    // The marks, where they are read.
    let file = ismrmrd::file::File::open(&dir.join("some.h5"), Limits::default()).unwrap();
    let group = file.groups().unwrap().remove(0);
    let images = file.images(&group.name, &group.images[0].name).unwrap();
    assert_eq!(images.len() % 3, 0);
    let meta = Meta::parse(&images[0].attributes).unwrap();
    let history = meta.get("ImageProcessingHistory").unwrap().join("\n");
    assert!(
        history.contains("denoise/network") && history.contains("strength 0.5"),
        "{history}"
    );
    let comments = meta.get("ImageComments").unwrap().join("\n");
    assert!(
        comments.contains("denoised") && comments.contains("denoiser 2 ("),
        "{comments}"
    );
    good(dir, &format!("recon noisy.h5 {recon} -o some.dcm"));
    let object = std::fs::read(dir.join("some.dcm")).unwrap();
    let says = |text: &str| object.windows(text.len()).any(|w| w == text.as_bytes());
    assert!(says("DERIVED\\PRIMARY") && says("denoise/network") && says("strength 0.5"));
}

#[test]
fn over_the_wire_come_the_same_denoised_images_in_order() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let fast = "--protocol lumbar_sag_t2_fast";
    good(
        dir,
        &format!("simulate {fast} --seed 6 {SIZE} {QUIET} -o scan.h5"),
    );
    good(dir, &format!("recon scan.h5 {fast} -o file.h5"));
    let server = crate::support::server::Running::start(|_| {});
    let sent = good(
        dir,
        &format!("send scan.h5 {} {fast} -o wire.h5 --json", server.address),
    );
    assert_eq!(sent["images"], 3, "{sent}");
    let images = |name: &str| {
        let file = ismrmrd::file::File::open(&dir.join(name), Limits::default()).unwrap();
        let group = file.groups().unwrap().remove(0);
        let name = group.images[0].name.clone();
        file.images(&group.name, &name).unwrap()
    };
    let (file, mut wire) = (images("file.h5"), images("wire.h5"));
    wire.sort_by_key(|i| i.head.slice);
    assert_eq!((file.len(), wire.len()), (3, 3));
    for (a, b) in file.iter().zip(&wire) {
        assert!(a.head.slice == b.head.slice && a.pixels == b.pixels);
        let meta = Meta::parse(&b.attributes).unwrap();
        let ms = |name: &str| {
            meta.get_str(&format!("CaudaMs_{name}"))
                .unwrap()
                .parse::<f64>()
                .unwrap()
        };
        assert!(ms("reconstructed") <= ms("denoised"));
        // Each had its neighbours.
        assert!(!b.attributes.contains("denoised_alone"));
    }
}

/// Reconstructs `scan.h5` to `out.npy` with `[denoise]` of this model, run-time and library.
fn denoised(dir: &Path, model: &str, runtime: &str, library: &Path) -> serde_json::Value {
    let variable = match runtime {
        "torch" => "CAUDA_TORCH",
        _ => "CAUDA_ONNXRUNTIME",
    };
    let mut command = Command::new(env!("CARGO_BIN_EXE_cauda"));
    command
        .args("recon scan.h5 -o out.npy --json --force --set".split(' '))
        .args([&format!("denoise.model={model}"), "--set"])
        .arg(format!("denoise.runtime={runtime}"))
        .current_dir(dir)
        .env("HDF5_USE_FILE_LOCKING", "FALSE");
    if library != Path::new("") {
        command.env(variable, library);
    }
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{model}: {said}");
    serde_json::from_slice(&output.stdout).unwrap()
}

/// The plug-in of `src/model/tests/fake_plugin.c`.
fn fake_plugin(dir: &Path, name: &str, option: &str) -> PathBuf {
    let source = crate::support::root().join("src/model/tests/fake_plugin.c");
    let path = dir.join(name);
    let status = Command::new("cc")
        .args(["-shared", "-fPIC", option, "-o"])
        .args([&path, &source])
        .status();
    assert!(status.unwrap().success());
    path
}

/// A manifest whose TorchScript is these bytes.
fn write_script(folder: &Path, bytes: &str) {
    use sha2::Digest;
    let digest = sha2::Sha256::digest(bytes)
        .iter()
        .fold(String::new(), |s, b| s + &format!("{b:02x}"));
    let shipped = crate::support::root().join("src/model/shipped/denoiser/model.toml");
    let mut manifest = std::fs::read_to_string(shipped).unwrap();
    manifest += &format!(
        "\n[torchscript]\nfile = \"model.pt\"\nsha256 = \"{digest}\"\n\
         inputs = [\"noise\", \"image\", \"gfactor\"]\noutputs = [\"sigma\", \"denoised\"]\n"
    );
    std::fs::create_dir_all(folder).unwrap();
    std::fs::write(folder.join("model.toml"), manifest).unwrap();
    std::fs::write(folder.join("model.pt"), bytes).unwrap();
}

/// Whatever is wrong with the network, the image goes out as measured, and says why.
#[test]
fn without_a_network_the_plain_image_goes_out_marked() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    good(dir, "simulate scan.h5 --preset small");
    good(dir, "recon scan.h5 -o plain.npy");
    let plain = bits(&npy(&dir.join("plain.npy")));
    std::fs::create_dir(dir.join("mine")).unwrap();
    let shipped = crate::support::root().join("src/model/shipped/denoiser");
    let manifest = std::fs::read_to_string(shipped.join("model.toml")).unwrap();
    std::fs::write(dir.join("mine/model.toml"), &manifest).unwrap();
    let mut weights = std::fs::read(shipped.join("model.onnx")).unwrap();
    weights[5000] ^= 1;
    std::fs::write(dir.join("mine/model.onnx"), &weights).unwrap();
    write_script(&dir.join("refused"), "no module");
    write_script(&dir.join("failing"), "error");
    write_script(&dir.join("changed"), "error");
    std::fs::write(dir.join("changed/model.pt"), "errer").unwrap();
    let fake = fake_plugin(dir, "fake.so", "-DABI=1");
    let fake = fake.to_str().unwrap();
    let newer = fake_plugin(dir, "newer.so", "-DABI=2");
    let newer = newer.to_str().unwrap();
    let (no_onnx, no_torch) = (
        "ONNX Runtime is not here",
        "libtorch plug-in cannot be used",
    );
    for (model, runtime, library, says) in [
        ("denoiser", "onnx", "/nowhere/libonnxruntime.so", no_onnx),
        ("denoiser", "onnx", "/bin/true", no_onnx),
        ("nothing", "onnx", "", "there are: denoiser"),
        ("no/model.toml", "onnx", "", "cannot read"),
        ("mine/model.toml", "onnx", "", "digest"),
        ("denoiser", "torch", fake, "no [torchscript]"),
        ("changed/model.toml", "torch", fake, "digest"),
        (
            "failing/model.toml",
            "torch",
            "/nowhere/plugin.so",
            no_torch,
        ),
        ("failing/model.toml", "torch", "/bin/true", no_torch),
        ("failing/model.toml", "torch", "libm.so.6", no_torch),
        ("failing/model.toml", "torch", newer, "of version 2"),
        ("refused/model.toml", "torch", fake, "the fake refuses"),
        ("failing/model.toml", "torch", fake, "the fake fails"),
    ] {
        let result = denoised(dir, model, runtime, Path::new(library));
        assert!(
            note_codes(&result).contains(&"denoise_failed".to_owned()),
            "{result}"
        );
        assert!(result["notes"].to_string().contains(says), "{result}");
        assert!(bits(&npy(&dir.join("out.npy"))) == plain, "{model}");
    }
    // A user's own copy is as good as the one that ships.
    weights[5000] ^= 1;
    std::fs::write(dir.join("mine/model.onnx"), &weights).unwrap();
    for (model, out) in [("denoiser", "a.npy"), ("mine/model.toml", "b.npy")] {
        good(
            dir,
            &format!("recon scan.h5 --set denoise.model={model} -o {out}"),
        );
    }
    assert!(bits(&npy(&dir.join("a.npy"))) == bits(&npy(&dir.join("b.npy"))));
    assert!(bits(&npy(&dir.join("a.npy"))) != plain);
}

/// The bound that the key's meaning states.
#[test]
fn libtorch_gives_the_image_that_onnx_runtime_gives() {
    let Some(torch) = crate::support::torch() else {
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    good(dir, "simulate scan.h5 --preset small");
    let model = torch.join("model.toml");
    let image = |runtime: &str, threads: usize| {
        let output = Command::new(env!("CARGO_BIN_EXE_cauda"))
            .args("recon scan.h5 -o out.npy -o out.h5 --force".split(' '))
            .args("--set recon.intensity_correction.enabled=false --set".split(' '))
            .arg(format!("denoise.model={}", model.display()))
            .args(["--set", &format!("denoise.runtime={runtime}")])
            .args(["--threads", &threads.to_string()])
            .current_dir(dir)
            .env("HDF5_USE_FILE_LOCKING", "FALSE")
            .env("CAUDA_TORCH", torch.join("libcauda_torch.so"))
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(0), "{said}");
        let file = ismrmrd::file::File::open(&dir.join("out.h5"), Limits::default()).unwrap();
        let group = file.groups().unwrap().remove(0);
        let images = file.images(&group.name, &group.images[0].name).unwrap();
        let meta = Meta::parse(&images[0].attributes).unwrap();
        let history = meta.get("ImageProcessingHistory").unwrap().join("\n");
        (npy(&dir.join("out.npy")), history)
    };
    let (onnx, by_onnx) = image("onnx", 2);
    let (found, by_torch) = image("torch", 2);
    assert!(by_onnx.contains(" on ONNX Runtime"), "{by_onnx}");
    assert!(by_torch.contains(" on libtorch 2.11."), "{by_torch}");
    let values = || found.values.iter().zip(&onnx.values);
    let square = |(_, b): (_, &cauda::data::Complex32)| b.norm_sqr();
    let rms = (values().map(square).sum::<f32>() / onnx.values.len() as f32).sqrt();
    let off = values().map(|(a, b)| (a - b).norm()).fold(0.0, f32::max);
    assert!(off < 1e-4 * rms, "{off} of {rms}");
    assert!(bits(&found) == bits(&image("torch", 1).0));
    assert!(bits(&found) == bits(&image("torch", 2).0));
}

/// A scan without noise readouts has no SNR units to work in.
#[test]
fn a_scan_of_unknown_noise_is_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let scan = data("demo_mouse_pf.h5");
    let line = format!(
        "recon {} --set denoise.model=denoiser -o a.npy --json",
        scan.display()
    );
    let result = good(dir.path(), &line);
    assert!(
        note_codes(&result).contains(&"denoise_skipped".to_owned()),
        "{result}"
    );
}

/// `recon.method = "unrolled"`: less noise than SENSE, still what was measured, and SENSE where there is no network.
#[test]
fn cascades_of_network_and_data() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let protocol = "schema = 1\ntitle = \"t\"\nintended_use = \"research\"\n[sequence]\nphase = \"anterior_posterior\"\n\
        matrix = [128, 128]\nphase_oversampling = 0.5\nn_slices = 1\nacceleration = { pe1 = 3, acs_pe1 = 24 }\n";
    std::fs::write(dir.join("p.toml"), protocol).unwrap();
    for series in [1, 2] {
        good(
            dir,
            &format!(
                "simulate --protocol p.toml --seed 8 --series {series} {QUIET} --set acquire.snr=1 -o {series}.h5"
            ),
        );
    }
    let plain = "--set recon.method=cg_sense --set recon.sense.lambda=0.003";
    for (name, line) in [
        ("sense", plain),
        ("unrolled", "--set recon.method=unrolled"),
    ] {
        for series in [1, 2] {
            good(
                dir,
                &format!("recon {series}.h5 {line} -o {name}{series}.npy"),
            );
        }
    }
    let [a, b, c, d] =
        ["sense1", "sense2", "unrolled1", "unrolled2"].map(|n| npy(&dir.join(format!("{n}.npy"))));
    let (before, after) = (noise(&a, &b), noise(&c, &d));
    assert!(before > 1.5 * after, "{before} {after}");
    // What it did stands in the image; the lines are as far from it as their noise.
    good(
        dir,
        "recon 1.h5 --set recon.method=unrolled --set handoff.quantities=[\"magnitude\",\"sigma\"] -o 1out.h5",
    );
    let file = ismrmrd::file::File::open(&dir.join("1out.h5"), Limits::default()).unwrap();
    let group = file.groups().unwrap().remove(0);
    let images = file.images(&group.name, &group.images[0].name).unwrap();
    let history = Meta::parse(&images[0].attributes).unwrap();
    let history = history.get("ImageProcessingHistory").unwrap().join("\n");
    let distance = history
        .split("SENSE; lines ")
        .nth(1)
        .unwrap()
        .split(' ')
        .next()
        .unwrap();
    let distance: f64 = distance.parse().unwrap();
    assert!((0.9..1.3).contains(&distance), "{history}");
    // Without the network: SENSE, bit for bit, and a mark.
    let output = Command::new(env!("CARGO_BIN_EXE_cauda"))
        .args("recon 1.h5 --set recon.method=unrolled -o failed.npy --json".split(' '))
        .current_dir(dir)
        .env("CAUDA_ONNXRUNTIME", "/nowhere.so")
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(0));
    let result: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert!(
        note_codes(&result).contains(&"unrolled_failed".to_owned()),
        "{result}"
    );
    assert!(bits(&npy(&dir.join("failed.npy"))) == bits(&a));
    // A network on top of a network is refused, and the first one's image goes out.
    let result = good(
        dir,
        "recon 1.h5 --set recon.method=unrolled --set denoise.model=denoiser -o twice.npy --json",
    );
    assert!(
        note_codes(&result).contains(&"denoise_skipped".to_owned()),
        "{result}"
    );
    assert!(bits(&npy(&dir.join("twice.npy"))) == bits(&c));
}
