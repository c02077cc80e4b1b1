//! `rpcache cache`, as typed.

use clap::{Args as Group, Subcommand};
use rpcache::inspect::KeyPattern;

use super::{Redis, Target};

#[derive(Debug, Group)]
pub(crate) struct Cache {
    #[command(subcommand)]
    pub(crate) action: CacheAction,
}

#[derive(Debug, Subcommand)]
#[command(defer = true)]
pub(crate) enum CacheAction {
    /// Print stored answers; exit code 1 if one is not there
    Get(CacheGet),
    /// List the keys, in no order
    Ls(CacheLs),
    /// Print how long stored answers have to live; exit code 1 if one is not there
    Ttl(CacheTtl),
    /// Remove stored answers
    Rm(CacheRm),
    /// Check what is stored; exit code 1 if something is wrong
    Verify(CacheVerify),
    /// How much is stored, how well it serves, who works
    Stats(CacheStats),
    /// All that Redis knows about one argument
    Explain(CacheExplain),
}

#[derive(Debug, Group)]
pub(crate) struct CacheGet {
    /// Arguments; for fib, and with --argument integer: numbers and ranges
    #[arg(
        required = true,
        value_name = "ARGUMENT",
        allow_negative_numbers = true
    )]
    pub(crate) arguments: Vec<String>,

    #[command(flatten)]
    pub(crate) target: Target,

    /// One JSON object a line: `argument`, `answer` (`answer_base64` if it is not UTF-8) or `error`
    #[arg(long)]
    pub(crate) json: bool,

    #[command(flatten)]
    pub(crate) redis: Redis,
}

#[derive(Debug, Group)]
#[command(after_help = "\
Only this namespace's keys of the procedure are listed, each as soon as Redis has found it. One that is
stored or removed meanwhile may be left out, and one may be listed twice.")]
pub(crate) struct CacheLs {
    /// Only these, as a glob for what is behind `fib:`: '1*', '10?', '[12]0'
    pub(crate) pattern: Option<KeyPattern>,

    #[command(flatten)]
    pub(crate) target: Target,

    /// How long each has to live, and its bytes
    #[arg(short, long)]
    pub(crate) long: bool,

    /// One JSON object a line: `key`; with --long `ttl_ms` (null: for ever) and `size` (null: it is
    /// no string)
    #[arg(long)]
    pub(crate) json: bool,

    #[command(flatten)]
    pub(crate) redis: Redis,
}

#[derive(Debug, Group)]
pub(crate) struct CacheTtl {
    /// Arguments; for fib, and with --argument integer: numbers and ranges
    #[arg(
        required = true,
        value_name = "ARGUMENT",
        allow_negative_numbers = true
    )]
    pub(crate) arguments: Vec<String>,

    #[command(flatten)]
    pub(crate) target: Target,

    /// One JSON object a line: `argument`, `ttl_ms` (null: for ever) or `error`
    #[arg(long)]
    pub(crate) json: bool,

    #[command(flatten)]
    pub(crate) redis: Redis,
}

#[derive(Debug, Group)]
#[command(after_help = "\
Nothing but this namespace's keys of the procedure is removed, by any pattern. Leases stay: what is being
computed is stored when it is done. Clients with --local-cache drop their copies, too.")]
#[expect(clippy::struct_excessive_bools, reason = "flags, as they are typed")]
pub(crate) struct CacheRm {
    /// Arguments; for fib, and with --argument integer: numbers and ranges
    #[arg(required_unless_present_any = ["pattern", "all"], value_name = "ARGUMENT")]
    #[arg(allow_negative_numbers = true)]
    pub(crate) arguments: Vec<String>,

    #[command(flatten)]
    pub(crate) target: Target,

    /// All that match, as `ls` lists them; asks first
    #[arg(long, conflicts_with = "arguments")]
    pub(crate) pattern: Option<KeyPattern>,

    /// All of them; asks first
    #[arg(long, conflicts_with_all = ["arguments", "pattern"])]
    pub(crate) all: bool,

    /// Do not ask
    #[arg(short, long)]
    pub(crate) yes: bool,

    /// Print the keys, and remove nothing
    #[arg(long)]
    pub(crate) dry_run: bool,

    /// `removed` as a JSON object; with --dry-run one with a `key` a line, then `would_remove`
    #[arg(long)]
    pub(crate) json: bool,

    #[command(flatten)]
    pub(crate) redis: Redis,
}

#[derive(Debug, Group)]
#[command(after_help = "\
Each wrong entry is printed: its key, and what is wrong. Calls refuse it as well, and compute and
store it again. Answers can be checked for fib alone: of another procedure, an entry is wrong if its key
is no argument's or its value is no string.

Exit codes: 0 all is right, or was removed; 1 something is wrong.")]
pub(crate) struct CacheVerify {
    /// Only so many, drawn at random: from all keys up to a million, else from a million of them
    /// from a random place on
    #[arg(long, value_name = "N")]
    pub(crate) sample: Option<usize>,

    #[command(flatten)]
    pub(crate) target: Target,

    /// Remove what is wrong, unless it has changed meanwhile
    #[arg(long)]
    pub(crate) repair: bool,

    /// One JSON object a line: `key`, `wrong`, `message`, `removed`; at the end the counts
    #[arg(long)]
    pub(crate) json: bool,

    #[command(flatten)]
    pub(crate) redis: Redis,
}

#[derive(Debug, Group)]
#[command(after_help = "\
Above a hundred thousand keys, answers and leases are estimated from as many. Hits, misses and
evictions are all of this Redis, whoever caused them. Workers have told of themselves in the last
ten seconds.")]
pub(crate) struct CacheStats {
    #[command(flatten)]
    pub(crate) target: Target,

    /// One JSON object
    #[arg(long)]
    pub(crate) json: bool,

    #[command(flatten)]
    pub(crate) redis: Redis,
}

#[derive(Debug, Group)]
pub(crate) struct CacheExplain {
    /// The argument
    #[arg(value_name = "ARGUMENT", allow_negative_numbers = true)]
    pub(crate) argument: String,

    #[command(flatten)]
    pub(crate) target: Target,

    /// One JSON object
    #[arg(long)]
    pub(crate) json: bool,

    #[command(flatten)]
    pub(crate) redis: Redis,
}
