//! Closed forms, golden tables, what is refused.

use super::*;

#[test]
fn closed_forms() {
    // sin²(60°) exp(-0.1), and the next echoes of a 120 degree train: T1 1000, T2 100, ESP 10.
    let params = SequenceParams {
        refocusing_deg: 120.0,
        echo_train_length: 4,
        echo_spacing_ms: 10.0,
        te_ms: 10.0,
        tr_ms: 1e9,
        ..SequenceParams::default()
    };
    let train = Train::plan(&params).unwrap();
    let echoes = train.echoes(1000.0, 100.0, 1.0);
    for (e, want) in echoes.iter().zip([0.6786, 0.7965, 0.6369, 0.6069]) {
        assert!((e - want).abs() < 5e-5, "{echoes:?}");
    }
}
