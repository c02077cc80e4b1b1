//! Ends a command: prints a failure as one line on stderr with its remedy, and chooses the exit code.

use std::fmt::Write as _;
use std::io::{self, IsTerminal as _, Write as _};
use std::process::ExitCode;

use clap::CommandFactory as _;
use clap::error::{ContextKind, ErrorKind};
use rpcache::tls::TlsFault;
use rpcache::{Error, ErrorCode};

use crate::args::Args;
use crate::input::Label;
use crate::procedure::integers;
use crate::stderr;

/// Why the command fails: a line for stderr, and the exit code.
#[derive(Debug)]
pub(crate) struct Failure {
    code: u8,
    /// Empty: nothing is printed.
    message: String,
}

impl Failure {
    pub(crate) fn interrupted() -> Self {
        Self::new(130, "interrupted")
    }

    pub(crate) fn no_runtime(error: &io::Error) -> Self {
        Self::new(1, format!("cannot start: {error}"))
    }

    pub(crate) fn new(code: u8, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
        }
    }

    /// The failure of one of several inputs. Exit code 2 for a line of stdin that is not an argument.
    pub(crate) fn of_input(label: &Label, error: Error) -> Self {
        let failure = Self::from(error);
        let code = match label {
            Label::Argument(_) => failure.code,
            Label::Line(_) => 2,
        };
        Self::new(code, format!("{label}: {}", failure.message))
    }

    /// Whether a server is the cause: it is down, refuses, or does not answer in time.
    pub(crate) fn is_of_a_server(&self) -> bool {
        matches!(self.code, 3 | 124)
    }

    /// The line to print, if any.
    pub(crate) fn message(&self) -> Option<&str> {
        Some(&*self.message).filter(|message| !message.is_empty())
    }

    /// This exit code alone, when the message has been printed.
    pub(crate) fn without_message(self) -> Self {
        Self {
            message: String::new(),
            ..self
        }
    }

    /// Prints the message now, and keeps the exit code for later.
    pub(crate) fn print(self) -> Self {
        if let Some(message) = self.message() {
            // Where stderr cannot be written, there is no other place for it.
            let _ = writeln!(stderr::direct(), "rpcache: {message}");
        }
        self.without_message()
    }

    /// Prints the message, and becomes the exit code.
    pub(crate) fn report(self) -> ExitCode {
        ExitCode::from(self.print().code)
    }
}

/// A failure to write to stdout. A reader that closed the pipe (`| head`) ends the command with 0.
impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        if error.kind() == io::ErrorKind::BrokenPipe {
            Self::new(0, "")
        } else {
            Self::new(1, format!("cannot write to stdout: {error}"))
        }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let code = match &error {
            Error::Deadline { .. } => 124,
            Error::Failed { .. } | Error::WrongAnswer { .. } => 1,
            _ => 3,
        };
        let mut message = error.to_string().trim_end_matches('.').to_owned();
        if let Some(remedy) = remedy(&error) {
            // Writing to a String cannot fail.
            let _ = write!(message, "; {remedy}");
        }
        Self { code, message }
    }
}

/// Remedy for a Unix socket that cannot be connected to.
pub(crate) const UNIX_SOCKET: &str =
    "is Redis running, with `unixsocket` set to this path, and may this user write to it?";

fn is_amqp(server: &str) -> bool {
    server.starts_with("amqp")
}

/// What the user can do about an error.
fn remedy(error: &Error) -> Option<String> {
    let remedy = match error {
        Error::Unreachable { server, .. } if server.contains("unix://") => UNIX_SOCKET,
        Error::Unreachable { server, .. } if is_local(server) => {
            "is it running? `scripts/services up` or `docker compose up -d` starts the servers"
        }
        Error::Tls { server, fault } => return tls_remedy(fault, !is_amqp(server)),
        Error::Refused { reason, .. } if reason.contains("channel_max") => {
            "set channel_max in the broker's rabbitmq.conf, and none in --amqp-url (AMQP_URL)"
        }
        Error::Refused { reason, .. } if reason.contains("DB index is out of range") => {
            "the number of the database in --redis-url (REDIS_URL) is out of range: `redis-cli CONFIG GET \
             databases` says how many there are"
        }
        Error::Unreachable { server, .. } | Error::Refused { server, .. } => {
            if is_amqp(server) {
                "check --amqp-url (AMQP_URL): host, user, password, vhost, and the user's rights there"
            } else {
                "check --redis-url (REDIS_URL): host, user, password, and the user's rights there"
            }
        }
        Error::NoWorkers { queue } if queue == "rpc_queue" => "start a worker: rpcache worker",
        Error::NoWorkers { queue } if queue.starts_with("rpc_queue.") => {
            let procedure = queue.trim_start_matches("rpc_queue.");
            return Some(format!(
                "start a worker that serves {procedure}; any program can: rpcache worker --procedure {procedure} -- \
                 COMMAND"
            ));
        }
        Error::NoWorkers { queue } => {
            return Some(format!("start a worker: rpcache worker --queue {queue}"));
        }
        Error::Deadline { .. } => "--timeout gives it longer",
        Error::Overloaded { .. } => "try again later",
        Error::WrongAnswer { .. } => "does another program serve this queue?",
        Error::Failed {
            code: ErrorCode::TooLarge,
            message,
        } => raised_limit(message),
        _ => return None,
    };
    Some(remedy.to_owned())
}

/// The limit that an answer exceeds, by the message of the worker.
fn raised_limit(message: &str) -> &'static str {
    if message.starts_with("n is limited to") {
        "the worker's --max-n raises the limit"
    } else if message.contains("this worker sends") {
        "the worker's --max-reply-size raises the limit"
    } else if message.contains("the broker takes") {
        "max_message_size in the broker's rabbitmq.conf raises the limit"
    } else {
        "the limit is the worker's --max-n or --max-reply-size, or the broker's max_message_size"
    }
}

/// Whether stdout shows colours, and `NO_COLOR` is not set: see <https://no-color.org>.
pub(crate) fn is_coloured() -> bool {
    let no_color = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    has_a_screen() && !no_color
}

/// Whether stdout is a terminal with a movable cursor.
pub(crate) fn has_a_screen() -> bool {
    let dumb = std::env::var_os("TERM").is_none_or(|term| term == "dumb");
    io::stdout().is_terminal() && !dumb
}

/// What the user can do about a fault of TLS.
pub(crate) fn tls_remedy(fault: &TlsFault, is_redis: bool) -> Option<String> {
    let (url, scheme, port) = if is_redis {
        ("--redis-url (REDIS_URL)", "rediss://", "its tls-port")
    } else {
        ("--amqp-url (AMQP_URL)", "amqps://", "5671 by default")
    };
    Some(match fault {
        TlsFault::UnknownIssuer { .. } => {
            "--tls-ca (RPCACHE_TLS_CA) names the CA that signed it".to_owned()
        }
        TlsFault::WrongName { .. } => {
            format!(
                "write a name that the certificate has in {url}, or have one made for this name"
            )
        }
        TlsFault::Expired { .. } => "have it renewed on the server".to_owned(),
        TlsFault::NotYetValid { .. } => {
            "is the clock right, here and where it was made?".to_owned()
        }
        TlsFault::NotSpoken => {
            format!("correct the port in {url}: where the server speaks TLS is {port}")
        }
        TlsFault::Expected => format!("write {scheme} in {url}"),
        TlsFault::ClientCertificateMissing => {
            "--tls-cert (RPCACHE_TLS_CERT) and --tls-key (RPCACHE_TLS_KEY) name one".to_owned()
        }
        TlsFault::ClientCertificateRefused(_) => {
            "--tls-cert (RPCACHE_TLS_CERT) must be one that the server's CA has signed".to_owned()
        }
        TlsFault::NoTrust(_) => "--tls-ca (RPCACHE_TLS_CA) names one".to_owned(),
        _ => return None,
    })
}

pub(crate) fn is_local(server: &str) -> bool {
    let host = server.split_once("://").map_or(server, |(_, rest)| rest);
    let host = host.split_once('@').map_or(host, |(_, host)| host);
    ["localhost:", "127.", "[::1]:"]
        .iter()
        .any(|local| host.starts_with(local))
}

/// Prints clap's help as it is, and its errors in one line without values that may be secret.
pub(crate) fn usage(error: &clap::Error) -> ExitCode {
    if matches!(
        error.kind(),
        ErrorKind::DisplayHelp
            | ErrorKind::DisplayVersion
            | ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand
    ) {
        // It fails if the reader closed the pipe: `rpcache --help | head -1`.
        let _ = error.print();
        return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2));
    }
    let message = invalid_value(error)
        .or_else(|| negative_range(error))
        .unwrap_or_else(|| in_one_line(&error.to_string()));
    misuse(&message).report()
}

/// The failure of a command line that cannot be parsed. It names the `--help` of the typed subcommand.
pub(crate) fn misuse(message: &str) -> Failure {
    let mut rpcache = Args::command();
    // Subcommands of subcommands are defined by building only.
    rpcache.build();
    let mut command = &rpcache;
    // Words of a program need not be UTF-8.
    let words = std::env::args_os()
        .skip(1)
        .map_while(|word| word.into_string().ok());
    for word in words.filter(|word| !word.starts_with('-')) {
        let Some(subcommand) = command.find_subcommand(&word) else {
            break;
        };
        command = subcommand;
    }
    let name = command.get_bin_name().unwrap_or("rpcache");
    Failure::new(2, format!("{message}; see {name} --help"))
}

/// The message for an invalid value. Values of URLs are left out: they may have a password.
fn invalid_value(error: &clap::Error) -> Option<String> {
    let reason = std::error::Error::source(error)?;
    let argument = error.get(ContextKind::InvalidArg)?.to_string();
    Some(match argument.as_str() {
        "--amqp-url <URL>" => format!("--amqp-url or AMQP_URL: {reason}"),
        "--redis-url <URL>" => format!("--redis-url or REDIS_URL: {reason}"),
        argument => {
            let flag = argument.split(' ').next().unwrap_or(argument);
            let value = error.get(ContextKind::InvalidValue)?.to_string();
            format!("{flag} {value:?}: {reason}")
        }
    })
}

/// The message for a range such as `-1..5`, which clap takes for flags.
fn negative_range(error: &clap::Error) -> Option<String> {
    let flag = error.get(ContextKind::InvalidArg)?.to_string();
    let typed = std::env::args().find(|typed| typed.starts_with(&flag) && typed.contains(".."))?;
    integers(&typed).err()
}

fn in_one_line(text: &str) -> String {
    let end = ["\n\n  tip: to", "\n\nUsage:", "\n\nFor more information"]
        .iter()
        .find_map(|end| text.find(end));
    let words = text[..end.unwrap_or(text.len())].split_whitespace();
    let line = words.map(without_secret).collect::<Vec<_>>().join(" ");
    line.strip_prefix("error: ").unwrap_or(&line).to_owned()
}

/// Replaces a URL, which may have a password, wherever it was typed.
fn without_secret(word: &str) -> &str {
    if word.contains("://") {
        "(a URL)"
    } else {
        word
    }
}
