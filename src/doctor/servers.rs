//! Checks of each server: address, login, rights, queues, memory.

use super::reach::Route;
use super::{Doctor, Found, Judged, MAX_BACKLOG};
use crate::broker::{Declared, Inspector, QueueStatus};
use crate::cache::{Cache, ServerFault};
use crate::procedure::Procedure;
use crate::tls::Tls;

/// The oldest supported major version of Redis.
const OLDEST_REDIS: u32 = 7;

impl<P: Procedure> Doctor<P> {
    pub(super) async fn amqp_login(&mut self) -> Judged {
        let Ok(url) = &self.options.amqp else {
            return Judged::nothing();
        };
        match Inspector::connect(url, "doctor").await {
            Ok(inspector) => {
                self.inspector = Some(inspector);
                Judged::ok(Found::LoggedIn(url.user()))
            }
            Err(error) => Judged::failure(Found::Failed(error)),
        }
    }

    pub(super) fn amqp_vhost(&self) -> Judged {
        match &self.inspector {
            Some(Ok(inspector)) => Judged::ok(Found::Vhost(inspector.vhost())),
            Some(Err(error)) => Judged::failure(Found::Failed(error.clone())),
            None => Judged::nothing(),
        }
    }

    pub(super) async fn amqp_rights(&self) -> Judged {
        let Some(Ok(inspector)) = &self.inspector else {
            return Judged::nothing();
        };
        match inspector.may_publish().await {
            Ok(Ok(())) => Judged::ok(Found::MayPublish),
            Ok(Err(message)) => Judged::failure(Found::MayNotPublish {
                user: inspector.user(),
                vhost: inspector.vhost(),
                message,
            }),
            Err(error) => Judged::failure(Found::Failed(error)),
        }
    }

    pub(super) async fn request_queue(&mut self) -> Judged {
        let Some(Ok(inspector)) = &self.inspector else {
            return Judged::nothing();
        };
        let name = self.queue.as_short();
        let status = match inspector.queue_status(&name).await {
            Ok(status) => status,
            Err(error) => return Judged::failure(Found::Failed(error)),
        };
        let judged = match &status {
            QueueStatus::Missing => Judged::failure(Found::NoQueue(self.queue.to_string())),
            QueueStatus::Exclusive => {
                Judged::failure(Found::ExclusiveQueue(self.queue.to_string()))
            }
            QueueStatus::NotPermitted(message) => Judged::skipped(Found::Unknown(message.clone())),
            QueueStatus::Exists { .. } => match inspector.declared(&name).await {
                Ok(
                    declared @ (Declared::Transient
                    | Declared::QuorumWithArguments(_)
                    | Declared::Otherwise(_)),
                ) => Judged::warning(Found::Queue(declared)),
                Ok(declared) => Judged::ok(Found::Queue(declared)),
                Err(error) => Judged::failure(Found::Failed(error)),
            },
        };
        self.queue_status = Some(status);
        judged
    }

    pub(super) fn consumers(&self) -> Judged {
        match &self.queue_status {
            Some(QueueStatus::Exists { consumers, waiting }) => {
                let (consumers, waiting) = (*consumers, *waiting);
                let queue = self.queue.to_string();
                let found = Found::Consumers {
                    queue,
                    consumers,
                    waiting,
                };
                match (consumers, waiting) {
                    (0, _) => Judged::failure(found),
                    (_, waiting) if waiting > MAX_BACKLOG => Judged::warning(found),
                    _ => Judged::ok(found),
                }
            }
            Some(QueueStatus::NotPermitted(message)) => {
                Judged::skipped(Found::Unknown(message.clone()))
            }
            Some(QueueStatus::Missing | QueueStatus::Exclusive) | None => Judged::nothing(),
        }
    }

    pub(super) async fn dead_letters(&self) -> Judged {
        let Some(Ok(inspector)) = &self.inspector else {
            return Judged::nothing();
        };
        let name = self.queue.dead_letters();
        let queue = name.to_string();
        match inspector.queue_status(&name).await {
            Ok(QueueStatus::Exists { consumers, waiting }) => {
                let found = Found::Consumers {
                    queue,
                    consumers,
                    waiting,
                };
                if consumers == 0 {
                    Judged::warning(found)
                } else {
                    Judged::ok(found)
                }
            }
            Ok(QueueStatus::Missing) => Judged::warning(Found::NoQueue(queue)),
            Ok(QueueStatus::Exclusive) => Judged::warning(Found::ExclusiveQueue(queue)),
            Ok(QueueStatus::NotPermitted(message)) => Judged::skipped(Found::Unknown(message)),
            Err(error) => Judged::failure(Found::Failed(error)),
        }
    }

    pub(super) async fn redis_login(&mut self) -> Judged {
        let Ok(url) = &self.options.redis else {
            return Judged::nothing();
        };
        let user = url.user().to_owned();
        let cache = Cache::open(self.options.cache(url.clone()));
        let connected = cache.connected().await;
        let servers = cache.servers();
        self.cache = Some(cache);
        match connected {
            Ok(()) => Judged::ok(match servers {
                Some(servers) => Found::LoggedInTo { user, servers },
                None => Found::LoggedIn(user),
            }),
            Err(error) => Judged::failure(Found::Failed(error)),
        }
    }

    pub(super) async fn redis_version(&self) -> Judged {
        let Some(cache) = &self.cache else {
            return Judged::nothing();
        };
        match cache.version().await {
            Ok(Some(version)) if is_old(&version) => Judged::failure(Found::Version(version)),
            Ok(Some(version)) => Judged::ok(Found::Version(version)),
            Ok(None) => Judged::skipped(Found::Unknown(
                "this login may not run HELLO and INFO".to_owned(),
            )),
            Err(error) => Judged::failure(Found::Failed(error)),
        }
    }

    pub(super) async fn redis_rights(&self) -> Judged {
        let Some(cache) = &self.cache else {
            return Judged::nothing();
        };
        match cache.server_fault(self.procedure.name()).await {
            Ok(None) => {}
            Ok(Some(ServerFault::Replica(address))) => {
                return Judged::warning(Found::ReadOnlyReplica(address));
            }
            Ok(Some(ServerFault::Shards(shards))) => return Judged::failure(Found::Shards(shards)),
            Err(error) => return Judged::failure(Found::Failed(error)),
        }
        match cache.missing_rights(self.procedure.name()).await {
            Ok(missing) if missing.is_empty() => Judged::ok(Found::Rights),
            Ok(missing) if missing.forbids_lookups() => {
                Judged::failure(Found::MissingRights(missing))
            }
            // Rights that only workers need: workers may use another login.
            Ok(missing) => Judged::warning(Found::MissingRights(missing)),
            Err(error) => Judged::failure(Found::Failed(error)),
        }
    }

    pub(super) async fn redis_memory(&self) -> Judged {
        let Some(cache) = &self.cache else {
            return Judged::nothing();
        };
        let stats = match cache.server_stats().await {
            Ok(Some(stats)) => stats,
            Ok(None) => {
                return Judged::skipped(Found::Unknown("this login may not run INFO".to_owned()));
            }
            Err(error) => return Judged::failure(Found::Failed(error)),
        };
        let for_ever = self.options.ttl.is_none();
        let evicts = match stats.eviction_policy.as_str() {
            policy if policy.starts_with("allkeys-") => true,
            // Evicts only keys with a TTL.
            policy if policy.starts_with("volatile-") => !for_ever,
            _ => false,
        };
        let memory = Found::Memory {
            limit: stats.memory_limit,
            policy: stats.eviction_policy,
            for_ever,
        };
        if stats.memory_limit.is_some() && evicts {
            Judged::ok(memory)
        } else {
            Judged::warning(memory)
        }
    }
}

pub(super) fn address<U: ToString>(url: Result<&U, &crate::server_url::UrlError>) -> Judged {
    match url {
        Ok(url) => Judged::ok(Found::Address(url.to_string())),
        Err(error) => Judged::failure(Found::NoAddress(error.clone())),
    }
}

/// Judges a step by all nodes: one that works is enough.
pub(super) fn nodes(found: Found) -> Judged {
    match &found {
        Found::Nodes { failed, .. } if failed.is_empty() => Judged::ok(found),
        Found::Nodes { working, .. } if working.is_empty() => Judged::failure(found),
        Found::Failed(_) => Judged::failure(found),
        _ => Judged::warning(found),
    }
}

/// Checks whether the connection is encrypted. `tls`: the settings of the address, if it asks for TLS.
pub(super) async fn encryption(route: &mut Route, tls: Option<&Tls>) -> Judged {
    match tls {
        Some(tls) => nodes(route.encrypt(tls).await),
        None if route.is_local() => Judged::ok(Found::ThisMachine),
        None => Judged::warning(Found::PlainText),
    }
}

/// Whether a version is unsupported. One that does not begin with a number counts as recent.
fn is_old(version: &str) -> bool {
    let major = version.split('.').next().unwrap_or_default();
    major.parse::<u32>().is_ok_and(|major| major < OLDEST_REDIS)
}
