//! Tests of the figures and bars of the report.

use super::*;

#[test]
fn each_latency_is_in_one_bin() {
    let mut latency = Histogram::new(3).unwrap();
    for micros in [150, 199, 200, 700, 2100, 2200] {
        latency.record(micros * 1000).unwrap();
    }
    let bins: Vec<_> = bins(&latency)
        .into_iter()
        .map(|bin| (bin.up_to_ms, bin.count))
        .collect();
    assert_eq!(bins, [(0.2, 2), (0.5, 1), (1.0, 1), (2.0, 0), (5.0, 2)]);
}

#[test]
fn a_run_without_latencies_has_no_bins() {
    assert!(bins(&Histogram::new(3).unwrap()).is_empty());
    assert_eq!(percent(0, 0), "0.00 %");
}

#[test]
fn a_bar_is_proportional_and_never_invisible() {
    assert_eq!(bar(2.5), "██▌");
    assert_eq!(bar(0.0001), "▏");
    assert_eq!(bar(0.0), "");
}

#[test]
fn a_small_share_is_not_shown_as_0() {
    assert_eq!(percent(1, 1_000_000), "< 0.01 %");
    assert_eq!(percent(1, 3), "33.33 %");
}
