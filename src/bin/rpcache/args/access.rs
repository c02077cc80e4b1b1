//! How the servers are got into: certificates and passwords, from files and the environment. What was
//! typed is put into the addresses here, so that whoever has an address has all that it takes.
//!
//! There is no option for a password itself: the list of processes shows what is typed.

use std::env;
use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use clap::error::ErrorKind;
use clap::{ArgMatches, Args, Command, Error, FromArgMatches};
use rpcache::tls::{Tls, TlsIdentity, TlsOptions, TlsOptionsError};
use rpcache::{AmqpUrl, Namespace, QueueName, RedisUrl};

use super::{Broker, Redis};

const HEADING: &str = "TLS and login";

/// All CAs of a system are a fifth of it.
const LARGEST_PEM: u64 = 1_000_000;

/// A password that is longer is another file.
const LARGEST_PASSWORD: u64 = 4096;

// For both servers: two CAs stand in one file one after the other, and who this is does not depend on
// whom it is shown to. (Documentation of what is flattened would describe the whole command.)
#[derive(Debug, Args)]
#[expect(clippy::struct_field_names, reason = "named as they are typed")]
pub(super) struct TlsFiles {
    /// Trust these CAs, in PEM, in place of the system's, for amqps:// and rediss://
    #[arg(
        long,
        env = "RPCACHE_TLS_CA",
        value_name = "FILE",
        help_heading = HEADING
    )]
    tls_ca: Option<PathBuf>,

    /// Show this certificate, in PEM, to servers that want one; what stands between it and the CA follows
    #[arg(
        long,
        env = "RPCACHE_TLS_CERT",
        value_name = "FILE",
        requires = "tls_key",
        help_heading = HEADING
    )]
    tls_cert: Option<PathBuf>,

    /// Its private key, in PEM, not encrypted
    #[arg(
        long,
        env = "RPCACHE_TLS_KEY",
        value_name = "FILE",
        requires = "tls_cert",
        help_heading = HEADING
    )]
    tls_key: Option<PathBuf>,
}

#[derive(Debug, Args)]
#[expect(clippy::doc_markdown, reason = "printed as it stands")]
pub(super) struct AmqpLogin {
    /// RabbitMQ's password is in this file instead of in the address; or AMQP_PASSWORD holds it
    #[arg(
        long,
        env = "AMQP_PASSWORD_FILE",
        value_name = "FILE",
        help_heading = HEADING
    )]
    amqp_password_file: Option<PathBuf>,
}

#[derive(Debug, Args)]
#[expect(clippy::doc_markdown, reason = "printed as it stands")]
pub(super) struct RedisLogin {
    /// Redis' password is in this file instead of in the address; or REDIS_PASSWORD holds it
    #[arg(
        long,
        env = "REDIS_PASSWORD_FILE",
        value_name = "FILE",
        help_heading = HEADING
    )]
    redis_password_file: Option<PathBuf>,
}

impl TlsFiles {
    /// `None`: nothing was said, and the system's CAs are trusted.
    pub(super) fn read(&self) -> Result<Option<Tls>, String> {
        let mut options = TlsOptions::default();
        options.ca = self.tls_ca.as_deref().map(pem("--tls-ca")).transpose()?;
        // clap wants both or none.
        options.identity = match self.tls_cert.as_deref().zip(self.tls_key.as_deref()) {
            Some((certificate, key)) => Some(TlsIdentity {
                certificate: pem("--tls-cert")(certificate)?,
                key: pem("--tls-key")(key)?,
            }),
            None => None,
        };
        if options.ca.is_none() && options.identity.is_none() {
            return Ok(None);
        }
        let tls = Tls::new(&options).map_err(|error| {
            let (flag, file) = match &error {
                TlsOptionsError::Ca(_) => ("--tls-ca", &self.tls_ca),
                TlsOptionsError::Key(_) => ("--tls-key", &self.tls_key),
                _ => ("--tls-cert", &self.tls_cert),
            };
            named(flag, file.as_deref().unwrap_or(Path::new("")), &error)
        })?;
        Ok(Some(tls))
    }
}

impl AmqpLogin {
    pub(super) fn put_into(&self, url: AmqpUrl, tls: Option<&Tls>) -> Result<AmqpUrl, String> {
        let url = match tls {
            Some(tls) => url.with_tls(tls.clone()),
            None => url,
        };
        let file = self.amqp_password_file.as_deref();
        match password("--amqp-password-file", file, "AMQP_PASSWORD")? {
            Some(password) => url
                .with_password(&password)
                .map_err(|error| format!("--amqp-url or AMQP_URL: {error}")),
            None => Ok(url),
        }
    }
}

impl RedisLogin {
    pub(super) fn put_into(&self, url: RedisUrl, tls: Option<&Tls>) -> Result<RedisUrl, String> {
        let url = match tls {
            Some(tls) => url.with_tls(tls.clone()),
            None => url,
        };
        let file = self.redis_password_file.as_deref();
        match password("--redis-password-file", file, "REDIS_PASSWORD")? {
            Some(password) => url
                .with_password(&password)
                .map_err(|error| format!("--redis-url or REDIS_URL: {error}")),
            None => Ok(url),
        }
    }
}

// `Broker`, as typed.
#[derive(Debug, Args)]
#[expect(clippy::doc_markdown, reason = "printed as it stands")]
struct TypedBroker {
    /// RabbitMQ's address, or several of a cluster with commas between; amqps:// is encrypted; the vhost
    /// / is written %2f, and so are # / ? , @ % in a password: %23 %2f %3f %2c %40 %25 [default: guest at localhost:5672, vhost /]
    #[arg(
        long,
        env = "AMQP_URL",
        value_name = "URL",
        hide_env_values = true,
        hide_default_value = true
    )]
    #[arg(default_value = "amqp://guest:guest@localhost:5672/%2f")]
    amqp_url: AmqpUrl,

    /// The request queue [default: rpc_queue for fib, rpc_queue.NAME for a procedure NAME]
    #[arg(long, env = "RPCACHE_QUEUE", value_name = "NAME")]
    queue: Option<QueueName>,

    #[command(flatten)]
    login: AmqpLogin,
}

// `Redis`, as typed.
#[derive(Debug, Args)]
#[expect(clippy::doc_markdown, reason = "printed as it stands")]
struct TypedRedis {
    /// Redis' address; rediss:// is encrypted; unix:///PATH is a Unix socket; ?db=N or /N is the database
    #[arg(long, env = "REDIS_URL", value_name = "URL", hide_env_values = true)]
    #[arg(default_value = "redis://localhost:6379")]
    redis_url: RedisUrl,

    /// Put in front of all keys: `prod` makes fib:30 into prod:fib:30. Workers and callers that
    /// share answers have the same namespace and the same Redis
    #[arg(long, env = "RPCACHE_NAMESPACE", value_name = "NAME")]
    namespace: Option<Namespace>,

    #[command(flatten)]
    login: RedisLogin,

    #[command(flatten)]
    tls: TlsFiles,
}

impl TypedBroker {
    fn put_together(self, tls: &TlsFiles) -> Result<Broker, String> {
        Ok(Broker {
            amqp_url: self.login.put_into(self.amqp_url, tls.read()?.as_ref())?,
            queue: self.queue,
        })
    }
}

impl FromArgMatches for Broker {
    /// Of a command that has [`Redis`], too: the options for TLS are defined there, for both.
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, Error> {
        let tls = TlsFiles::from_arg_matches(matches)?;
        let typed = TypedBroker::from_arg_matches(matches)?;
        typed.put_together(&tls).map_err(wrong)
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

impl Args for Broker {
    fn augment_args(command: Command) -> Command {
        TypedBroker::augment_args(command)
    }

    fn augment_args_for_update(command: Command) -> Command {
        TypedBroker::augment_args_for_update(command)
    }
}

impl FromArgMatches for Redis {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, Error> {
        let typed = TypedRedis::from_arg_matches(matches)?;
        let tls = typed.tls.read().map_err(wrong)?;
        let url = typed.login.put_into(typed.redis_url, tls.as_ref());
        Ok(Self {
            redis_url: url.map_err(wrong)?,
            namespace: typed.namespace,
        })
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

impl Args for Redis {
    fn augment_args(command: Command) -> Command {
        TypedRedis::augment_args(command)
    }

    fn augment_args_for_update(command: Command) -> Command {
        TypedRedis::augment_args_for_update(command)
    }
}

fn wrong(reason: String) -> Error {
    Error::raw(ErrorKind::ValueValidation, reason)
}

/// From the file or the variable. There may be one in the address, too: it must be the same then.
fn password(flag: &str, file: Option<&Path>, variable: &str) -> Result<Option<String>, String> {
    let said = env::var_os(variable).filter(|value| !value.is_empty());
    let said = said.map(OsString::into_string).transpose();
    let said = said.map_err(|_| format!("{variable} is not UTF-8"))?;
    let Some(file) = file else { return Ok(said) };
    let bytes = read(file, LARGEST_PASSWORD).map_err(|error| named(flag, file, &error))?;
    let text = String::from_utf8(bytes).map_err(|_| named(flag, file, &"it is not UTF-8"))?;
    let line = text.strip_suffix('\n').unwrap_or(&text);
    let line = line.strip_suffix('\r').unwrap_or(line);
    if line.is_empty() || line.contains('\n') {
        return Err(named(flag, file, &"a password is one line"));
    }
    match said {
        Some(said) if said != line => Err(format!(
            "{flag} and {variable} hold two passwords: leave one out"
        )),
        _ => Ok(Some(line.to_owned())),
    }
}

fn pem(flag: &str) -> impl Fn(&Path) -> Result<Vec<u8>, String> {
    move |file| read(file, LARGEST_PEM).map_err(|error| named(flag, file, &error))
}

/// A whole file, unless it is larger; without the byte order mark that editors of Windows put before text.
fn read(file: &Path, largest: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(file)?
        .take(largest + 1)
        .read_to_end(&mut bytes)?;
    if bytes.len() as u64 > largest {
        let reason = format!("it is larger than {largest} bytes");
        return Err(io::Error::other(reason));
    }
    if bytes.starts_with(b"\xef\xbb\xbf") {
        bytes.drain(..3);
    }
    Ok(bytes)
}

fn named(flag: &str, file: &Path, error: &dyn std::fmt::Display) -> String {
    format!("{flag} {:?}: {error}", file.display().to_string())
}
