//! F(n) as decimal text, measured against GMP: `scripts/bench fibonacci`.
//!
//! A run alternates between this process and a Python that has gmpy2, so that whatever else the
//! machine does meets both alike, and compares every answer. What counts is the ratio: times of
//! different runs say little. GMP is not linked, only asked.

use std::error::Error;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Instant;

use rpcache::fibonacci::{Fibonacci, N};
use rpcache::{Cancel, Procedure};
use serde_json::{Map, Value, json};

/// What is computed, and how often.
const PLAN: [(u64, usize); 5] = [
    (1000, 1000),
    (10_000, 500),
    (100_000, 200),
    (1_000_000, 40),
    (10_000_000, 10),
];

/// For each line with an n: nanoseconds and F(n).
const GMP: &str = "
import sys, time, gmpy2
print(gmpy2.mp_version(), flush=True)
for line in sys.stdin:
    n = int(line)
    start = time.perf_counter_ns()
    text = str(gmpy2.fib(n))
    print(time.perf_counter_ns() - start, text, flush=True)
";

fn main() -> Result<(), Box<dyn Error>> {
    let options = Options::parse(std::env::args().skip(1))?;
    let mut gmp = Gmp::start(&options.python)?;
    println!(
        "{:>9} {:>9} {:>9} {:>6}  {:<12} {:>9}",
        "n", "ours, ms", "GMP, ms", "ratio", "10 to 90 %", "check, ms"
    );
    let mut runs = Vec::new();
    for (n, rounds) in PLAN {
        let run = Run::measure(n, rounds, &mut gmp)?;
        run.print();
        runs.push(json!({ "n": n, "ours": run.ours, "gmp": run.gmp, "check": run.check }));
    }
    let mut report = options.facts;
    report.insert("gmp".to_owned(), gmp.version.into());
    report.insert("nanoseconds".to_owned(), runs.into());
    if let Some(path) = options.json {
        fs::write(path, format!("{}\n", Value::Object(report)))?;
    }
    Ok(())
}

/// `--python PATH`, `--json PATH` for the raw data, and any number of `--fact NAME=VALUE` to be
/// told in it.
struct Options {
    python: String,
    json: Option<String>,
    facts: Map<String, Value>,
}

impl Options {
    fn parse(mut args: impl Iterator<Item = String>) -> Result<Self, Box<dyn Error>> {
        let mut options = Self {
            python: "python3".to_owned(),
            json: None,
            facts: Map::new(),
        };
        while let Some(option) = args.next() {
            if option == "--bench" {
                continue; // cargo's
            }
            let value = args.next().ok_or("an option without a value")?;
            match option.as_str() {
                "--python" => options.python = value,
                "--json" => options.json = Some(value),
                "--fact" => {
                    let (name, value) = value.split_once('=').ok_or("a fact without a value")?;
                    options.facts.insert(name.to_owned(), value.into());
                }
                _ => return Err(format!("no such option: {option}").into()),
            }
        }
        Ok(options)
    }
}

/// The Python with gmpy2; ends when its input does.
struct Gmp {
    _process: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
    version: String,
}

impl Gmp {
    fn start(python: &str) -> Result<Self, Box<dyn Error>> {
        let mut process = Command::new(python)
            .args(["-c", GMP])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let input = process.stdin.take().ok_or("no pipe")?;
        let mut output = BufReader::new(process.stdout.take().ok_or("no pipe")?);
        let mut version = String::new();
        output.read_line(&mut version)?;
        Ok(Self {
            _process: process,
            input,
            output,
            version: version.trim_end().to_owned(),
        })
    }

    /// Nanoseconds and F(n).
    fn fibonacci(&mut self, n: u64) -> Result<(u64, String), Box<dyn Error>> {
        writeln!(self.input, "{n}")?;
        let mut line = String::new();
        self.output.read_line(&mut line)?;
        let (time, text) = line.trim_end().split_once(' ').ok_or("GMP has ended")?;
        Ok((time.parse()?, text.to_owned()))
    }
}

/// Nanoseconds, round by round.
struct Run {
    n: u64,
    ours: Vec<u64>,
    gmp: Vec<u64>,
    /// Of reading and verifying the answer.
    check: Vec<u64>,
}

impl Run {
    fn measure(n: u64, rounds: usize, gmp: &mut Gmp) -> Result<Self, Box<dyn Error>> {
        let fibonacci = Fibonacci::default().max_n(n);
        let mut run = Self {
            n,
            ours: Vec::new(),
            gmp: Vec::new(),
            check: Vec::new(),
        };
        for _ in 0..rounds {
            let (time, expected) = gmp.fibonacci(n)?;
            run.gmp.push(time);

            let start = Instant::now();
            let answer = fibonacci.compute(&N(n), &Cancel::new())?;
            run.ours.push(nanoseconds(start)?);
            if answer.as_str() != expected {
                return Err(format!("F({n}) is not what GMP says").into());
            }

            let start = Instant::now();
            let believed = fibonacci.verify(&N(n), &expected.parse()?);
            run.check.push(nanoseconds(start)?);
            if !believed {
                return Err(format!("F({n}) is not believed").into());
            }
        }
        Ok(run)
    }

    fn print(&self) {
        let mut ratios: Vec<f64> = self.ours.iter().zip(&self.gmp).map(ratio).collect();
        ratios.sort_by(f64::total_cmp);
        let (ours, gmp) = (median(&self.ours), median(&self.gmp));
        println!(
            "{:>9} {:>9.4} {:>9.4} {:>6.2}  {:<12} {:>9.4}",
            self.n,
            milliseconds(ours),
            milliseconds(gmp),
            ratio((&ours, &gmp)),
            format!(
                "{:.2} to {:.2}",
                ratios[ratios.len() / 10],
                ratios[ratios.len() * 9 / 10]
            ),
            milliseconds(median(&self.check)),
        );
    }
}

fn nanoseconds(start: Instant) -> Result<u64, Box<dyn Error>> {
    Ok(start.elapsed().as_nanos().try_into()?)
}

fn median(times: &[u64]) -> u64 {
    let mut times = times.to_vec();
    times.sort_unstable();
    times[times.len() / 2]
}

#[expect(clippy::cast_precision_loss, reason = "for the eye")]
fn milliseconds(time: u64) -> f64 {
    time as f64 / 1e6
}

fn ratio((ours, gmp): (&u64, &u64)) -> f64 {
    milliseconds(*ours) / milliseconds(*gmp)
}
