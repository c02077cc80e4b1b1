//! Asks Sentinels which server is their primary.
//!
//! Sentinels learn of a switch one after another, so all are asked, and of those that answer the one with the
//! newest configuration counts. While the connection is up, one Sentinel is listened to: after a switch, the old
//! primary goes on for seconds as if it were the only one. When the connection is lost, late, or leads to a
//! replica, the keeper asks up to four times a second.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use redis::aio::PubSub;
use redis::{RedisError, Value};
use tokio::time::{Instant, sleep, timeout, timeout_at};

use super::server::{announced, field, primaries};
use crate::cache::redis::dial::{DialError, Dialled, dial, dial_pubsub};
use crate::cache::redis::errors::unreachable;
use crate::cache::redis::resp::Limits;
use crate::error::{Error, quote};
use crate::server_url::RedisUrl;
use crate::transport::Endpoint;

/// Time for each Sentinel to connect, to log in and to answer.
const DEADLINE: Duration = Duration::from_millis(400);

/// Further wait for the others once one has answered: a frozen one holds nothing up.
const GRACE: Duration = Duration::from_millis(50);

/// How long one Sentinel is listened to: it may be frozen, or cut off.
const LISTEN_FOR: Duration = Duration::from_secs(60);

/// Pause after a Sentinel could not be listened to. It doubles, since its login may lack the right.
const PAUSE: Duration = Duration::from_secs(1);

/// The Sentinels of an address.
#[derive(Debug)]
pub(in crate::cache::redis) struct Sentinels {
    /// The address as it was given.
    url: RedisUrl,
    limits: Limits,
}

/// What one Sentinel says.
struct Named {
    primary: Endpoint,
    /// Grows with each switch; 0 where this login may not ask.
    epoch: u64,
}

impl Sentinels {
    /// `None`: the address names no Sentinels.
    pub(in crate::cache::redis) fn of(url: &RedisUrl, limits: Limits) -> Option<Self> {
        url.sentinels().map(|_| Self {
            url: url.clone(),
            limits,
        })
    }

    /// The primary by the newest configuration. The first refusal where none answers, else the first error.
    pub(in crate::cache::redis) async fn primary(&self) -> Result<Endpoint, Error> {
        let (urls, name) = self.url.sentinels().unwrap_or_default();
        let mut asked: FuturesUnordered<_> = urls.iter().map(|url| self.ask(url, name)).collect();
        let (mut newest, mut failed): (Option<Named>, Option<Error>) = (None, None);
        let mut deadline = Instant::now() + DEADLINE * 2;
        // Elapsed or not, what there is counts.
        while let Ok(Some(answer)) = timeout_at(deadline, asked.next()).await {
            match answer {
                Ok(named) => {
                    deadline = deadline.min(Instant::now() + GRACE);
                    if newest
                        .as_ref()
                        .is_none_or(|newest| newest.epoch < named.epoch)
                    {
                        newest = Some(named);
                    }
                }
                Err(error) => {
                    let is_first = failed.is_none();
                    if is_first || !matches!(failed, Some(Error::Refused { .. })) {
                        failed = Some(error);
                    }
                }
            }
        }
        match (newest, failed) {
            (Some(named), _) => Ok(named.primary),
            (None, Some(error)) => Err(error),
            (None, None) => Err(unreachable(&self.url, "no Sentinel answers".to_owned())),
        }
    }

    /// Waits until the Sentinels name another primary than this. One of them, another each minute, is listened
    /// to.
    pub(in crate::cache::redis) async fn switched_from(&self, primary: &Endpoint) -> Endpoint {
        let (urls, name) = self.url.sentinels().unwrap_or_default();
        let mut pause = PAUSE;
        loop {
            let subscribed = match fastrand::choice(&urls) {
                Some(url) => self.subscribe(url).await,
                None => None,
            };
            // Also after a message: it may be of another primary. And earlier ones were missed.
            match self.primary().await {
                Ok(other) if other != *primary => return other,
                _ => {}
            }
            if let Some(messages) = subscribed {
                hear_of(name, messages).await;
                pause = PAUSE;
            } else {
                sleep(pause.mul_f32(1.0 + 0.5 * fastrand::f32())).await;
                pause = (pause * 2).min(LISTEN_FOR);
            }
        }
    }

    async fn subscribe(&self, url: &RedisUrl) -> Option<PubSub> {
        let dialled = dial_pubsub(url, self.limits, DEADLINE).await;
        let mut messages = dialled.ok()?;
        let subscribed = timeout(DEADLINE, messages.subscribe("+switch-master"));
        subscribed.await.ok()?.ok()?;
        Some(messages)
    }

    async fn ask(&self, url: &RedisUrl, name: &str) -> Result<Named, Error> {
        let first = async |dialled: Dialled| {
            let mut connection = dialled.connection;
            let mut commands = redis::pipe();
            commands.ignore_errors();
            let address = commands.cmd("SENTINEL").arg("GET-MASTER-ADDR-BY-NAME");
            address.arg(name);
            commands.cmd("SENTINEL").arg("MASTER").arg(name);
            let replies: (Address, Result<Value, RedisError>) =
                commands.query_async(&mut connection).await?;
            if let (Ok(None), _) = &replies {
                let mut masters = redis::cmd("SENTINEL");
                masters.arg("MASTERS");
                let masters = masters.query_async(&mut connection).await;
                let known = primaries(&masters.unwrap_or(Value::Nil));
                return Err(DialError::Unreached(self.unknown(url, name, &known)));
            }
            Ok(replies)
        };
        let asked = dial(url, self.limits, Arc::default(), DEADLINE, first);
        let (address, facts) = asked.await.map_err(|error| error.of(url))?;
        let address = address.map_err(|error| match error.detail() {
            Some(detail) if detail.starts_with("unknown command") => Error::Refused {
                server: url.to_string(),
                reason: "it is no Sentinel: an address of Redis begins with redis://".to_owned(),
            },
            _ => DialError::Redis(error).of(url),
        })?;
        let (host, port) = address.unwrap_or_default();
        let primary = announced(host.as_bytes(), port).ok_or_else(|| {
            unreachable(
                url,
                format!("it names no address: {}", quote(host.as_bytes())),
            )
        })?;
        let facts = facts.unwrap_or(Value::Nil);
        let epoch = field(&facts, b"config-epoch");
        let epoch = epoch.and_then(|text| std::str::from_utf8(text).ok()?.parse().ok());
        Ok(Named {
            primary,
            epoch: epoch.unwrap_or(0),
        })
    }

    fn unknown(&self, url: &RedisUrl, name: &str, known: &[String]) -> Error {
        let known = match known {
            [] => "none".to_owned(),
            known => known.join(", "),
        };
        Error::Refused {
            server: self.url.to_string(),
            reason: format!("{url} watches no primary {name:?}; it watches {known}"),
        }
    }
}

/// Waits for a message of a switch to another primary of this name, until the connection is lost, or long enough.
async fn hear_of(name: &str, mut messages: PubSub) {
    let mut messages = messages.on_message();
    let heard = async {
        while let Some(message) = messages.next().await {
            let mut words = message.get_payload_bytes().split(|&byte| byte == b' ');
            if words.next() == Some(name.as_bytes()) {
                return;
            }
        }
    };
    // Elapsed or not, the Sentinels are asked next.
    let _ = timeout(LISTEN_FOR.mul_f32(1.0 + 0.5 * fastrand::f32()), heard).await;
}

/// The reply to SENTINEL GET-MASTER-ADDR-BY-NAME.
type Address = Result<Option<(String, u16)>, RedisError>;
