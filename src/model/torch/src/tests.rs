//! The border as the engine meets it, with modules traced here; the shipped model is for `scripts/check_torch.py`.

#![allow(clippy::unwrap_used, clippy::panic)]

use std::ffi::{CStr, c_char, c_void};
use std::ptr::{null, null_mut};
use std::sync::atomic::{AtomicU32, Ordering};

use tch::{CModule, Device, Kind, Tensor};

use crate::{CaudaTensor, cauda_torch_load, cauda_torch_run, cauda_torch_unload, caught, tell};

/// TorchScript of `f`, traced on one `[1, 1, 4, 4]` per input.
fn script(n_in: usize, mut f: impl FnMut(&[Tensor]) -> Vec<Tensor>) -> Vec<u8> {
    static N: AtomicU32 = AtomicU32::new(0);
    let name = format!(
        "cauda-torch-{}-{}.pt",
        std::process::id(),
        N.fetch_add(1, Ordering::Relaxed)
    );
    let path = std::env::temp_dir().join(name);
    let inputs: Vec<_> = (0..n_in)
        .map(|_| Tensor::ones([1, 1, 4, 4], (Kind::Float, Device::Cpu)))
        .collect();
    CModule::create_by_tracing("m", "forward", &inputs, &mut f)
        .unwrap()
        .save(&path)
        .unwrap();
    let bytes = std::fs::read(&path).unwrap();
    std::fs::remove_file(&path).unwrap();
    bytes
}

struct Loaded(*mut c_void);

// SAFETY: calls may come from any thread.
unsafe impl Sync for Loaded {}

impl Drop for Loaded {
    fn drop(&mut self) {
        // SAFETY: loaded once, dropped once.
        unsafe { cauda_torch_unload(self.0) };
    }
}

fn told(error: &[c_char]) -> String {
    // SAFETY: `error` is zeros or what `tell` wrote: it has a NUL.
    unsafe { CStr::from_ptr(error.as_ptr()) }
        .to_str()
        .unwrap()
        .to_owned()
}

fn load(bytes: &[u8], device: i32, threads: u32) -> Result<Loaded, String> {
    let mut error = [0; 1024];
    // SAFETY: both slices are what is said of them.
    let model = unsafe {
        cauda_torch_load(
            bytes.as_ptr(),
            bytes.len(),
            device,
            threads,
            error.as_mut_ptr(),
            error.len(),
        )
    };
    if model.is_null() {
        Err(told(&error))
    } else {
        Ok(Loaded(model))
    }
}

fn view(data: &mut [f32], shape: &[i64]) -> CaudaTensor {
    CaudaTensor {
        data: data.as_mut_ptr(),
        shape: shape.as_ptr(),
        rank: u32::try_from(shape.len()).unwrap(),
        device: -1,
    }
}

fn run(model: &Loaded, input: &[CaudaTensor], output: &[CaudaTensor]) -> Result<(), String> {
    let mut error = [0; 1024];
    // SAFETY: the model is alive; the tests' tensors are refused before their data are touched, or are what they say.
    let code = unsafe {
        cauda_torch_run(
            model.0,
            input.as_ptr(),
            input.len(),
            output.as_ptr(),
            output.len(),
            null_mut(),
            error.as_mut_ptr(),
            error.len(),
        )
    };
    if code == 0 { Ok(()) } else { Err(told(&error)) }
}

/// A 3x3 convolution from one plane to eight and back to one: sums whose order shows in the last bits.
fn convolutions() -> Vec<u8> {
    let a = Tensor::linspace(-1, 1, 72, (Kind::Float, Device::Cpu))
        .sin()
        .reshape([8, 1, 3, 3]);
    let b = Tensor::linspace(-2, 1, 72, (Kind::Float, Device::Cpu))
        .cos()
        .reshape([1, 8, 3, 3]);
    script(1, move |x| {
        let x = x[0]
            .conv2d(&a, None::<Tensor>, [1, 1], [1, 1], [1, 1], 1)
            .relu();
        vec![x.conv2d(&b, None::<Tensor>, [1, 1], [1, 1], [1, 1], 1)]
    })
}

fn convolved(model: &Loaded, side: i64) -> Vec<u32> {
    let n = usize::try_from(side * side).unwrap();
    let mut x: Vec<f32> = (0..n).map(|i| (i as f32 * 0.37).sin()).collect();
    let mut y = vec![f32::NAN; n];
    let shape = [1, 1, side, side];
    run(model, &[view(&mut x, &shape)], &[view(&mut y, &shape)]).unwrap();
    y.iter().map(|v| v.to_bits()).collect()
}

#[test]
fn says_what_it_is() {
    assert_eq!(crate::cauda_torch_abi(), 1);
    // SAFETY: not null here, ends with NUL.
    let text = unsafe { CStr::from_ptr(crate::cauda_torch_describe()) }
        .to_str()
        .unwrap();
    assert!(
        text.starts_with("libtorch 2.11.") && text.ends_with("available"),
        "{text}"
    );
}

// A tuple of outputs cannot be traced from here: `scripts/check_torch.py` has one.
#[test]
fn any_size_and_inputs_untouched() {
    let model = load(&script(2, |x| vec![&x[0] * &x[1] + 1.0]), -1, 2).unwrap();
    for shape in [[1, 1, 4, 4], [2, 3, 5, 7], [0, 1, 4, 4], [1, 1, 1, 1]] {
        let n = shape.iter().product::<i64>() as usize;
        let (mut x, mut z) = ((0..n).map(|i| i as f32).collect::<Vec<_>>(), vec![3.0; n]);
        let mut y = vec![f32::NAN; n];
        run(
            &model,
            &[view(&mut x, &shape), view(&mut z, &shape)],
            &[view(&mut y, &shape)],
        )
        .unwrap();
        assert!(
            (0..n).all(|i| y[i] == 3.0 * i as f32 + 1.0),
            "{shape:?}: {y:?}"
        );
        assert!(
            (0..n).all(|i| x[i] == i as f32 && z[i] == 3.0),
            "{shape:?}: inputs changed"
        );
    }
}

#[test]
fn what_is_no_module_is_refused() {
    let good = script(1, |x| vec![&x[0] + 1.0]);
    for (bytes, device, needed) in [
        (&b""[..], -1, "no bytes"),
        (b"garbage", -1, "not a TorchScript module: "),
        (&[0; 4096], -1, "not a TorchScript module: "),
        (&good[..good.len() / 2], -1, "not a TorchScript module: "),
        (&good[..good.len() - 1], -1, "not a TorchScript module: "),
        (&good[1..], -1, "not a TorchScript module: "),
        (&good, -2, "needed -1 (CPU) or the index of a card"),
        (&good, 99, "device 99: "),
    ] {
        let text = load(bytes, device, 1).err().unwrap();
        assert!(text.contains(needed) && !text.contains('\n'), "{text}");
    }
}

#[test]
fn what_does_not_fit_is_named() {
    let one = load(&script(1, |x| vec![&x[0] * 2.0]), -1, 1).unwrap();
    let doubles = load(&script(1, |x| vec![x[0].to_kind(Kind::Double)]), -1, 1).unwrap();
    let picky = load(&convolutions(), -1, 1).unwrap();
    let (mut a, mut b, mut c) = (vec![1.0; 16], vec![0.0; 16], vec![0.0; 16]);
    let fit = [1, 1, 4, 4];
    let mut refused = |model: &Loaded, input: &[i64], output: &[i64], needed: &[&str]| {
        let text = run(model, &[view(&mut a, input)], &[view(&mut b, output)]).unwrap_err();
        assert!(
            needed.iter().all(|n| text.contains(n)) && !text.contains('\n'),
            "{text}"
        );
    };
    refused(
        &one,
        &fit,
        &[1, 1, 2, 8],
        &["output 0", "[1, 1, 4, 4]", "[1, 1, 2, 8]"],
    );
    refused(&one, &fit, &[16], &["[1, 1, 4, 4]", "[16]"]);
    refused(
        &one,
        &[1, 1, -4, -4],
        &fit,
        &["input 0", "[1, 1, -4, -4] is impossible"],
    );
    refused(&one, &[i64::MAX, 4], &fit, &["impossible"]);
    refused(&one, &[1; 9], &fit, &["9 sides"]);
    refused(&doubles, &fit, &fit, &["output 0", "Double", "needed f32"]);
    refused(&picky, &[1, 2, 2, 4], &fit, &["channels"]);
    let (x, y, z) = (view(&mut a, &fit), view(&mut b, &fit), view(&mut c, &fit));
    let error =
        |input: &[CaudaTensor], output: &[CaudaTensor]| run(&one, input, output).unwrap_err();
    let alike = |t: &CaudaTensor| CaudaTensor { ..*t };
    assert!(
        error(&[], &[alike(&y)]).contains("missing value"),
        "{}",
        error(&[], &[alike(&y)])
    );
    assert!(error(&[alike(&x), alike(&z)], &[alike(&y)]).contains("argument"));
    assert!(error(&[alike(&x)], &[alike(&y), alike(&z)]).contains("gives 1 outputs, asked for 2"));
    assert!(
        error(&[CaudaTensor { device: 0, ..x }], &[alike(&y)])
            .contains("on device 0, the model is on -1")
    );
    assert!(
        error(
            &[CaudaTensor {
                data: null_mut(),
                ..x
            }],
            &[alike(&y)]
        )
        .contains("no address of f32")
    );
    assert!(
        error(
            &[CaudaTensor {
                data: x.data.wrapping_byte_add(1),
                ..x
            }],
            &[alike(&y)]
        )
        .contains("no address of f32")
    );
    assert!(error(&[CaudaTensor { shape: null(), ..x }], &[alike(&y)]).contains("4 sides at 0x0"));
    assert!(
        run(&Loaded(null_mut()), &[], &[])
            .unwrap_err()
            .contains("no model")
    );
    run(&one, &[alike(&x)], &[alike(&y)]).unwrap();
    assert_eq!(b, [2.0; 16]);
}

#[test]
fn the_same_bits_in_every_run_and_every_thread() {
    let (one, two) = (
        load(&convolutions(), -1, 1).unwrap(),
        load(&convolutions(), -1, 2).unwrap(),
    );
    let (small, large) = (convolved(&one, 24), convolved(&one, 96));
    assert_ne!(small[..24], large[..24]);
    std::thread::scope(|scope| {
        for model in [&one, &two, &one, &two] {
            scope.spawn(|| {
                for _ in 0..20 {
                    assert_eq!(convolved(model, 96), large);
                    assert_eq!(convolved(model, 24), small);
                }
            });
        }
    });
}

#[test]
fn a_panic_is_a_text_and_a_text_fits() {
    assert_eq!(caught::<()>(|| panic!("a {}", 1)).unwrap_err(), "a 1");
    assert_eq!(caught::<()>(|| panic!("b")).unwrap_err(), "b");
    for (n, kept) in [(1, ""), (2, "a"), (3, "a"), (4, "aµ"), (9, "aµb")] {
        let mut error: [c_char; 10] = [1; 10];
        // SAFETY: n <= 10 bytes are there.
        unsafe { tell("aµb", error.as_mut_ptr(), n) };
        assert_eq!(told(&error), kept);
        assert!(error[n..].iter().all(|&b| b == 1));
    }
    // SAFETY: nothing is written to null, nor to no bytes.
    unsafe { (tell("a", null_mut(), 9), tell("a", [].as_mut_ptr(), 0)) };
}
