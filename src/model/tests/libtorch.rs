//! The loader, by plug-ins in C that a test compiles; and the plug-in itself, where `scripts/torch.sh` has built it.

use super::*;

/// Fits the fake; the order is not that of the letters.
const SCRIPT: &str = "\n[torchscript]\nfile = \"model.pt\"\n\
    sha256 = \"0123456789012345678901234567890123456789012345678901234567890123\"\n\
    inputs = [\"noise\", \"image\", \"gfactor\"]\noutputs = [\"sigma\", \"denoised\"]\n";

fn fake(folder: &Path, name: &str, options: &[&str]) -> PathBuf {
    let path = folder.join(name);
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/src/model/tests/fake_plugin.c");
    let status = std::process::Command::new("cc")
        .args(["-shared", "-fPIC", source, "-o"])
        .arg(&path)
        .args(options)
        .status()
        .unwrap();
    assert!(status.success());
    path
}

fn opened(path: &Path) -> &'static torch::Plugin {
    Box::leak(Box::new(torch::open(path).unwrap()))
}

fn model(
    plugin: &'static torch::Plugin,
    manifest: &Manifest,
    bytes: &[u8],
    threads: usize,
) -> Result<Model, ModelError> {
    Ok(Model {
        runtime: Box::new(torch::load(plugin, manifest, bytes, threads)?),
        manifest: manifest.clone(),
        kind: RuntimeKind::Torch,
        threads,
    })
}

/// The plug-in that was built here, and the manifest of its model.
fn built() -> Option<(&'static torch::Plugin, PathBuf)> {
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("target"),
        PathBuf::from,
    );
    let folder = target.join("torch");
    let library = folder.join("libcauda_torch.so");
    if !library.is_file() {
        eprintln!(
            "skipped: there is no {}; scripts/torch.sh",
            library.display()
        );
        return None;
    }
    Some((opened(&library), folder.join("model.toml")))
}

#[test]
fn what_is_not_the_plug_in_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    std::fs::write(folder.join("text.so"), "not a library").unwrap();
    for (path, says) in [
        ("/nowhere/libcauda_torch.so".into(), "No such file"),
        ("/bin/true".into(), "/bin/true: "),
        ("libm.so.6".into(), "not the plug-in: "),
        (folder.join("text.so"), "text.so: "),
        (
            fake(folder, "new.so", &["-DABI=2"]),
            "of version 2, needed 1",
        ),
        (
            fake(folder, "half.so", &["-DHALF"]),
            "undefined symbol: cauda_torch_run",
        ),
        (
            fake(folder, "mute.so", &["-DSPEECHLESS"]),
            "cannot say which libtorch",
        ),
    ] {
        let Err(e) = torch::open(&path) else {
            panic!("{} was taken", path.display());
        };
        let text = e.to_string();
        assert!(matches!(e, ModelError::NoPlugin { .. }), "{text}");
        assert!(
            text.contains(says) && text.contains("scripts/torch.sh") && text.lines().count() == 2,
            "{text}"
        );
    }
}

#[test]
fn a_manifest_says_what_libtorch_takes_and_gives() {
    let with = |script: &str| Manifest::parse(&format!("{DENOISER}{script}"), "x.toml");
    assert!(with(SCRIPT).is_ok());
    for (from, to, says) in [
        ("model.pt", "../model.pt", "without a folder"),
        ("\"0123", "\"x123", "64 hexadecimal"),
        ("\"noise\", ", "", "each of gfactor, image, noise once"),
        ("\"noise\", ", "\"image\", ", "torchscript.inputs"),
        ("\"sigma\"", "\"level\"", "each of denoised, sigma once"),
        ("outputs = [\"sigma\", \"denoised\"]", "", "outputs"),
    ] {
        let text = with(&SCRIPT.replace(from, to)).unwrap_err().to_string();
        assert!(text.contains(says), "{text}");
    }
    let e = Model::load("denoiser", RuntimeKind::Torch, 1).unwrap_err();
    assert!(matches!(e, ModelError::NoTorchScript { .. }), "{e}");
    assert!(e.to_string().contains("target/torch/model.toml"), "{e}");
    // A file that is not that of the manifest does not reach the plug-in, whether there is one or not.
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.toml");
    std::fs::write(&path, format!("{DENOISER}{SCRIPT}")).unwrap();
    let says = || {
        Model::load(path.to_str().unwrap(), RuntimeKind::Torch, 1)
            .unwrap_err()
            .to_string()
    };
    assert!(says().contains("cannot read") && says().contains("model.pt"));
    std::fs::write(folder.path().join("model.pt"), "anything").unwrap();
    assert!(says().contains("model.pt has the digest"), "{}", says());
}

#[test]
fn names_become_places_and_texts_come_back() {
    let folder = tempfile::tempdir().unwrap();
    let plugin = opened(&fake(folder.path(), "fake.so", &[]));
    let text = format!("{DENOISER}{SCRIPT}");
    let manifest = Manifest::parse(&text, "x.toml").unwrap();
    let good = model(plugin, &manifest, b"good", 1).unwrap();
    assert_eq!(good.runtime(), "libtorch 0.0.0 (model.pt 012345678901)");
    let image = scene(2, 8, 16, 1.0);
    let kept = image.clone();
    let outputs = run(&good, &image, [2, 6, 8, 16], 1.0);
    assert_eq!(image, kept);
    // In the order of their names again.
    assert_eq!(outputs[0].shape, [2, 2, 8, 16]);
    assert_eq!(outputs[1].shape, [2, 1, 8, 16]);
    assert!(outputs[0].data.iter().all(|v| *v == 2.0));
    assert!(outputs[1].data.iter().all(|v| *v == 1.0));

    let says = |bytes: &[u8]| match model(plugin, &manifest, bytes, 1) {
        Ok(m) => answer(&m, &image, [2, 6, 8, 16], 1.0),
        Err(e) => Err(e),
    };
    let text_of = |bytes: &[u8]| says(bytes).unwrap_err().to_string();
    assert!(text_of(b"no").ends_with("libtorch 0.0.0, of a test cannot load it: the fake refuses"));
    assert!(text_of(b"").contains("the fake refuses"));
    assert!(text_of(b"error").ends_with("the run failed: the fake fails"));
    assert!(text_of(b"long").ends_with("xxxx"));

    // Outputs are made before the run: their sides must be known, and possible.
    let port = "[outputs.sigma]\ndtype = \"f32\"\nshape = [\"n\", 1, ";
    assert!(text.contains(port));
    let with =
        |side: &str| Manifest::parse(&text.replace(port, &format!("{port}{side}, ")), "x.toml");
    let e = model(plugin, &with("\"k\"").unwrap(), b"good", 1).unwrap_err();
    assert!(matches!(e, ModelError::Shape { .. }), "{e}");
    for side in ["4_000_000_000", "9_000_000_000_000_000_000"] {
        let vast = model(plugin, &with(side).unwrap(), b"good", 1).unwrap();
        let e = answer(&vast, &image, [2, 6, 8, 16], 1.0).unwrap_err();
        assert!(e.to_string().contains("too large"), "{e}");
    }
}

/// Largest difference of an output over the root mean square of what it should be.
fn furthest(found: &[Tensor], expected: &[Tensor]) -> f32 {
    let of = |(a, b): (&Tensor, &Tensor)| {
        assert_eq!(a.shape, b.shape);
        let square = |v: &f32| f64::from(*v).powi(2);
        let rms = (b.data.iter().map(square).sum::<f64>() / b.data.len() as f64).sqrt() as f32;
        let off = a.data.iter().zip(&b.data).map(|(a, b)| (a - b).abs());
        off.fold(0.0, f32::max) / rms
    };
    found.iter().zip(expected).map(of).fold(0.0, f32::max)
}

/// The bound of `model`'s head, at sizes other than those the module was traced at.
#[test]
fn libtorch_and_onnx_runtime_agree_and_bits_are_the_same_on_any_number_of_threads() {
    let Some((plugin, path)) = built() else {
        return;
    };
    let which = path.to_str().unwrap();
    let manifest = Model::describe(which).unwrap();
    let bytes = std::fs::read(path.with_file_name("model.pt")).unwrap();
    manifest.check_digest(RuntimeKind::Torch, &bytes).unwrap();
    let [one, two] = [1, 2].map(|n| model(plugin, &manifest, &bytes, n).unwrap());
    assert!(one.runtime().starts_with("libtorch 2.11."), "{one:?}");
    let onnx = onnx(which, 2).unwrap();
    for shape in [[1, 6, 136, 96], [3, 6, 48, 40], [2, 6, 8, 16]] {
        let image = scene(shape[0], shape[2], shape[3], 1.0);
        let expected = run(&onnx, &image, shape, 1.0);
        let found = run(&two, &image, shape, 1.0);
        assert!(furthest(&found, &expected) < 1e-4, "{shape:?}");
        // A wrong twin.
        let twin = run(&two, &image, shape, 1.01);
        assert!(furthest(&twin, &expected) > 1e-4, "{shape:?}");
        assert_eq!(found, run(&two, &image, shape, 1.0));
        assert_eq!(found, run(&one, &image, shape, 1.0));
    }
    // Sides that cannot be halved three times: a sentence, and the model lives on.
    let e = answer(&two, &scene(1, 12, 12, 1.0), [1, 6, 12, 12], 1.0).unwrap_err();
    assert!(matches!(e, ModelError::Run { .. }), "{e}");
    run(&two, &scene(1, 16, 16, 1.0), [1, 6, 16, 16], 1.0);
}

/// Files that are not modules: whoever made them made the manifest too.
#[test]
fn a_hostile_script_is_an_error() {
    let Some((plugin, path)) = built() else {
        return;
    };
    let manifest = Model::describe(path.to_str().unwrap()).unwrap();
    let whole = std::fs::read(path.with_file_name("model.pt")).unwrap();
    let files = [
        Vec::new(),
        b"not a module".to_vec(),
        vec![0; 4096],
        include_bytes!("../shipped/denoiser/model.onnx").to_vec(),
        whole[..whole.len() / 2].to_vec(),
        whole[..whole.len() - 1].to_vec(),
        whole[1..].to_vec(),
    ];
    for bytes in files {
        let e = model(plugin, &manifest, &bytes, 1).unwrap_err();
        assert!(matches!(e, ModelError::Load { .. }), "{e}");
        assert!(e.to_string().lines().count() == 1, "{e}");
    }
    // One wrong byte: an error, or it is one that nobody reads.
    let image = scene(1, 16, 16, 1.0);
    let answer_of = |model: &Model| run(model, &image, [1, 6, 16, 16], 1.0);
    let expected = answer_of(&model(plugin, &manifest, &whole, 1).unwrap());
    let mut n_refused = 0;
    for i in 0..16 {
        let mut bytes = whole.clone();
        bytes[100 + i * (whole.len() - 200) / 15] ^= 0x55;
        match model(plugin, &manifest, &bytes, 1) {
            Ok(model) => assert_eq!(answer_of(&model), expected),
            Err(_) => n_refused += 1,
        }
    }
    assert!(n_refused >= 13, "{n_refused}");
}
