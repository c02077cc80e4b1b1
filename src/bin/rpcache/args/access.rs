//! The options for addresses, certificates and passwords. Certificates and passwords are put into the addresses
//! here, so that an address is all that a connection needs.
//!
//! There is no option for a password itself, because the list of processes shows command lines.

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

/// Size limit of a PEM file, in bytes: five times all CAs of a system.
const MAX_PEM: u64 = 1_000_000;

/// Size limit of a password file, in bytes: a larger one is another file.
const MAX_PASSWORD: u64 = 4096;

// One set for both servers: a file may hold several CAs, and the client certificate is the same for both. (This is
// no doc comment: one of a flattened group would replace the command's description.)
#[derive(Debug, Args)]
#[expect(clippy::struct_field_names, reason = "named as they are typed")]
pub(super) struct TlsFiles {
    /// PEM file of the CAs to trust for amqps:// and rediss://, in place of the system's
    #[arg(
        long,
        env = "RPCACHE_TLS_CA",
        value_name = "FILE",
        help_heading = HEADING
    )]
    tls_ca: Option<PathBuf>,

    /// PEM file of the client certificate, sent if the server requests one; intermediate certificates
    /// follow it in the file
    #[arg(
        long,
        env = "RPCACHE_TLS_CERT",
        value_name = "FILE",
        requires = "tls_key",
        help_heading = HEADING
    )]
    tls_cert: Option<PathBuf>,

    /// PEM file of the client certificate's private key, not encrypted
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
    /// File with RabbitMQ's password, if it is not in the address; AMQP_PASSWORD may hold it, too
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
    /// File with Redis' password, if it is not in the address; REDIS_PASSWORD may hold it, too
    #[arg(
        long,
        env = "REDIS_PASSWORD_FILE",
        value_name = "FILE",
        help_heading = HEADING
    )]
    redis_password_file: Option<PathBuf>,
}

impl TlsFiles {
    /// Reads the files. `None` without these options: then the system's CAs are trusted.
    pub(super) fn read(&self) -> Result<Option<Tls>, String> {
        let mut options = TlsOptions::default();
        options.ca = self.tls_ca.as_deref().map(pem("--tls-ca")).transpose()?;
        // clap requires both or neither.
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

// The options of `Broker`.
#[derive(Debug, Args)]
#[expect(clippy::doc_markdown, reason = "printed as it stands")]
struct TypedBroker {
    /// RabbitMQ's address; commas separate the nodes of a cluster; amqps:// is encrypted. In user, password
    /// and vhost, percent-encode # % , / ? and @: the vhost / is %2f [default: guest at localhost:5672, vhost /]
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

// The options of `Redis`.
#[derive(Debug, Args)]
#[expect(clippy::doc_markdown, reason = "printed as it stands")]
struct TypedRedis {
    /// Redis' address; rediss:// is encrypted; unix:///PATH is a Unix socket; /N or ?db=N selects a database;
    /// redis+sentinel://HOST,HOST/NAME is the primary of Sentinels, redis+cluster://HOST,HOST a cluster
    #[arg(long, env = "REDIS_URL", value_name = "URL", hide_env_values = true)]
    #[arg(default_value = "redis://localhost:6379")]
    redis_url: RedisUrl,

    /// Prefix of all keys: `prod` makes fib:30 into prod:fib:30. Workers and clients that share
    /// answers need the same namespace and the same Redis
    #[arg(long, env = "RPCACHE_NAMESPACE", value_name = "NAME")]
    namespace: Option<Namespace>,

    #[command(flatten)]
    login: RedisLogin,

    #[command(flatten)]
    tls: TlsFiles,
}

impl TypedBroker {
    fn with_files(self, tls: &TlsFiles) -> Result<Broker, String> {
        Ok(Broker {
            amqp_url: self.login.put_into(self.amqp_url, tls.read()?.as_ref())?,
            queue: self.queue,
        })
    }
}

impl FromArgMatches for Broker {
    /// The command must have [`Redis`], too: it defines the options for TLS, which both use.
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, Error> {
        let tls = TlsFiles::from_arg_matches(matches)?;
        let typed = TypedBroker::from_arg_matches(matches)?;
        typed.with_files(&tls).map_err(invalid)
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
        let tls = typed.tls.read().map_err(invalid)?;
        let url = typed.login.put_into(typed.redis_url, tls.as_ref());
        Ok(Self {
            redis_url: url.map_err(invalid)?,
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

fn invalid(reason: String) -> Error {
    Error::raw(ErrorKind::ValueValidation, reason)
}

/// The password in the file or the variable; if both are given, they must hold the same one.
fn password(flag: &str, file: Option<&Path>, variable: &str) -> Result<Option<String>, String> {
    let value = env::var_os(variable).filter(|value| !value.is_empty());
    let value = value.map(OsString::into_string).transpose();
    let value = value.map_err(|_| format!("{variable} is not UTF-8"))?;
    let Some(file) = file else { return Ok(value) };
    let bytes = read(file, MAX_PASSWORD).map_err(|error| named(flag, file, &error))?;
    let text = String::from_utf8(bytes).map_err(|_| named(flag, file, &"it is not UTF-8"))?;
    let line = text.strip_suffix('\n').unwrap_or(&text);
    let line = line.strip_suffix('\r').unwrap_or(line);
    if line.is_empty() || line.contains('\n') {
        return Err(named(flag, file, &"must be one line with the password"));
    }
    match value {
        Some(value) if value != line => Err(format!(
            "{flag} and {variable} hold two passwords: leave one out"
        )),
        _ => Ok(Some(line.to_owned())),
    }
}

fn pem(flag: &str) -> impl Fn(&Path) -> Result<Vec<u8>, String> {
    move |file| read(file, MAX_PEM).map_err(|error| named(flag, file, &error))
}

/// Reads a file up to a size limit, without the byte order mark that editors on Windows write.
fn read(file: &Path, limit: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(file)?.take(limit + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > limit {
        let reason = format!("it is larger than {limit} bytes");
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
