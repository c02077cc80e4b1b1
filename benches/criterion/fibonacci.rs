//! The built-in procedure: verifying, reading and writing answers, and computing cheap ones.

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion};
use rpcache::fibonacci::{Algorithm, Decimal, Fibonacci, N};
use rpcache::{Cancel, Procedure as _};

const CHEAP: u64 = 1000;
const SIZES: [u64; 4] = [30, CHEAP, 10_000, 1_000_000];

pub(crate) fn measure(criterion: &mut Criterion) {
    let cancel = Cancel::new();
    let compute = |fibonacci: &Fibonacci, n| fibonacci.compute(&N(n), &cancel).expect("F(n)");

    // The largest n that a worker computes at once, without a lease.
    let mut group = criterion.benchmark_group("compute");
    for algorithm in [
        Algorithm::Doubling,
        Algorithm::Iterative,
        Algorithm::Memoized,
    ] {
        let fibonacci = Fibonacci::new(algorithm);
        assert!(fibonacci.is_cheap(&N(CHEAP)));
        group.bench_function(BenchmarkId::new(algorithm.to_string(), CHEAP), |bencher| {
            bencher.iter(|| compute(&fibonacci, black_box(CHEAP)));
        });
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
