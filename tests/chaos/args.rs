//! What can be typed, and what the driver types when it starts itself in another role.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args as Group, CommandFactory as _, FromArgMatches as _, Parser, Subcommand};

use crate::fault::{FAULTS, Selection};
use crate::plan;

/// Faults for workers, broker and Redis while clients call, and an oracle that knows every answer.
#[derive(Debug, Parser)]
#[command(name = "scripts/chaos", max_term_width = 100)]
pub(crate) struct Args {
    #[command(subcommand)]
    pub(crate) role: Option<Role>,

    /// What all is drawn from: the same seed strikes the same way [default: drawn]
    #[arg(long)]
    pub(crate) seed: Option<u64>,

    /// How long to run, in minutes
    #[arg(long, value_name = "M", conflicts_with = "seconds")]
    minutes: Option<f64>,

    /// How long to run, in seconds
    #[arg(long, value_name = "N", default_value_t = 60.0)]
    seconds: f64,

    /// Which faults: names, workers, broker, redis, all or none, with commas between
    #[arg(long, value_name = "LIST", default_value = "all")]
    pub(crate) faults: Selection,

    /// One fault at a time in the whole fleet, with time to recover after each
    #[arg(long)]
    pub(crate) apart: bool,

    /// Where to write the report as JSON
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,

    /// Keep the logs of workers and clients in this folder
    #[arg(long, value_name = "DIR")]
    pub(crate) logs: Option<PathBuf>,

    /// Print which fault would strike when, and end
    #[arg(long)]
    pub(crate) plan: bool,

    /// Worker processes; the first is spared worker faults
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=64))]
    pub(crate) workers: u32,

    /// Client processes
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=64))]
    pub(crate) clients: u32,

    #[command(flatten)]
    pub(crate) load: Load,
}

/// What each client does.
#[derive(Debug, Clone, Group)]
pub(crate) struct Load {
    /// Callers in each client
    #[arg(long, value_name = "N", default_value_t = 64)]
    pub(crate) callers: u32,

    /// Calls a second of each client at most; 0: as fast as answers come
    #[arg(long, value_name = "N", default_value_t = 800)]
    pub(crate) rate: u32,

    /// Of a hundred calls, how many ask for one of the 500 hot arguments
    #[arg(long, value_name = "SHARE", default_value_t = 80.0)]
    pub(crate) hits: f64,

    /// Of a hundred calls, how many go to a procedure that panics, or kills its worker, for some
    #[arg(long, value_name = "SHARE", default_value_t = 1.0)]
    pub(crate) traps: f64,

    /// How long answers are kept, in milliseconds: so misses never end
    #[arg(long, value_name = "MS", default_value_t = 10_000)]
    pub(crate) ttl_ms: u64,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Role {
    #[command(hide = true)]
    Client(ClientArgs),
    #[command(hide = true)]
    Trap(TrapArgs),
}

#[derive(Debug, Clone, Parser)]
pub(crate) struct TrapArgs {
    #[arg(long)]
    pub(crate) amqp_url: String,
    #[arg(long)]
    pub(crate) redis_url: String,
    #[arg(long)]
    pub(crate) ttl_ms: u64,
}

#[derive(Debug, Clone, Parser)]
pub(crate) struct ClientArgs {
    #[arg(long)]
    pub(crate) amqp_url: String,
    #[arg(long)]
    pub(crate) redis_url: String,
    #[arg(long)]
    pub(crate) oracle: PathBuf,
    #[arg(long)]
    pub(crate) seed: u64,
    #[arg(long)]
    pub(crate) callers: u32,
    #[arg(long)]
    pub(crate) rate: u32,
    #[arg(long)]
    pub(crate) hits: f64,
    #[arg(long)]
    pub(crate) traps: f64,
    #[arg(long)]
    pub(crate) ttl_ms: u64,
}

impl Args {
    pub(crate) fn parse_with_help() -> Self {
        let names = FAULTS.map(|about| format!("  {:<23} {}\n", about.name, about.what));
        let help = format!(
            "Faults:\n{}\nExit code 1: a call was wrong, lost or late, or something leaked.",
            names.concat()
        );
        let matches = Self::command().after_help(help).get_matches();
        Self::from_arg_matches(&matches).unwrap_or_else(|error| error.exit())
    }

    pub(crate) fn plan(&self, seed: u64) -> Vec<Vec<plan::Event>> {
        plan::plan(&plan::Run {
            seed,
            length: self.length(),
            faults: &self.faults.0,
            workers: self.workers as usize,
            apart: self.apart,
        })
    }

    /// The command that repeats the run.
    pub(crate) fn again(&self, seed: u64) -> String {
        let Load {
            callers,
            rate,
            hits,
            traps,
            ttl_ms,
        } = &self.load;
        format!(
            "scripts/chaos --seed {seed} --seconds {} --faults {}{} --workers {} --clients {} --callers {callers} --rate {rate} --hits {hits} --traps {traps} --ttl-ms {ttl_ms}",
            self.length().as_secs_f64(),
            self.faults,
            if self.apart { " --apart" } else { "" },
            self.workers,
            self.clients
        )
    }

    pub(crate) fn length(&self) -> Duration {
        Duration::from_secs_f64(self.minutes.map_or(self.seconds, |minutes| minutes * 60.0))
    }
}
