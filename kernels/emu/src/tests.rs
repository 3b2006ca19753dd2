//! The emulator lets right kernels pass and names what wrong ones do.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use super::*;

const N: usize = 64;

fn input() -> Vec<f32> {
    (0..N).map(|i| (i * i % 101) as f32).collect()
}

fn run(kernel: &str, schedule: Schedule) -> Result<Vec<f32>, String> {
    let mut out = vec![f32::NAN; N];
    let input = input();
    launch(
        kernel,
        [1, 1, 1],
        [N as u32, 1, 1],
        &mut [Arg::input(&input), Arg::output(&mut out)],
        schedule,
    )?;
    Ok(out)
}

#[test]
fn right_kernels_pass_under_every_schedule() {
    let v = input();
    for schedule in SCHEDULES {
        let reversed: Vec<f32> = v.iter().rev().copied().collect();
        assert_eq!(run("faulty_none", schedule).unwrap(), reversed);
        let x = |t: usize| v[t ^ 1];
        let warp: Vec<f32> = (0..N)
            .map(|t| x(t) + x(t ^ 3) + x(t / 32 * 32 + 5))
            .collect();
        assert_eq!(run("faulty_none_warp", schedule).unwrap(), warp);
        let mut sum = vec![1.0f32];
        launch(
            "faulty_none_reduction",
            [1, 1, 1],
            [N as u32, 1, 1],
            &mut [Arg::input(&v), Arg::output(&mut sum), Arg::F32(0.5)],
            schedule,
        )
        .unwrap();
        // Whole and half numbers: every order of summation gives the same.
        assert_eq!(sum[0], 1.0 + 0.5 * v.iter().sum::<f32>());
    }
}

/// Wrong twins: kernel, and what the fault must say.
#[test]
fn every_wrong_kernel_is_named_under_every_schedule() {
    for (kernel, needed) in [
        ("faulty_removed_barrier", &["shared memory"][..]),
        ("faulty_removed_second_barrier", &["missing barrier"]),
        (
            "faulty_divergent_barrier",
            &[
                "divergent barrier",
                "faulty.cu:",
                "3 threads",
                "61 threads",
                "have ended",
                "(3,0,0)",
            ],
        ),
        (
            "faulty_two_barriers",
            &[
                "divergent barrier",
                "32 threads (first (32,0,0))",
                "wait at faulty.cu:",
            ],
        ),
        (
            "faulty_read_outside",
            &[
                "out-of-bounds read",
                "element 64 of 64",
                "argument 0",
                "thread (63,0,0)",
            ],
        ),
        (
            "faulty_read_before",
            &["out-of-bounds read", "element -1 of 64", "thread (0,0,0)"],
        ),
        (
            "faulty_write_outside",
            &["out-of-bounds write", "element 64 of 64", "argument 1"],
        ),
        (
            "faulty_shared_outside",
            &["out-of-bounds write", "shared memory", "element 63 of 63"],
        ),
        (
            "faulty_uninitialised",
            &["uninitialised shared memory", "thread (63,0,0)"],
        ),
        ("faulty_misaligned", &["misaligned", "16 bytes"]),
        (
            "faulty_divergent_shuffle",
            &["divergent barrier", "wait in their warp"],
        ),
    ] {
        for schedule in SCHEDULES {
            let fault = run(kernel, schedule).expect_err(kernel);
            for part in needed {
                assert!(
                    fault.contains(part),
                    "{kernel}, {schedule:?}: {fault:?} lacks {part:?}"
                );
            }
        }
    }
}

#[test]
fn a_missing_barrier_around_global_memory_makes_schedules_differ() {
    let input = input();
    let results: Vec<Vec<u32>> = SCHEDULES
        .iter()
        .map(|schedule| {
            let (mut scratch, mut out) = (vec![-1.0f32; N], vec![-1.0f32; N]);
            let args = &mut [
                Arg::input(&input),
                Arg::output(&mut scratch),
                Arg::output(&mut out),
            ];
            launch(
                "faulty_removed_global_barrier",
                [1; 3],
                [N as u32, 1, 1],
                args,
                *schedule,
            )
            .unwrap();
            out.iter().map(|v| v.to_bits()).collect()
        })
        .collect();
    assert_ne!(results[0], results[1]);
    assert_ne!(results[0], results[2]);
}

#[test]
fn shared_memory_is_poisoned_again_for_every_block() {
    let input: Vec<f32> = vec![1.0; 2 * N];
    let mut out = vec![0.0f32; 2 * N];
    let args = &mut [Arg::input(&input), Arg::output(&mut out)];
    let fault = launch(
        "faulty_uninitialised",
        [2, 1, 1],
        [N as u32, 1, 1],
        args,
        Schedule::Forward,
    );
    assert!(fault.unwrap_err().contains("block (0,0,0)"));
}

#[test]
fn threads_that_end_early_and_leave_others_waiting_are_a_fault() {
    let v = input();
    let with = |n: i32| {
        let mut out = vec![0.0f32; N];
        let args = &mut [Arg::input(&v), Arg::output(&mut out), Arg::I32(n)];
        launch(
            "faulty_early_exit",
            [1; 3],
            [N as u32, 1, 1],
            args,
            Schedule::Forward,
        )
    };
    assert_eq!(with(64), Ok(()));
    assert!(
        with(40)
            .unwrap_err()
            .contains("24 threads (first (40,0,0)) have ended")
    );
}

#[test]
fn wrong_launches_are_refused() {
    let v = input();
    let mut out = vec![0.0f32; N];
    let mut with = |name: &str, grid, block, with_both: bool| {
        let mut args = vec![Arg::input(&v)];
        if with_both {
            args.push(Arg::output(&mut out));
        }
        launch(name, grid, block, &mut args, Schedule::Forward).unwrap_err()
    };
    assert!(with("nothing", [1; 3], [64, 1, 1], true).contains("faulty_none"));
    assert!(with("faulty_none", [1; 3], [32, 33, 1], true).contains("1056 threads"));
    assert!(with("faulty_none", [1, 0, 1], [64, 1, 1], true).contains("1 x 0 x 1"));
    assert!(
        with("faulty_none", [1; 3], [64, 1, 1], false).contains("1 arguments, the kernel needs 2")
    );
    let args = &mut [Arg::input(&v), Arg::input(&v)];
    let fault = launch("faulty_none", [1; 3], [64, 1, 1], args, Schedule::Forward).unwrap_err();
    assert!(
        fault.contains("argument 1 is a read-only buffer, the kernel needs a writable buffer"),
        "{fault}"
    );
}

#[test]
fn the_table_knows_what_a_kernel_needs() {
    let find = |name: &str| table().iter().find(|k| k.name == name).unwrap();
    let whiten = find("whiten_c32");
    assert_eq!(
        (whiten.source, whiten.params, whiten.threads),
        ("whiten.cu", "rrwiii", Some(128))
    );
    // A kernel that a macro makes, and one that says nothing of its threads.
    let unfold = find("sense_unfold_r4");
    assert_eq!((unfold.params, unfold.threads), ("rrrrwiiiiif", Some(128)));
    assert_eq!(find("combine_rss_c32").threads, Some(256));
    assert_eq!(find("faulty_none").threads, None);
    assert_ne!(whiten.digest, find("twin_0_whiten_c32").digest);
    let file = |name: &str| {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        std::fs::read_to_string(folder.join(name)).unwrap()
    };
    assert_eq!(
        whiten.digest,
        digest(&file("whiten.cu"), &[&file("common.cuh"), &file("fft.cuh")])
    );
}
