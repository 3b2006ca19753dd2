//! Closed forms, the golden table of contrasts, orders, timing, and what is refused.

use super::*;

fn tse(f: impl FnOnce(&mut SequenceParams)) -> SequenceParams {
    let mut params = SequenceParams::default();
    f(&mut params);
    params
}

fn near(a: f64, b: f64, tolerance: f64) {
    assert!((a - b).abs() <= tolerance, "{a} is not {b} +- {tolerance}");
}

#[test]
fn echo_trains_have_their_closed_forms() {
    let of = |refocusing_deg: f64| {
        let params = tse(|p| {
            p.refocusing_deg = refocusing_deg;
            p.echo_train_length = 4;
            p.echo_spacing_ms = 10.0;
            p.te_ms = 10.0;
            p.tr_ms = 1e9;
        });
        Train::plan(&params).unwrap().echoes(1000.0, 100.0, 1.0)
    };
    for (e, want) in of(120.0).iter().zip([0.6786, 0.7965, 0.6369, 0.6069]) {
        near(*e, want, 5e-5);
    }
    for (n, e) in of(180.0).iter().enumerate() {
        near(*e, (-0.1 * (n + 1) as f64).exp(), 1e-12);
    }
    for angle in [30.0, 90.0, 150.0f64] {
        near(
            of(angle)[0],
            (angle / 2.0).to_radians().sin().powi(2) * (-0.1f64).exp(),
            1e-12,
        );
    }
}

/// Many at once is one by one, bit for bit.
#[test]
fn lanes_do_not_matter() {
    for params in [tse(|_| ()), tse(|p| p.ti_ms = Some(200.0)), gre()] {
        let train = Train::plan(&params).unwrap();
        let many: Vec<[f64; 3]> = (0..21)
            .map(|i| {
                let x = f64::from(i);
                [200.0 + 190.0 * x, 10.0 + 40.0 * x, 0.8 + 0.02 * x]
            })
            .collect();
        let n = train.n_echoes();
        let mut out = vec![0.0; many.len() * n];
        train.echoes_of_many(&many, &mut out);
        for (c, row) in many.iter().zip(out.chunks(n)) {
            assert_eq!(row, train.echoes(c[0], c[1], c[2]));
        }
    }
}

fn gre() -> SequenceParams {
    tse(|p| {
        p.kind = Kind::Gre;
        p.contrast = Contrast::T2star;
        p.plane = Plane::Axial;
        p.phase = PhaseDirection::AnteriorPosterior;
        p.echo_train_length = 1;
        p.n_echoes = 3;
        p.te_ms = 6.0;
        p.echo_spacing_ms = 6.0;
        p.excitation_deg = 28.0;
        p.tr_ms = 650.0;
    })
}

#[test]
fn gradient_echoes_are_ernsts() {
    let e = Train::plan(&gre()).unwrap().echoes(900.0, 20.0, 1.0);
    let (e1, a) = ((-650.0f64 / 900.0).exp(), 28f64.to_radians());
    let start = a.sin() * (1.0 - e1) / (1.0 - a.cos() * e1);
    for (i, te) in [6.0f64, 12.0, 18.0].iter().enumerate() {
        near(e[i], start * (-te / 20.0).exp(), 1e-12);
    }
    // Ernst's angle is the best.
    let best = e1.acos().to_degrees();
    let at = |deg: f64| {
        let params = SequenceParams {
            excitation_deg: deg,
            ..gre()
        };
        Train::plan(&params).unwrap().echoes(900.0, 20.0, 1.0)[0]
    };
    assert!(at(best) > at(best - 2.0) && at(best) > at(best + 2.0));
}

#[test]
fn inversion_has_its_null_and_its_efficiency() {
    // TI = T1 ln 2 for long TR; the finite one by the closed form, 180 degree pulses leave Mz = 0 nearly.
    let of = |tr: f64, ti: f64, e: f64| {
        let params = tse(|p| {
            p.tr_ms = tr;
            p.ti_ms = Some(ti);
            p.inversion_efficiency = e;
            p.n_slices = 1;
        });
        let train = Train::plan(&params)
            .unwrap()
            .with_recovery(Recovery::Saturated);
        train.echoes(300.0, 80.0, 1.0)[0]
    };
    near(of(1e7, 300.0 * std::f64::consts::LN_2, 1.0), 0.0, 1e-9);
    assert!(of(1e7, 150.0, 1.0) < -0.1 && of(1e7, 250.0, 1.0) > 0.1);
    near(of(1e7, 300.0 * 1.9f64.ln(), 0.9), 0.0, 1e-9);
    let (rest, tr) = (19.0 * 10.4, 1500.0);
    let null = 300.0 * (1.0 + 1.0 - (-(tr - rest - 195.0f64) / 300.0).exp()).ln();
    assert!(of(tr, null, 1.0).abs() < 2e-3);
}

/// Tissues and relative signals of `spine-physics-and-synthesis.md`, 3d and 3e: computed there by another program.
/// PD, FF, T1 at 1.5 T and 3 T, T2; then T1w, T2w, STIR, T2FS at 1.5 T, the same at 3 T.
#[rustfmt::skip]
const GOLDEN: [(&str, [f64; 5], [f64; 8]); 22] = [
    ("csf", [1.0, 0.0, 4200.0, 4300.0, 1600.0], [0.17, 1.0, 1.0, 1.0, 0.18, 1.0, 1.0, 1.0]),
    ("nucleus I-II", [0.75, 0.0, 1100.0, 1300.0, 150.0], [0.38, 0.71, 0.68, 0.80, 0.37, 0.70, 0.67, 0.78]),
    ("nucleus IV", [0.55, 0.0, 650.0, 750.0, 52.0], [0.35, 0.15, 0.19, 0.22, 0.36, 0.16, 0.17, 0.22]),
    ("annulus", [0.52, 0.0, 600.0, 720.0, 48.0], [0.35, 0.12, 0.15, 0.19, 0.34, 0.13, 0.14, 0.19]),
    ("white matter", [0.55, 0.0, 725.0, 876.0, 73.0], [0.35, 0.27, 0.28, 0.34, 0.34, 0.27, 0.27, 0.35]),
    ("grey matter", [0.60, 0.0, 805.0, 973.0, 76.0], [0.36, 0.30, 0.33, 0.39, 0.34, 0.30, 0.33, 0.39]),
    ("nerve root", [0.60, 0.05, 800.0, 960.0, 75.0], [0.37, 0.31, 0.31, 0.37, 0.36, 0.31, 0.31, 0.37]),
    ("muscle", [0.80, 0.12, 1000.0, 1250.0, 38.0], [0.42, 0.17, 0.21, 0.17, 0.40, 0.17, 0.21, 0.17]),
    ("fat", [0.95, 0.95, 900.0, 1100.0, 35.0], [1.0, 0.70, 0.01, 0.08, 1.0, 0.71, 0.01, 0.08]),
    ("marrow young", [0.85, 0.30, 850.0, 1050.0, 38.0], [0.57, 0.28, 0.17, 0.16, 0.56, 0.28, 0.16, 0.16]),
    ("marrow middle", [0.85, 0.42, 850.0, 1050.0, 36.0], [0.63, 0.34, 0.13, 0.13, 0.62, 0.34, 0.12, 0.13]),
    ("marrow old", [0.85, 0.60, 850.0, 1050.0, 32.0], [0.71, 0.42, 0.07, 0.10, 0.71, 0.43, 0.07, 0.10]),
    ("modic 1", [0.85, 0.18, 1200.0, 1400.0, 62.0], [0.47, 0.37, 0.38, 0.35, 0.46, 0.37, 0.37, 0.35]),
    ("modic 2", [0.85, 0.65, 850.0, 1050.0, 45.0], [0.75, 0.49, 0.10, 0.14, 0.75, 0.49, 0.10, 0.14]),
    ("modic 3", [0.30, 0.20, 800.0, 900.0, 15.0], [0.15, 0.05, 0.01, 0.01, 0.15, 0.05, 0.01, 0.01]),
    ("fracture", [0.85, 0.24, 1200.0, 1400.0, 62.0], [0.50, 0.39, 0.35, 0.33, 0.49, 0.39, 0.34, 0.33]),
    ("metastasis", [0.80, 0.05, 1300.0, 1550.0, 50.0], [0.34, 0.22, 0.34, 0.27, 0.33, 0.21, 0.33, 0.27]),
    ("haemangioma", [0.90, 0.75, 1200.0, 1400.0, 110.0], [0.83, 0.68, 0.18, 0.25, 0.83, 0.69, 0.18, 0.25]),
    ("flavum", [0.60, 0.0, 650.0, 780.0, 25.0], [0.31, 0.03, 0.07, 0.05, 0.31, 0.03, 0.07, 0.05]),
    ("facet cartilage", [0.70, 0.0, 1060.0, 1240.0, 37.0], [0.30, 0.09, 0.20, 0.15, 0.29, 0.09, 0.20, 0.15]),
    ("facet fluid", [1.0, 0.0, 2850.0, 3620.0, 767.0], [0.24, 1.18, 1.15, 1.19, 0.21, 1.04, 1.05, 1.06]),
    ("cortex", [0.20, 0.0, 300.0, 300.0, 0.5], [0.0; 8]),
];

#[test]
fn contrasts_are_the_golden_table() {
    let recipe = |tr, te, esp, etl, refocusing, ti| {
        tse(|p| {
            (p.tr_ms, p.te_ms, p.echo_spacing_ms) = (tr, te, esp);
            (p.echo_train_length, p.refocusing_deg, p.ti_ms) = (etl, refocusing, ti);
            p.n_slices = 1;
        })
    };
    let mut worst: f64 = 0.0;
    // A wrong twin: the second echo where the golden table has the first of T1w, and so on.
    let mut late: f64 = 0.0;
    for (field, fat_t1, ti) in [(0, 260.0, 180.0), (1, 350.0, 243.0)] {
        for (column, params, fat_left) in [
            (0, recipe(600.0, 10.0, 10.0, 3, 150.0, None), 1.0),
            (1, recipe(3500.0, 104.0, 10.4, 19, 160.0, None), 1.0),
            (2, recipe(4000.0, 60.0, 10.0, 11, 150.0, Some(ti)), 1.0),
            (3, recipe(3500.0, 83.2, 10.4, 15, 160.0, None), 0.09),
        ] {
            let train = Train::plan(&params)
                .unwrap()
                .with_recovery(Recovery::Saturated);
            let signal = |m: &[f64; 5], echo: usize| {
                let water = train.echoes(m[2 + field], m[4], 1.0)[echo];
                let fat = fat_left * train.echoes(fat_t1, 110.0, 1.0)[echo];
                (m[0] * ((1.0 - m[1]) * water + m[1] * fat)).abs()
            };
            let echo = params.effective_echo();
            let scale = signal(&GOLDEN[if column == 0 { 8 } else { 0 }].1, echo);
            for (name, matter, want) in &GOLDEN {
                let found = signal(matter, echo) / scale;
                let error = (found - want[field * 4 + column]).abs();
                assert!(
                    error <= 0.01,
                    "{name}, field {field}, column {column}: {found:.4}, {want:?}"
                );
                worst = worst.max(error);
                late =
                    late.max((signal(matter, echo + 1) / scale - want[field * 4 + column]).abs());
            }
        }
    }
    println!("golden table: worst {worst:.4}");
    assert!(late > 0.02, "{late}");
}

#[test]
fn suppression_leaves_what_it_should() {
    let left = |method, b1: f64, hz: f64, t1: f64| {
        let params = tse(|p| p.fat.method = method);
        let train = Train::plan(&params).unwrap();
        train
            .fat_peaks(t1, b1, hz)
            .iter()
            .map(|p| p.weight)
            .sum::<f64>()
    };
    near(left(FatMethod::None, 1.0, 0.0, 350.0), 0.999, 1e-9);
    // Olefinic and glycerol peaks stay: 8.7 % and the little one at the edge.
    for method in [FatMethod::Chess, FatMethod::Spair] {
        near(left(method, 1.0, 0.0, 350.0), 0.09, 0.005);
    }
    // 200 Hz off at 3 T CHESS misses the methylene; SPAIR does not mind 200 Hz the other way, nor B1.
    assert!(left(FatMethod::Chess, 1.0, 250.0, 350.0) > 0.6);
    assert!(left(FatMethod::Chess, 0.8, 0.0, 350.0) > 0.3);
    near(left(FatMethod::Spair, 0.8, -250.0, 350.0), 0.05, 0.05);
    assert!(left(FatMethod::Spair, 1.0, 0.0, 300.0) > left(FatMethod::Spair, 1.0, 0.0, 350.0));
    // Water is saturated where the field is wrong by the chemical shift.
    let train = Train::plan(&tse(|p| p.fat.method = FatMethod::Chess)).unwrap();
    near(train.water_left(900.0, 1.0, 0.0), 1.0, 1e-6);
    near(train.water_left(900.0, 1.0, -434.0), 0.0, 1e-3);
    // 1.7 pixels at 3 T and 260 Hz per pixel.
    near(
        train.fat_peaks(350.0, 1.0, 0.0)[1].frequency_hz / 260.0,
        -1.67,
        0.01,
    );
}

#[test]
fn dixon_turns_fat_round() {
    let params = tse(|p| {
        p.fat.method = FatMethod::Dixon;
        p.fat.echo_shifts_ms = vec![0.0, 1.15];
    });
    let train = Train::plan(&params).unwrap();
    let fat = |shift| {
        let t = train.dephasing_ms(shift, 0) * 1e-3;
        train
            .fat_peaks(350.0, 1.0, 0.0)
            .iter()
            .map(|p| p.weight * (std::f64::consts::TAU * p.frequency_hz * t).cos())
            .sum::<f64>()
    };
    near(fat(0), 0.999, 1e-9);
    assert!(fat(1) < -0.6, "{}", fat(1));
    let one = Timing::plan(&tse(|_| ())).unwrap();
    near(
        Timing::plan(&params).unwrap().scan_s,
        2.0 * one.scan_s,
        1e-9,
    );
}

/// Every line that should be is measured once per average and shift, in a shot that has each echo at most once, and the
/// centre on the effective echo.
#[test]
fn orders_hold_what_they_promise() {
    let three_d = |p: &mut SequenceParams| {
        (p.n_partitions, p.n_slices, p.matrix) = (24, 1, [64, 64]);
        (
            p.acceleration.pe1,
            p.acceleration.pe2,
            p.acceleration.caipi_shift,
        ) = (2, 2, 1);
        (p.acceleration.acs_pe1, p.acceleration.acs_pe2) = (12, 8);
        p.phase_oversampling = 0.25;
        p.slice_oversampling = 0.17;
    };
    for (name, params) in [
        ("plain", tse(|_| ())),
        ("r2", tse(|p| p.acceleration.pe1 = 2)),
        (
            "r3 partial",
            tse(|p| {
                (p.acceleration.pe1, p.partial_fourier, p.averages) = (3, 0.7, 2);
            }),
        ),
        ("centric", tse(|p| p.line_order = LineOrder::Centric)),
        (
            "first echo",
            tse(|p| (p.te_ms, p.echo_train_length) = (10.4, 5)),
        ),
        (
            "random",
            tse(|p| {
                p.acceleration.pe1 = 3;
                p.sampling = SamplingParams {
                    kind: SamplingKind::VariableDensity,
                    power: 2.0,
                    seed: 7,
                };
            }),
        ),
        ("3d", tse(three_d)),
        (
            "3d centric",
            tse(|p| {
                three_d(p);
                p.line_order = LineOrder::Centric;
            }),
        ),
        ("gre", gre()),
    ] {
        let order = Order::plan(&params).unwrap();
        let [n1, n2] = params.n_lines();
        let etl = params.echo_train_length;
        assert_eq!(
            order.shots.len(),
            order.n_measured.div_ceil(etl) * params.averages,
            "{name}"
        );
        let mut times = vec![0; n1 * n2];
        for shot in &order.shots {
            assert!(
                shot.lines.windows(2).all(|w| w[0].echo < w[1].echo),
                "{name}"
            );
            for line in &shot.lines {
                assert!(line.echo < etl && (line.is_imaging || line.is_calibration));
                times[line.pe2 * n1 + line.pe1] += 1;
                if (line.pe1, line.pe2) == (n1 / 2, n2 / 2) {
                    assert_eq!(line.echo, params.effective_echo(), "{name}");
                }
            }
        }
        assert!(
            times.iter().all(|t| *t == 0 || *t == params.averages),
            "{name}"
        );
        assert_eq!(
            times.iter().filter(|t| **t > 0).count(),
            order.n_measured,
            "{name}"
        );
        assert!(times[n2 / 2 * n1 + n1 / 2] > 0, "{name}");
        if params.acceleration.pe1 > 1 && n2 == 1 {
            let acs = n1 / 2 - 12..n1 / 2 + 12;
            assert!(acs.into_iter().all(|i| times[i] > 0), "{name}");
        }
    }
    // Equal seeds, equal patterns; another seed, another.
    let random = |seed| {
        Order::plan(&tse(|p| {
            p.acceleration.pe1 = 3;
            p.sampling = SamplingParams {
                kind: SamplingKind::VariableDensity,
                power: 2.0,
                seed,
            };
        }))
        .unwrap()
    };
    assert_eq!(random(1), random(1));
    assert_ne!(random(1), random(2));
}

/// 570 lines, trains of 19, TR 3.5 s: 105 s; R 2 with 24 calibration lines 297 lines and 56 s, R 3 206 and 38.5 s.
#[test]
fn scan_times_are_those_of_the_formula() {
    let of = |r: usize| {
        let params = tse(|p| {
            (p.matrix[1], p.phase_oversampling, p.acceleration.pe1) = (570, 0.0, r);
        });
        Timing::plan(&params).unwrap()
    };
    for (r, n_lines, scan_s) in [(1, 570, 105.0), (2, 297, 56.0), (3, 206, 38.5)] {
        let t = of(r);
        assert_eq!((t.n_lines, t.scan_s), (n_lines, scan_s));
    }
    let twice = tse(|p| (p.n_slices, p.concatenations, p.dummy_shots) = (15, 2, 1));
    let t = Timing::plan(&twice).unwrap();
    near(t.scan_s, 3.5 * 2.0 * (t.n_shots + 1) as f64, 1e-9);
    assert_eq!(t.slices_per_concatenation, 8);
}

#[test]
fn what_is_impossible_is_refused_with_the_nearest() {
    let said = |f: fn(&mut SequenceParams)| Timing::plan(&tse(f)).unwrap_err().to_string();
    for (found, wanted) in [
        (
            said(|p| (p.n_slices, p.concatenations) = (40, 1)),
            "nearest: tr_ms = 8024, or concatenations = 3",
        ),
        (
            said(|p| p.ti_ms = Some(-5.0)),
            "sequence.ti_ms: -5 ms; possible: above 0 and at most 3287.4 ms",
        ),
        (said(|p| p.ti_ms = Some(3400.0)), "at most 3287.4 ms"),
        (
            said(|p| p.matrix = [0, 256]),
            "sequence.matrix: 0; needed: 8 to 4096; nearest: 8",
        ),
        (said(|p| p.te_ms = 100.0), "nearest: 93.6 or 104 ms"),
        (said(|p| p.te_ms = 400.0), "nearest: 197.6 or 197.6 ms"),
        (said(|p| p.echo_train_length = 0), "nearest: 1"),
        (
            said(|p| (p.acceleration.pe1, p.acceleration.acs_pe1) = (2, 600)),
            "nearest: 552",
        ),
        (
            said(|p| p.acceleration.pe1 = 900),
            "sequence.acceleration.pe1: 900; needed: 1 to 276",
        ),
        (
            said(|p| p.bandwidth_hz_per_pixel = 100.0),
            "nearest: bandwidth_hz_per_pixel = 120, or echo_spacing_ms = 12",
        ),
        (said(|p| p.tr_ms = f64::NAN), "sequence.tr_ms: NaN"),
        (said(|p| p.tr_ms = 100.0), "nearest: tr_ms = 3009"),
        (
            said(|p| p.partial_fourier = 0.4),
            "0.51 to 1; nearest: 0.51",
        ),
        (
            said(|p| p.phase = PhaseDirection::LeftRight),
            "not an axis of a Sagittal slice",
        ),
        (said(|p| p.fat.method = FatMethod::Dixon), "needed: 2 to 16"),
        (said(|p| p.averages = 0), "nearest: 1"),
    ] {
        assert!(found.contains(wanted), "{found:?} lacks {wanted:?}");
    }
    // The nearest values are possible.
    for f in [
        (|p| (p.n_slices, p.concatenations, p.tr_ms) = (40, 1, 8024.0)) as fn(&mut SequenceParams),
        |p| (p.n_slices, p.concatenations) = (40, 3),
        |p| p.bandwidth_hz_per_pixel = 120.0,
        |p| (p.bandwidth_hz_per_pixel, p.echo_spacing_ms, p.te_ms) = (100.0, 12.0, 120.0),
        |p| (p.ti_ms, p.n_slices) = (Some(3287.4), 1),
    ] {
        Timing::plan(&tse(f)).unwrap();
    }
}

#[test]
fn worth_follows_time_and_decay() {
    let of = |f: fn(&mut SequenceParams)| Worth::plan(&tse(f), 1.0).unwrap();
    let (one, two) = (of(|_| ()), of(|p| p.averages = 2));
    for (a, b) in one.tissues.iter().zip(&two.tissues) {
        near(b.snr / a.snr, 2f64.sqrt(), 1e-9);
    }
    // Long T2 is as sharp as the pixel, short T2 is not; a train of one blurs nothing.
    let width = |w: &Worth, name: &str| w.tissue(name).unwrap().width_mm / w.pixel_mm[1];
    let whole = of(|p| (p.echo_train_length, p.te_ms, p.echo_spacing_ms) = (1, 10.4, 10.4));
    near(width(&whole, "muscle"), 1.0, 1e-3);
    assert!(width(&one, "muscle") > width(&one, "csf"), "{one:?}");
    for (saving, percent) in [(0.40, 29.0), (0.52, 44.0), (0.54, 47.0), (0.75, 100.0)] {
        near(100.0 * snr_to_win_back(saving), percent, 0.6);
    }
    assert!(Worth::plan(&tse(|_| ()), 0.5).is_err());
}

/// A train by complex phase graphs, state by state, in its steady state of repeated trains: nothing of `epg.rs`.
///
/// `phase_deg` is the refocusing pulses' against CPMG's; without `recovery` nothing returns during a train, only after it.
fn plain_train(
    p: &SequenceParams,
    t1: f64,
    t2: f64,
    phase_deg: f64,
    recovery: bool,
) -> Vec<[f64; 2]> {
    use num_complex::Complex64 as C;
    let n = 2 * p.echo_train_length + 2;
    let half = p.echo_spacing_ms / 2.0;
    let (e1, e2) = ((-half / t1).exp(), (-half / t2).exp());
    // States -n..=n of F, 0..=n of Z.
    let (mut f, mut z) = (vec![C::ZERO; 2 * n + 1], vec![C::ZERO; n + 1]);
    let pulse = |f: &mut Vec<C>, z: &mut Vec<C>, deg: f64, phase: f64| {
        let (a, turn) = (deg.to_radians(), C::from_polar(1.0, phase.to_radians()));
        let (c2, s2, s, c) = (
            (a / 2.0).cos().powi(2),
            (a / 2.0).sin().powi(2),
            a.sin(),
            a.cos(),
        );
        for k in 0..=n {
            let (plus, minus, long) = (f[n + k], f[n - k].conj(), z[k]);
            let i = C::I;
            f[n + k] = plus * c2 + turn * turn * s2 * minus - i * turn * s * long;
            let new =
                turn.conj() * turn.conj() * s2 * plus + minus * c2 + i * turn.conj() * s * long;
            f[n - k] = if k == 0 { f[n] } else { new.conj() };
            z[k] = -i * 0.5 * turn.conj() * s * plus + i * 0.5 * turn * s * minus + long * c;
        }
    };
    let wait = |f: &mut Vec<C>, z: &mut Vec<C>| {
        f.iter_mut().for_each(|v| *v *= e2);
        z.iter_mut().for_each(|v| *v *= e1);
        if recovery {
            z[0] += 1.0 - e1;
        }
        f.rotate_right(1);
        f[0] = C::ZERO;
    };
    let mut echoes = Vec::new();
    z[0] = C::ONE;
    for _ in 0..20 {
        f.fill(C::ZERO);
        z[1..].fill(C::ZERO);
        pulse(&mut f, &mut z, p.excitation_deg, 90.0);
        echoes.clear();
        for _ in 0..p.echo_train_length {
            wait(&mut f, &mut z);
            pulse(&mut f, &mut z, p.refocusing_deg, phase_deg);
            wait(&mut f, &mut z);
            echoes.push([f[n].re, f[n].im]);
        }
        let rest = (-(p.tr_ms - p.echo_train_length as f64 * p.echo_spacing_ms) / t1).exp();
        z[0] = z[0] * rest + 1.0 - rest;
    }
    echoes
}

/// Twins that are what their names say: pulses whose phase is really off, and trains in which nothing returns.
#[test]
fn trains_that_are_not_cpmg_or_do_not_recover_are_others() {
    let params = tse(|p| {
        (p.echo_train_length, p.echo_spacing_ms, p.te_ms) = (12, 10.0, 60.0);
        (p.tr_ms, p.refocusing_deg, p.n_slices) = (600.0, 120.0, 1);
    });
    let train = Train::plan(&params).unwrap();
    for (t1, t2) in [(876.0, 73.0), (350.0, 110.0), (4300.0, 1600.0)] {
        let ours = train.echoes(t1, t2, 1.0);
        let off = |phase: f64, recovery: bool| {
            plain_train(&params, t1, t2, phase, recovery)
                .iter()
                .zip(&ours)
                .map(|([re, im], e)| (re - e).hypot(*im))
                .fold(0.0, f64::max)
        };
        near(off(0.0, true), 0.0, 1e-9);
        assert!(off(90.0, true) > 0.1, "phase {t1}: {}", off(90.0, true));
        assert!(off(0.0, false) > 1e-3, "recovery {t1}: {}", off(0.0, false));
    }
}
