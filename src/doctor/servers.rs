//! Of each server: from the address to what it lets this login do.

use super::reach::Route;
use super::{BACKLOG, Doctor, Found, Judged};
use crate::broker::{Declared, Look, Visit};
use crate::cache::{Cache, ServerFault};
use crate::procedure::Procedure;
use crate::tls::Tls;

/// The oldest supported version of Redis.
const OLDEST_REDIS: u32 = 7;

impl<P: Procedure> Doctor<P> {
    pub(super) async fn amqp_login(&mut self) -> Judged {
        let Ok(url) = &self.options.amqp else {
            return Judged::nothing();
        };
        match Visit::enter(url, "doctor").await {
            Ok(entered) => {
                self.entered = Some(entered);
                Judged::ok(Found::LoggedIn(url.user()))
            }
            Err(error) => Judged::failure(Found::Failed(error)),
        }
    }

    pub(super) fn amqp_vhost(&self) -> Judged {
        match &self.entered {
            Some(Ok(visit)) => Judged::ok(Found::Vhost(visit.vhost())),
            Some(Err(error)) => Judged::failure(Found::Failed(error.clone())),
            None => Judged::nothing(),
        }
    }

    pub(super) async fn amqp_rights(&self) -> Judged {
        let Some(Ok(visit)) = &self.entered else {
            return Judged::nothing();
        };
        match visit.may_publish().await {
            Ok(Ok(())) => Judged::ok(Found::MayPublish),
            Ok(Err(said)) => Judged::failure(Found::MayNotPublish {
                user: visit.user(),
                vhost: visit.vhost(),
                said,
            }),
            Err(error) => Judged::failure(Found::Failed(error)),
        }
    }

    pub(super) async fn request_queue(&mut self) -> Judged {
        let Some(Ok(visit)) = &self.entered else {
            return Judged::nothing();
        };
        let name = self.queue.as_short();
        let look = match visit.look(&name).await {
            Ok(look) => look,
            Err(error) => return Judged::failure(Found::Failed(error)),
        };
        let judged = match &look {
            Look::Missing => Judged::failure(Found::NoQueue(self.queue.to_string())),
            Look::Exclusive => Judged::failure(Found::ExclusiveQueue(self.queue.to_string())),
            Look::NotTold(said) => Judged::skipped(Found::NotTold(said.clone())),
            Look::Found { .. } => match visit.declared(&name).await {
                Ok(declared @ (Declared::Transient | Declared::Otherwise(_))) => {
                    Judged::warning(Found::Queue(declared))
                }
                Ok(declared) => Judged::ok(Found::Queue(declared)),
                Err(error) => Judged::failure(Found::Failed(error)),
            },
        };
        self.audience = Some(look);
        judged
    }

    pub(super) fn consumers(&self) -> Judged {
        match &self.audience {
            Some(Look::Found { consumers, waiting }) => {
                let (consumers, waiting) = (*consumers, *waiting);
                let queue = self.queue.to_string();
                let audience = Found::Audience {
                    queue,
                    consumers,
                    waiting,
                };
                match (consumers, waiting) {
                    (0, _) => Judged::failure(audience),
                    (_, waiting) if waiting > BACKLOG => Judged::warning(audience),
                    _ => Judged::ok(audience),
                }
            }
            Some(Look::NotTold(said)) => Judged::skipped(Found::NotTold(said.clone())),
            Some(Look::Missing | Look::Exclusive) | None => Judged::nothing(),
        }
    }

    pub(super) async fn dead_letters(&self) -> Judged {
        let Some(Ok(visit)) = &self.entered else {
            return Judged::nothing();
        };
        let name = self.queue.dead_letters();
        let queue = name.to_string();
        match visit.look(&name).await {
            Ok(Look::Found { consumers, waiting }) => {
                let audience = Found::Audience {
                    queue,
                    consumers,
                    waiting,
                };
                if consumers == 0 {
                    Judged::warning(audience)
                } else {
                    Judged::ok(audience)
                }
            }
            Ok(Look::Missing) => Judged::warning(Found::NoQueue(queue)),
            Ok(Look::Exclusive) => Judged::warning(Found::ExclusiveQueue(queue)),
            Ok(Look::NotTold(said)) => Judged::skipped(Found::NotTold(said)),
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
        self.cache = Some(cache);
        match connected {
            Ok(()) => Judged::ok(Found::LoggedIn(user)),
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
            Ok(None) => Judged::skipped(Found::NotTold("HELLO, INFO".to_owned())),
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
            // What only workers need may be another login's.
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
            Ok(None) => return Judged::skipped(Found::NotTold("INFO".to_owned())),
            Err(error) => return Judged::failure(Found::Failed(error)),
        };
        let for_ever = self.options.ttl.is_none();
        let evicts = match stats.eviction_policy.as_str() {
            policy if policy.starts_with("allkeys-") => true,
            // Only what has a TTL.
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

/// One node that works is enough.
pub(super) fn nodes(found: Found) -> Judged {
    match &found {
        Found::Nodes { ill, .. } if ill.is_empty() => Judged::ok(found),
        Found::Nodes { well, .. } if well.is_empty() => Judged::failure(found),
        Found::Failed(_) => Judged::failure(found),
        _ => Judged::warning(found),
    }
}

/// `tls`: as the address says, if it does.
pub(super) async fn encryption(route: &mut Route, tls: Option<&Tls>) -> Judged {
    match tls {
        Some(tls) => nodes(route.encrypt(tls).await),
        None if route.stays_here() => Judged::ok(Found::ThisMachine),
        None => Judged::warning(Found::PlainText),
    }
}

/// What does not begin with a number is taken for recent.
fn is_old(version: &str) -> bool {
    let major = version.split('.').next().unwrap_or_default();
    major.parse::<u32>().is_ok_and(|major| major < OLDEST_REDIS)
}
