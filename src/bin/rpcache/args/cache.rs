//! The options of `rpcache cache`.

use clap::{Args as Group, Subcommand};

use super::{ArgumentList, Redis, Target};
use crate::values::Pattern;

#[derive(Debug, Group)]
pub(crate) struct Cache {
    #[command(subcommand)]
    pub(crate) action: CacheAction,
}

#[derive(Debug, Subcommand)]
#[command(defer = true)]
pub(crate) enum CacheAction {
    /// Print stored answers; exit code 1 if one is missing
    Get(CacheGet),
    /// List the keys, in no particular order
    Ls(CacheLs),
    /// Print the TTL of stored answers; exit code 1 if one is missing
    Ttl(CacheTtl),
    /// Remove stored answers
    Rm(CacheRm),
    /// Check stored answers; exit code 1 if one is wrong
    Verify(CacheVerify),
    /// Print the number of stored answers, the share of hits, and the workers
    Stats(CacheStats),
    /// Print everything that Redis holds for one argument
    Explain(CacheExplain),
}

#[derive(Debug, Group)]
pub(crate) struct CacheGet {
    #[command(flatten)]
    pub(crate) arguments: ArgumentList,

    /// Print one JSON object per line: `argument`, `answer` (`answer_base64` if it is not UTF-8) or `error`
    #[arg(long)]
    pub(crate) json: bool,

    #[command(flatten)]
    pub(crate) redis: Redis,
}

#[derive(Debug, Group)]
#[command(after_help = "\
Keys of this procedure in this namespace are listed, as Redis finds them. A key that is stored or removed
meanwhile may be missing, and a key may be listed twice.")]
pub(crate) struct CacheLs {
    /// Glob for the argument in the key: '1*', '10?', '[12]0'; a prefix such as 'fib:' may be added
    /// [default: all keys]
    pub(crate) pattern: Option<Pattern>,

    #[command(flatten)]
    pub(crate) target: Target,

    /// Print TTL and size of each, too
    #[arg(short, long)]
    pub(crate) long: bool,

    /// Print one JSON object per line: `key`; with --long `ttl_ms` (null: for ever) and `size` (null: not
    /// a string)
    #[arg(long)]
    pub(crate) json: bool,

    #[command(flatten)]
    pub(crate) redis: Redis,
}

#[derive(Debug, Group)]
pub(crate) struct CacheTtl {
    #[command(flatten)]
    pub(crate) arguments: ArgumentList,

    /// Print one JSON object per line: `argument`, `ttl_ms` (null: for ever) or `error`
    #[arg(long)]
    pub(crate) json: bool,

    #[command(flatten)]
    pub(crate) redis: Redis,
}

#[derive(Debug, Group)]
#[command(after_help = "\
No pattern removes anything but keys of this procedure in this namespace. Leases stay, so an answer that is
being computed is stored afterwards. Clients with --local-cache drop their copies, too.")]
#[expect(clippy::struct_excessive_bools, reason = "flags, as they are typed")]
pub(crate) struct CacheRm {
    /// Arguments; for fib, and with --argument integer: numbers and ranges
    #[arg(required_unless_present_any = ["pattern", "all"], value_name = "ARGUMENT")]
    #[arg(allow_negative_numbers = true)]
    pub(crate) arguments: Vec<String>,

    #[command(flatten)]
    pub(crate) target: Target,

    /// Remove all keys that match, as `ls` lists them; asks first
    #[arg(long, conflicts_with = "arguments")]
    pub(crate) pattern: Option<Pattern>,

    /// Remove all keys of the procedure; asks first
    #[arg(long, conflicts_with_all = ["arguments", "pattern"])]
    pub(crate) all: bool,

    /// Remove without asking
    #[arg(short, long)]
    pub(crate) yes: bool,

    /// Print the keys that would be removed, and remove nothing
    #[arg(long)]
    pub(crate) dry_run: bool,

    /// Print a JSON object with `removed`; with --dry-run one with `key` per line, then `would_remove`
    #[arg(long)]
    pub(crate) json: bool,

    #[command(flatten)]
    pub(crate) redis: Redis,
}

#[derive(Debug, Group)]
#[command(after_help = "\
Each wrong entry is printed with its key and the reason. Calls refuse such entries, too, and compute and
store the answers again. Only answers of fib can be verified. Of another procedure, an entry is wrong if its
key belongs to no argument or its value is not a string.

Exit codes: 0 every entry is right, or the wrong ones were removed; 1 an entry is wrong.")]
pub(crate) struct CacheVerify {
    /// Check N random keys only; above a million keys, they are drawn from a million that follow a
    /// random place
    #[arg(long, value_name = "N")]
    pub(crate) sample: Option<usize>,

    #[command(flatten)]
    pub(crate) target: Target,

    /// Remove wrong entries, unless they have changed meanwhile
    #[arg(long)]
    pub(crate) repair: bool,

    /// Print one JSON object per line: `key`, `wrong`, `message`, `removed`; at last the counts
    #[arg(long)]
    pub(crate) json: bool,

    #[command(flatten)]
    pub(crate) redis: Redis,
}

#[derive(Debug, Group)]
#[command(after_help = "\
Above a hundred thousand keys, the numbers of answers and leases are estimates from a sample of that size.
Hits, misses and evictions are those of the whole Redis, from all its users. Workers are those that have
announced themselves in the last ten seconds.")]
pub(crate) struct CacheStats {
    #[command(flatten)]
    pub(crate) target: Target,

    /// Print one JSON object
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

    /// Print one JSON object
    #[arg(long)]
    pub(crate) json: bool,

    #[command(flatten)]
    pub(crate) redis: Redis,
}
