//! The card does right programs right, and every wrong twin of them wrong, in every run.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use super::*;

const N: usize = 64;
const BYTES: usize = 4 * N;
const SEEDS: [u64; 4] = [0, 1, 2, 3];

/// What a program does wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Twin {
    None,
    ReadsBeforeTheEnd,
    ReusesStaging,
    ForgetsTheEvent,
    RecordsTooEarly,
    FreesTooEarly,
    UsesBeforeAllocation,
    BufferTooShort,
    InPlace,
}

struct Program {
    card: Card,
    pool: u64,
    home: u64,
}

impl Program {
    fn new(seed: u64, fail: &[(&str, u64)]) -> Self {
        let mut card = Card::new(Config {
            memory_bytes: 1 << 20,
            seed,
            fail: fail.iter().map(|(k, n)| ((*k).to_owned(), *n)).collect(),
            report: None,
        });
        card.is_initialised = true;
        card.retain().unwrap();
        let pool = card.create_pool();
        let home = card.create_stream().unwrap();
        Self { card, pool, home }
    }

    fn buffer(&mut self, len: usize) -> u64 {
        self.card.allocate(len, self.pool, self.home).unwrap()
    }

    fn pinned(&mut self) -> (usize, &'static mut [f32]) {
        let values: &'static mut [f32] = Box::leak(vec![0.0; N].into_boxed_slice());
        let at = values.as_mut_ptr() as usize;
        self.card.pin(at, BYTES).unwrap();
        (at, values)
    }

    fn function(&mut self) -> usize {
        let k = table().iter().find(|k| k.name == "faulty_none").unwrap();
        let image = format!("{MAGIC}{}\n{:016x}\n", k.source, k.digest);
        let module = self.card.load(image.as_bytes()).unwrap();
        let function = self.card.function(module, k.name).unwrap();
        self.card.kernel(function).unwrap()
    }
}

fn values() -> Vec<f32> {
    (0..N).map(|i| i as f32).collect()
}

/// Up on one stream, a kernel that reverses on another, down on the first: what arrives.
fn run(twin: Twin, seed: u64) -> Result<Vec<f32>, Status> {
    let mut p = Program::new(seed, &[]);
    let (up, down) = (p.card.create_stream()?, p.card.create_stream()?);
    let a = p.buffer(if twin == Twin::BufferTooShort {
        BYTES - 4
    } else {
        BYTES
    });
    let b = p.buffer(BYTES);
    if twin != Twin::UsesBeforeAllocation {
        p.card.synchronise(p.home)?;
    }
    let (from_at, from) = p.pinned();
    let (to_at, to) = p.pinned();
    let kernel = p.function();
    let (uploaded, done) = (p.card.create_event()?, p.card.create_event()?);
    from.copy_from_slice(&values());
    if twin == Twin::RecordsTooEarly {
        p.card.record(uploaded, up)?;
    }
    let len = if twin == Twin::BufferTooShort {
        BYTES - 4
    } else {
        BYTES
    };
    let (to_a, from_host) = (Place::Device(a), Place::Pinned(from_at));
    p.card.enqueue(
        up,
        Op::Copy {
            to: to_a,
            from: from_host,
            len,
        },
    )?;
    if twin == Twin::ReusesStaging {
        from.fill(-1.0);
    }
    if twin != Twin::RecordsTooEarly {
        p.card.record(uploaded, up)?;
    }
    if twin != Twin::ForgetsTheEvent {
        p.card.wait(down, uploaded)?;
    }
    // The wait outlives it.
    p.card.destroy_event(uploaded)?;
    let out = if twin == Twin::InPlace { a } else { b };
    let args = vec![Value::Address(a), Value::Address(out)];
    p.card
        .launch(down, kernel, [[1, 1, 1], [N as u32, 1, 1]], args)?;
    if twin == Twin::FreesTooEarly {
        p.card.free(b, p.home)?;
    }
    let (to_host, from_b) = (Place::Pinned(to_at), Place::Device(b));
    p.card.enqueue(
        down,
        Op::Copy {
            to: to_host,
            from: from_b,
            len: BYTES,
        },
    )?;
    p.card.record(done, down)?;
    if twin != Twin::ReadsBeforeTheEnd {
        p.card.synchronise_event(done)?;
    }
    Ok(to.to_vec())
}

#[test]
fn right_programs_are_right_and_wrong_ones_wrong_in_every_run() {
    let truth: Vec<f32> = values().into_iter().rev().collect();
    use Twin::*;
    for twin in [
        None,
        ReadsBeforeTheEnd,
        ReusesStaging,
        ForgetsTheEvent,
        RecordsTooEarly,
        FreesTooEarly,
        UsesBeforeAllocation,
        BufferTooShort,
        InPlace,
    ] {
        let mut found = Vec::new();
        for seed in SEEDS {
            let (first, second) = (run(twin, seed), run(twin, seed));
            let bits = |r: &Result<Vec<f32>, Status>| {
                r.clone()
                    .map(|v| v.iter().map(|x| x.to_bits()).collect::<Vec<_>>())
            };
            assert_eq!(bits(&first), bits(&second), "{twin:?}, {seed}");
            found.push(first != Ok(truth.clone()));
        }
        // By the lazy order; a seed may happen to do it right.
        assert_eq!(found[0], twin != None, "{twin:?}");
        assert!(twin != None || found.iter().all(|f| !f), "{found:?}");
    }
}

#[test]
fn what_is_left_is_told_and_what_is_freed_is_not() {
    let mut p = Program::new(0, &[]);
    let a = p.buffer(BYTES);
    let (pinned, _) = p.pinned();
    let event = p.card.create_event().unwrap();
    p.function();
    p.card.free(a, p.home).unwrap();
    p.card.release().unwrap();
    let last = p.card.said.last().unwrap().clone();
    assert_eq!(
        last,
        "released; left: 1 pinned, 1 streams, 1 events, 1 modules, 1 pools"
    );
    // What the next context would see.
    assert_eq!(p.card.destroy_event(event), Err(Status::INVALID_HANDLE));
    assert_eq!(p.card.unpin(pinned), Err(Status::INVALID_VALUE));
    assert_eq!(p.card.left(), "nothing");
}

#[test]
fn the_nth_of_a_kind_fails_and_a_fault_stays() {
    let mut p = Program::new(0, &[("alloc", 2), ("copy", 1)]);
    let a = p.buffer(BYTES);
    let again = p.card.allocate(BYTES, p.pool, p.home);
    assert_eq!(again, Err(Status::OUT_OF_MEMORY));
    let b = p.buffer(BYTES);
    let too_large = p.card.allocate(1 << 20, p.pool, p.home);
    assert_eq!(too_large, Err(Status::OUT_OF_MEMORY));
    let (to, from) = (Place::Device(a), Place::Device(b));
    p.card
        .enqueue(
            p.home,
            Op::Copy {
                to,
                from,
                len: BYTES,
            },
        )
        .unwrap();
    assert_eq!(p.card.check(), Ok(()));
    assert_eq!(p.card.synchronise(p.home), Err(Status::ECC_UNCORRECTABLE));
    assert_eq!(p.card.check(), Err(Status::ECC_UNCORRECTABLE));
    p.card.reset();
    assert_eq!(p.card.check(), Ok(()));
    assert!(p.card.said.last().unwrap().contains("2 allocations"));
}

#[test]
fn wrong_launches_and_images_are_refused() {
    let mut p = Program::new(0, &[]);
    let find = |name: &str| table().iter().find(|k| k.name == name).unwrap();
    let whiten = find("whiten_c32");
    let image = |digest: u64| format!("{MAGIC}{}\n{digest:016x}\n", whiten.source);
    let stale = p.card.load(image(whiten.digest ^ 1).as_bytes());
    assert_eq!(stale, Err(Status::INVALID_IMAGE));
    let module = p.card.load(image(whiten.digest).as_bytes()).unwrap();
    assert_eq!(
        p.card.function(module, "combine_csm_c32"),
        Err(Status::NOT_FOUND)
    );
    let function = p.card.function(module, whiten.name).unwrap();
    let kernel = p.card.kernel(function).unwrap();
    for (grid, block) in [
        ([1, 1, 1], [64, 1, 1]),
        ([0, 1, 1], [128, 1, 1]),
        ([1, 65536, 1], [128, 1, 1]),
    ] {
        let launch = p.card.launch(p.home, kernel, [grid, block], Vec::new());
        assert_eq!(launch, Err(Status::INVALID_VALUE), "{grid:?}, {block:?}");
    }
    // Refused, not broken.
    assert_eq!(p.card.check(), Ok(()));
}

#[test]
fn memory_that_a_copy_still_needs_is_not_unpinned_unseen() {
    let mut p = Program::new(0, &[]);
    let a = p.buffer(BYTES);
    let (at, _) = p.pinned();
    let (to, from) = (Place::Device(a), Place::Pinned(at));
    p.card
        .enqueue(
            p.home,
            Op::Copy {
                to,
                from,
                len: BYTES,
            },
        )
        .unwrap();
    assert_eq!(p.card.unpin(at), Err(Status::ILLEGAL_ADDRESS));
    assert_eq!(p.card.check(), Err(Status::ILLEGAL_ADDRESS));
}

#[test]
fn a_graph_does_again_what_was_captured() {
    let mut p = Program::new(0, &[("capture", 2)]);
    let (a, b) = (p.buffer(BYTES), p.buffer(BYTES));
    p.card.synchronise(p.home).unwrap();
    let stream = p.card.create_stream().unwrap();
    let kernel = p.function();
    let reverse = |card: &mut Card, from, to| {
        let args = vec![Value::Address(from), Value::Address(to)];
        card.launch(stream, kernel, [[1; 3], [N as u32, 1, 1]], args)
    };
    p.card.begin_capture(stream).unwrap();
    reverse(&mut p.card, a, b).unwrap();
    reverse(&mut p.card, b, a).unwrap();
    let graph = p.card.end_capture(stream).unwrap();
    let executable = p.card.instantiate(graph).unwrap();
    let (from_at, from) = p.pinned();
    let (to_at, to) = p.pinned();
    for turn in 0..3 {
        from.fill(turn as f32);
        let (up_to, up_from) = (Place::Device(a), Place::Pinned(from_at));
        p.card
            .enqueue(
                stream,
                Op::Copy {
                    to: up_to,
                    from: up_from,
                    len: BYTES,
                },
            )
            .unwrap();
        p.card.launch_graph(executable, stream).unwrap();
        let (down_to, down_from) = (Place::Pinned(to_at), Place::Device(b));
        p.card
            .enqueue(
                stream,
                Op::Copy {
                    to: down_to,
                    from: down_from,
                    len: BYTES,
                },
            )
            .unwrap();
        p.card.synchronise(stream).unwrap();
        assert_eq!(to[5], turn as f32);
    }
    p.card.begin_capture(stream).unwrap();
    let waits = p.card.synchronise(stream);
    assert_eq!(waits, Err(Status::STREAM_CAPTURE_UNSUPPORTED));
    let second = p.card.end_capture(stream);
    assert_eq!(second, Err(Status::STREAM_CAPTURE_INVALIDATED));
}
