//! The command line of `scripts/chaos`, and the arguments with which the driver starts itself as a client or
//! as a crasher.

use std::path::PathBuf;
use std::time::Duration;

use clap::builder::ArgPredicate;
use clap::{
    Args as Group, CommandFactory as _, FromArgMatches as _, Parser, Subcommand, ValueEnum as _,
};

use crate::cluster::ClusterFault;
use crate::fault::{FAULTS, Fault, Selection, Topology};
use crate::plan;

/// Inject faults into workers, broker and Redis while clients call, and check every answer
#[derive(Debug, Parser)]
#[command(name = "scripts/chaos", max_term_width = 100)]
pub(crate) struct Args {
    #[command(subcommand)]
    pub(crate) role: Option<Role>,

    /// Seed of the faults and of the load: the same seed gives the same plan [default: random]
    #[arg(long)]
    pub(crate) seed: Option<u64>,

    /// How long to run, in minutes
    #[arg(long, value_name = "M", conflicts_with = "seconds")]
    minutes: Option<f64>,

    /// How long to run, in seconds
    #[arg(long, value_name = "N", default_value_t = 60.0)]
    seconds: f64,

    /// Instead of the campaign: one fault of a cluster of three RabbitMQ nodes, and what it costs. 3 workers,
    /// 2 clients at 100 calls a second, half of them hits
    #[arg(long, value_name = "FAULT")]
    pub(crate) cluster: Option<ClusterFault>,

    /// With --cluster or --fleet: when a silent node is taken for dead, in seconds
    #[arg(long, value_name = "S", default_value_t = 10)]
    pub(crate) net_ticktime: u32,

    /// With --cluster: how long the fault lasts, in seconds
    #[arg(long, value_name = "S", default_value_t = 20)]
    pub(crate) lasts: u64,

    /// With --cluster: what each call may take, in milliseconds
    #[arg(long, value_name = "MS", default_value_t = 10_000)]
    pub(crate) timeout_ms: u64,

    /// Three RabbitMQ nodes and several Redis servers instead of one each: a cluster of three primaries and three
    /// replicas, or a primary, two replicas and three Sentinels
    #[arg(long, value_name = "REDIS", num_args = 0..=1, default_missing_value = "cluster", conflicts_with = "cluster")]
    fleet: Option<Topology>,

    /// Faults to inject: names, workers, broker, redis, all or none, separated by commas
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

    /// Print which fault would be injected when, and exit
    #[arg(long)]
    pub(crate) plan: bool,

    /// Worker processes; the first one is never killed or stopped
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
    #[arg(
        long,
        value_name = "N",
        default_value_t = 64,
        default_value_if("fleet", ArgPredicate::IsPresent, "1500")
    )]
    pub(crate) callers: u32,

    /// Maximum calls a second of each client; 0: no limit
    #[arg(
        long,
        value_name = "N",
        default_value_t = 800,
        default_value_if("fleet", ArgPredicate::IsPresent, "100")
    )]
    pub(crate) rate: u32,

    /// Percentage of calls for one of the 500 hot arguments
    #[arg(long, value_name = "SHARE", default_value_t = 80.0)]
    pub(crate) hits: f64,

    /// Percentage of calls to a procedure that panics, or aborts its worker, for some arguments
    #[arg(long, value_name = "SHARE", default_value_t = 1.0)]
    pub(crate) crashers: f64,

    /// TTL of answers, in milliseconds: short, so that there are misses all the time
    #[arg(long, value_name = "MS", default_value_t = 10_000)]
    pub(crate) ttl_ms: u64,
}

impl Load {
    /// The options that say the same.
    pub(crate) fn options(&self) -> Vec<String> {
        let Self {
            callers,
            rate,
            hits,
            crashers,
            ttl_ms,
        } = self;
        let options = format!(
            "--callers {callers} --rate {rate} --hits {hits} --crashers {crashers} --ttl-ms {ttl_ms}"
        );
        options.split(' ').map(str::to_owned).collect()
    }
}

#[derive(Debug, Subcommand)]
pub(crate) enum Role {
    #[command(hide = true)]
    Client(ClientArgs),
    #[command(hide = true)]
    Crasher(CrasherArgs),
}

#[derive(Debug, Clone, Parser)]
pub(crate) struct CrasherArgs {
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
    pub(crate) crashers: f64,
    #[arg(long)]
    pub(crate) ttl_ms: u64,
    /// Of every call; without: drawn.
    #[arg(long)]
    pub(crate) timeout_ms: Option<u64>,
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
            topology: self.topology(),
            faults: &self.selected(),
            workers: self.workers as usize,
            apart: self.apart,
        })
    }

    pub(crate) fn topology(&self) -> Topology {
        self.fleet.unwrap_or(Topology::Single)
    }

    /// The faults of the run.
    pub(crate) fn selected(&self) -> Vec<Fault> {
        self.faults.of(self.topology())
    }

    /// The command that repeats the run.
    pub(crate) fn again(&self, seed: u64) -> String {
        format!(
            "scripts/chaos{} --seed {seed} --seconds {} --faults {}{} --workers {} --clients {} {}",
            match self.fleet.and_then(|fleet| fleet.to_possible_value()) {
                Some(fleet) => format!(" --fleet {}", fleet.get_name()),
                None => String::new(),
            },
            self.length().as_secs_f64(),
            self.faults,
            if self.apart { " --apart" } else { "" },
            self.workers,
            self.clients,
            self.load.options().join(" ")
        )
    }

    pub(crate) fn length(&self) -> Duration {
        Duration::from_secs_f64(self.minutes.map_or(self.seconds, |minutes| minutes * 60.0))
    }
}
