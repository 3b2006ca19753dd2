//! Whatever the scanner's or another program's format: it is recognised by content and read.
//!
//! Files that may not be redistributed lie in `../shared/data`; without that folder these tests say so and pass.

use crate::support::{cauda_in, data, shared};

fn inspect(path: &std::path::Path) -> serde_json::Value {
    let output = cauda_in(
        path.parent().unwrap(),
        &format!("inspect {} --json", path.display()),
    );
    assert_eq!(
        output.status.code(),
        Some(0),
        "{}: {}",
        path.display(),
        String::from_utf8_lossy(&output.stderr)
    );
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn the_kind_is_found_from_the_content_not_the_name() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("looks_like.dat");
    std::fs::copy(data("demo_mouse_pf.h5"), &path).unwrap();
    let found = inspect(&path);
    assert_eq!(found["kind"], "ismrmrd");
    assert_eq!(found["readouts"], 648);
}

#[test]
fn every_shared_scan_is_recognised() {
    let Some(folder) = shared() else { return };
    for (file, kind, readouts) in [
        ("kspace/brain8_full.cfl", "bart", None),
        ("kspace/skyra_gre_phantom.dat", "twix_vd", Some(160)),
        ("kspace/bruker_rare_mouse", "bruker", Some(1440)),
        ("mrd/brain8_full.h5", "ismrmrd", Some(180)),
        ("mrd/brain8_r2_acs24.h5", "ismrmrd", Some(102)),
        ("mrd/brain8_r2_acs24.v1stream", "mrd_v1_stream", Some(102)),
        ("mrd/brain8_r2_acs24.v2.mrd", "mrd_v2_stream", Some(102)),
        ("mrd/mouse_rare_t2w.h5", "ismrmrd", Some(1440)),
        ("mrd/phantom_v2_c8_m64.mrd", "mrd_v2_stream", None),
        ("mrd/sirf_grappa2_1rep_simulated.h5", "ismrmrd", Some(143)),
        ("mrd/ulf_p7a_fse.h5", "ismrmrd", Some(504)),
    ] {
        let found = inspect(&folder.join(file));
        assert_eq!(found["kind"], kind, "{file}");
        if let Some(n) = readouts {
            assert_eq!(found["readouts"], n, "{file}");
        }
    }
}

#[test]
fn one_scan_in_three_formats_gives_one_image() {
    let Some(folder) = shared() else { return };
    let dir = tempfile::tempdir().unwrap();
    let mut images = Vec::new();
    for file in [
        "brain8_r2_acs24.h5",
        "brain8_r2_acs24.v1stream",
        "brain8_r2_acs24.v2.mrd",
    ] {
        let out = format!("{file}.npy");
        let path = folder.join("mrd").join(file);
        let output = cauda_in(dir.path(), &format!("recon {} -o {out}", path.display()));
        assert_eq!(
            output.status.code(),
            Some(0),
            "{file}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        images.push(std::fs::read(dir.path().join(out)).unwrap());
    }
    assert!(images[0] == images[1] && images[0] == images[2]);
}
