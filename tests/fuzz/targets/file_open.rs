//! Any bytes as a file: everything in it is read, or refused. Seed with small valid files.
#![no_main]

use std::io::Write;
use std::ops::ControlFlow;

use ismrmrd::Limits;
use ismrmrd::file::File;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let Ok(mut file) = tempfile() else { return };
    if file.1.write_all(data).is_err() {
        return;
    }
    let limits = Limits { image_bytes: 1 << 20, ..Limits::default() };
    if let Ok(open) = File::open(&file.0, limits) {
        for group in open.groups().unwrap_or_default() {
            drop(open.header(&group.name));
            drop(open.for_each_batch(&group.name, 7, &mut |_| ControlFlow::Continue(())));
            drop(open.waveforms(&group.name));
            for series in &group.images {
                drop(open.images(&group.name, &series.name));
            }
            for series in &group.arrays {
                drop(open.arrays(&group.name, &series.name));
            }
        }
    }
    drop(std::fs::remove_file(&file.0));
});

fn tempfile() -> std::io::Result<(std::path::PathBuf, std::fs::File)> {
    let path = std::env::temp_dir().join(format!("cauda_fuzz_{}.h5", std::process::id()));
    let file = std::fs::File::create(&path)?;
    Ok((path, file))
}
