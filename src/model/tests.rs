//! The door, by hand-made graphs and the model that ships. ONNX Runtime comes by `scripts/test.sh`.

use super::*;

mod libtorch;

const DENOISER: &str = include_str!("shipped/denoiser/model.toml");

/// Message of the error of a manifest with one line changed.
fn refused(from: &str, to: &str) -> String {
    assert!(DENOISER.contains(from), "{from}");
    Manifest::parse(&DENOISER.replace(from, to), "x.toml")
        .unwrap_err()
        .to_string()
}

fn onnx(which: &str, threads: usize) -> Result<Model, ModelError> {
    Model::load(which, RuntimeKind::Onnx, threads)
}

fn denoiser() -> Model {
    onnx("denoiser", 2).unwrap()
}

/// Inputs of the shipped denoiser, `[n, 6, h, w]`: a smooth object, and white noise of standard deviation `noise`.
fn scene(n: usize, h: usize, w: usize, noise: f32) -> Vec<f32> {
    let mut state = 1u32;
    let mut white = || {
        let mut next = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 8) as f32 / (1 << 24) as f32
        };
        (next() + next() + next() + next() - 2.0) * 3f32.sqrt()
    };
    let value = |c: usize, y: usize, x: usize| {
        let a = (-((y as f32 - h as f32 / 2.0).powi(2) + (x as f32 - w as f32 / 2.0).powi(2))
            / (h * w) as f32
            * 4.0)
            .exp();
        20.0 * a * if c.is_multiple_of(2) { 0.8 } else { 0.6 }
    };
    (0..n * 6 * h * w)
        .map(|i| value(i / (h * w) % 6, i / w % h, i % w) + noise * white())
        .collect()
}

/// Runs on images `[n, 6, h, w]` of g-factor 1.
fn answer(
    model: &Model,
    image: &[f32],
    shape: [usize; 4],
    noise: f32,
) -> Result<Vec<Tensor>, ModelError> {
    let [n, _, h, w] = shape;
    model.run(&[
        Input {
            name: "image",
            shape: &shape,
            data: image,
        },
        Input {
            name: "gfactor",
            shape: &[n, 1, h, w],
            data: &vec![1.0; n * h * w],
        },
        Input {
            name: "noise",
            shape: &[n],
            data: &vec![noise; n],
        },
    ])
}

fn run(model: &Model, image: &[f32], shape: [usize; 4], noise: f32) -> Vec<Tensor> {
    answer(model, image, shape, noise).unwrap()
}

#[test]
fn a_manifest_that_ships_is_one() {
    for name in Model::shipped() {
        let m = Model::describe(name).unwrap();
        assert_eq!(m.name, name);
        assert!(m.complete && !m.tiny, "{name}");
        assert!(
            m.parameters
                .is_some_and(|n| (500_000..=8_000_000).contains(&n))
        );
    }
}

#[test]
fn what_is_wrong_with_a_manifest_is_named() {
    for (from, to, says) in [
        (
            "file = \"model.onnx\"",
            "file = \"../model.onnx\"",
            "without a folder",
        ),
        (
            "file = \"model.onnx\"",
            "file = \"/etc/passwd\"",
            "without a folder",
        ),
        ("sha256 = \"", "sha256 = \"x", "64 hexadecimal"),
        ("size_multiple = 8", "size_multiple = 0", "1 to 1024"),
        ("dtype = \"f32\"", "dtype = \"f64\"", "needed: \"f32\""),
        ("licence = \"MIT\"", "licence = \" \"", "licence is empty"),
        ("licence = \"MIT\"", "", "licence"),
        ("opset = 17", "opset = 17\nvoodoo = 1", "voodoo"),
        ("[inputs.image]", "[inputs.image", "expected"),
    ] {
        let message = refused(from, to);
        assert!(
            message.contains("x.toml") && message.contains(says),
            "{message}"
        );
    }
}

#[test]
fn an_unknown_name_a_missing_file_and_a_changed_file_are_refused() {
    let says = |which: &str| onnx(which, 1).unwrap_err().to_string();
    assert!(says("denoizer").contains("there are: denoiser"));
    let folder = tempfile::tempdir().unwrap();
    let manifest = folder.path().join("model.toml");
    let path = manifest.to_str().unwrap();
    assert!(says(path).contains("cannot read"), "{}", says(path));
    std::fs::write(&manifest, DENOISER).unwrap();
    assert!(says(path).contains("model.onnx"), "{}", says(path));
    let weights = include_bytes!("shipped/denoiser/model.onnx");
    let mut changed = weights.to_vec();
    changed[70_000] ^= 1;
    std::fs::write(folder.path().join("model.onnx"), &changed).unwrap();
    assert!(says(path).contains("digest"), "{}", says(path));
    std::fs::write(folder.path().join("model.onnx"), weights).unwrap();
    assert_eq!(
        onnx(path, 1).unwrap().manifest().id(),
        denoiser().manifest().id()
    );
}

/// Files whose digest is right and whose content is not: whoever made them made the manifest too.
#[test]
fn a_hostile_file_is_an_error() {
    let whole = include_bytes!("shipped/denoiser/model.onnx");
    let folder = tempfile::tempdir().unwrap();
    let manifest = folder.path().join("model.toml");
    let mut files = vec![
        Vec::new(),
        b"not a network".to_vec(),
        vec![0xff; 1000],
        whole[..whole.len() / 2].to_vec(),
        whole[100..].to_vec(),
    ];
    // Bits of the graph's own description, which stands behind the weights' names.
    for at in (0..400).step_by(7) {
        let mut changed = whole.to_vec();
        changed[at] ^= 0x55;
        files.push(changed);
    }
    let mut n_refused = 0;
    for bytes in &files {
        use sha2::Digest;
        let digest = sha2::Sha256::digest(bytes)
            .iter()
            .fold(String::new(), |s, b| s + &format!("{b:02x}"));
        let text: String = DENOISER
            .lines()
            .map(|l| match l.starts_with("sha256") {
                true => format!("sha256 = \"{digest}\"\n"),
                false => format!("{l}\n"),
            })
            .collect();
        std::fs::write(&manifest, text).unwrap();
        std::fs::write(folder.path().join("model.onnx"), bytes).unwrap();
        match onnx(manifest.to_str().unwrap(), 1) {
            Ok(model) => drop(model),
            Err(e) => {
                n_refused += 1;
                let says = e.to_string();
                assert!(
                    says.contains("cannot load") || says.contains("manifest says"),
                    "{says}"
                );
            }
        }
    }
    assert!(n_refused >= 5, "{n_refused}");
}

#[test]
fn a_manifest_that_is_not_the_graphs_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let manifest = folder.path().join("model.toml");
    std::fs::write(
        folder.path().join("model.onnx"),
        include_bytes!("shipped/denoiser/model.onnx"),
    )
    .unwrap();
    for (from, to) in [
        (
            "shape = [\"n\", 6, \"h\", \"w\"]",
            "shape = [\"n\", 4, \"h\", \"w\"]",
        ),
        (
            "shape = [\"n\", 2, \"h\", \"w\"]",
            "shape = [\"n\", 2, \"h\"]",
        ),
        ("[inputs.noise]", "[inputs.level]"),
    ] {
        assert!(DENOISER.contains(from));
        std::fs::write(&manifest, DENOISER.replace(from, to)).unwrap();
        let e = onnx(manifest.to_str().unwrap(), 1).unwrap_err();
        assert!(matches!(e, ModelError::Shape { .. }), "{e}");
    }
}

#[test]
fn inputs_of_another_shape_are_refused_before_the_run() {
    let model = denoiser();
    let data = vec![0.0; 6 * 16 * 16];
    let input = |name: &'static str, shape: &'static [usize], n: usize| Input {
        name,
        shape,
        data: &data[..n],
    };
    let (image, gfactor, noise) = (
        input("image", &[1, 6, 16, 16], 6 * 256),
        input("gfactor", &[1, 1, 16, 16], 256),
        input("noise", &[1], 1),
    );
    for inputs in [
        vec![image, gfactor],
        vec![image, gfactor, noise, noise],
        vec![image, gfactor, input("noise", &[2], 2)],
        vec![input("image", &[1, 6, 16, 16], 6 * 255), gfactor, noise],
        vec![input("image", &[6, 16, 16], 6 * 256), gfactor, noise],
        vec![image, input("gfactor", &[1, 1, 16, 8], 128), noise],
        vec![image, gfactor, noise, input("more", &[1], 1)],
    ] {
        let e = model.run(&inputs).unwrap_err();
        assert!(matches!(e, ModelError::Shape { .. }), "{e}");
    }
    model.run(&[noise, gfactor, image]).unwrap();
    // Sizes that the network cannot halve three times: its own words, and it lives on.
    let e = answer(&model, &[0.0; 6 * 144], [1, 6, 12, 12], 0.0).unwrap_err();
    assert!(matches!(e, ModelError::Run { .. }), "{e}");
    model.run(&[image, gfactor, noise]).unwrap();
}

#[test]
fn noise_goes_and_the_scale_stays_and_bits_are_the_same_twice_and_in_a_batch() {
    let model = denoiser();
    let shape = [2, 6, 48, 40];
    let image = scene(2, 48, 40, 1.0);
    let first = run(&model, &image, shape, 1.0);
    assert_eq!(first, run(&model, &image, shape, 1.0));
    assert_eq!(
        first,
        run(&onnx("denoiser", 1).unwrap(), &image, shape, 1.0)
    );
    let half = run(&model, &image[..6 * 48 * 40], [1, 6, 48, 40], 1.0);
    for (all, one) in first.iter().zip(&half) {
        assert_eq!(all.data[..one.data.len()], one.data);
    }
    // A hundredth of the units is a hundredth of the answer.
    let small: Vec<f32> = image.iter().map(|v| v * 0.01).collect();
    for (a, b) in first.iter().zip(&run(&model, &small, shape, 0.01)) {
        let worst = a
            .data
            .iter()
            .zip(&b.data)
            .map(|(a, b)| (a - 100.0 * b).abs())
            .fold(0.0, f32::max);
        assert!(worst < 1e-3, "{worst}");
    }
    // Of the middle slice's real part, in the plateau of the object.
    let clean = scene(1, 48, 40, 0.0);
    let error = |values: &dyn Fn(usize) -> f32| {
        let n = 48 * 40;
        (0..n)
            .map(|i| (values(i) - clean[2 * n + i]).powi(2))
            .sum::<f32>()
            / n as f32
    };
    let before = error(&|i| image[2 * 48 * 40 + i]);
    let after = error(&|i| first[0].data[i]);
    assert!(after < 0.2 * before, "{after} {before}");
    assert!(first[1].data.iter().all(|s| *s > 0.0 && *s < 1.5));
}

#[test]
fn tiles_cover_a_plane_once_and_see_their_margin() {
    for (plane, most, multiple, margin) in [
        ([1, 1], 64, 8, 8),
        ([7, 200], 64, 8, 16),
        ([64, 65], 64, 8, 16),
        ([131, 97], 48, 8, 8),
        ([320, 512], 256, 16, 32),
        ([1000, 130], 128, 8, 24),
    ] {
        let [ny, nx] = plane;
        let tiles = Tiles::cut(plane, most, multiple, margin);
        let values: Vec<f32> = (0..ny * nx).map(|i| i as f32 + 1.0).collect();
        let mut out = vec![0.0; ny * nx];
        let mut times = vec![0; ny * nx];
        for tile in &tiles.tiles {
            let [h, w] = tile.size();
            assert!(
                h <= most && w <= most && h % multiple == 0 && w % multiple == 0,
                "{tile:?}"
            );
            let mut seen = Vec::new();
            tiles.read(tile, &values, &mut seen);
            assert_eq!(seen.len(), h * w);
            tiles.write(tile, &seen, &mut out);
            for y in tile.kept[0].clone() {
                tile.kept[1].clone().for_each(|x| times[y * nx + x] += 1);
            }
            for (axis, n) in [ny, nx].into_iter().enumerate() {
                let (seen, kept) = (&tile.seen[axis], &tile.kept[axis]);
                let low = kept.start.cast_signed() - seen.start;
                let high = seen.end - kept.end.cast_signed();
                assert!(kept.start == 0 || low >= margin.cast_signed(), "{tile:?}");
                assert!(kept.end == n || high >= margin.cast_signed(), "{tile:?}");
            }
        }
        assert_eq!(out, values, "{plane:?}");
        assert!(times.iter().all(|t| *t == 1), "{plane:?}");
    }
}

#[test]
fn beyond_its_edges_a_plane_is_mirrored() {
    let tiles = Tiles::cut([1, 3], 8, 8, 0);
    let mut seen = Vec::new();
    tiles.read(&tiles.tiles[0], &[1.0, 2.0, 3.0], &mut seen);
    assert_eq!(seen[..8], [1.0, 2.0, 3.0, 2.0, 1.0, 2.0, 3.0, 2.0]);
    assert_eq!(seen.len(), 64);
    assert_eq!(seen[56..], seen[..8]);
}
