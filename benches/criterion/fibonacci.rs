//! The built-in procedure: computing by each algorithm, checking, reading and writing.

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion};
use rpcache::fibonacci::{Algorithm, Decimal, Fibonacci, N};
use rpcache::{Cancel, Procedure as _};

/// The largest that additions are measured with: beyond, they take seconds.
const FEW: u64 = 10_000;
const SIZES: [u64; 4] = [30, 1000, FEW, 1_000_000];

pub(crate) fn measure(criterion: &mut Criterion) {
    let cancel = Cancel::new();
    let compute = |fibonacci: &Fibonacci, n| fibonacci.compute(&N(n), &cancel).expect("F(n)");

    let mut group = criterion.benchmark_group("compute");
    for algorithm in [
        Algorithm::Doubling,
        Algorithm::Iterative,
        Algorithm::Memoized,
    ] {
        // One for all rounds: what is memoized is there from the second on.
        let fibonacci = Fibonacci::new(algorithm);
        let most = if algorithm == Algorithm::Iterative {
            FEW
        } else {
            u64::MAX
        };
        for n in SIZES.into_iter().filter(|&n| n <= most) {
            group.bench_function(BenchmarkId::new(algorithm.to_string(), n), |bencher| {
                bencher.iter(|| compute(&fibonacci, black_box(n)));
            });
        }
    }
    group.finish();

    let fibonacci = Fibonacci::default();
    for n in SIZES {
        let answer = compute(&fibonacci, n);
        let text = answer.to_string();
        let mut group = criterion.benchmark_group("answer");
        group.bench_function(BenchmarkId::new("verify", n), |bencher| {
            bencher.iter(|| assert!(fibonacci.verify(&N(n), black_box(&answer))));
        });
        group.bench_function(BenchmarkId::new("read", n), |bencher| {
            bencher.iter(|| black_box(&text).parse::<Decimal>().expect("digits"));
        });
        group.bench_function(BenchmarkId::new("write", n), |bencher| {
            bencher.iter(|| black_box(&answer).to_string());
        });
        group.finish();
    }

    let mut group = criterion.benchmark_group("argument");
    group.bench_function("read", |bencher| {
        bencher.iter(|| black_box("1000000").parse::<N>().expect("a number"));
    });
    group.bench_function("write", |bencher| {
        bencher.iter(|| black_box(N(1_000_000)).to_string());
    });
    group.finish();
}
