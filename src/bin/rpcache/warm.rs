//! `rpcache warm`: computes and stores the answers that are missing, and prints how many.

use std::io::{self, Write as _};
use std::time::Instant;

use futures_util::StreamExt as _;
use rpcache::{Answered, Client, Error, Source};
use serde::Serialize;

use crate::args;
use crate::input::{self, Inputs, Label};
use crate::output::Failure;
use crate::progress::Progress;

/// Counts of the outcomes. Each argument is counted once.
#[derive(Debug, Default, Serialize)]
struct Summary {
    asked: u64,
    /// Were in the cache before.
    found: u64,
    /// Are in the cache now.
    stored: u64,
    /// Were answered, but Redis does not have them.
    not_stored: u64,
    failed: u64,
    seconds: f64,
}

pub(crate) async fn run(warm: args::Warm) -> Result<(), Failure> {
    let started = Instant::now();
    let json = warm.json;
    let options = warm.call_options();
    let inputs = warm.arguments.inputs()?;
    let mut progress = Progress::new(inputs.count());
    let Inputs { called, inputs } = inputs;
    let arguments = input::parsed(called.form(), inputs);
    let client = Client::new(called, warm.client_options());
    let mut summary = Summary::default();
    let mut first_failure = Ok(());
    let warm_all = async {
        let mut answers = std::pin::pin!(client.call_many(arguments, options));
        while let Some((label, ended)) = answers.next().await {
            progress.count(&ended);
            if let Err(failure) = summary.count(&label, ended) {
                let reported = progress.suspend(|| failure.print());
                first_failure = std::mem::replace(&mut first_failure, Ok(())).and(Err(reported));
            }
        }
    };
    let ended = tokio::select! {
        () = warm_all => Ok(()),
        Ok(()) = tokio::signal::ctrl_c() => Err(Failure::interrupted()),
    };
    progress.end();
    client.close().await;
    summary.seconds = (started.elapsed().as_secs_f64() * 1e3).round() / 1e3;
    summary.print(json)?;
    ended.and(first_failure)
}

impl Summary {
    fn count<A>(
        &mut self,
        label: &Label,
        ended: Result<Answered<A>, Error>,
    ) -> Result<(), Failure> {
        self.asked += 1;
        match ended {
            Ok(answered) if answered.source == Source::Cache && answered.stored => self.found += 1,
            Ok(answered) if answered.stored => self.stored += 1,
            Ok(_) => {
                self.not_stored += 1;
                return Err(Failure::new(
                    1,
                    format!("{label}: answered, but not stored"),
                ));
            }
            Err(error) => {
                self.failed += 1;
                return Err(Failure::of_input(label, error));
            }
        }
        Ok(())
    }

    fn print(&self, json: bool) -> io::Result<()> {
        let mut out = io::stdout().lock();
        if json {
            serde_json::to_writer(&mut out, self)?;
            return writeln!(out);
        }
        write!(
            out,
            "{} were in the cache, {} were stored",
            self.found, self.stored
        )?;
        if self.not_stored > 0 {
            write!(out, ", {} could not be stored", self.not_stored)?;
        }
        if self.failed > 0 {
            write!(out, ", {} failed", self.failed)?;
        }
        writeln!(out, "; {:.1} s", self.seconds)
    }
}
