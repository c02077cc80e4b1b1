//! Health of a worker: for readiness probes and alerts.

use super::counters::Counters;
use crate::counts::ConnectionState;

/// A worker's health, before, while and after it runs: see [`Worker::health`](super::Worker::health).
/// Clones are cheap and share the state.
#[derive(Debug, Clone)]
pub struct WorkerHealth(pub(super) Counters);

/// Whether a worker serves.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Readiness {
    /// It takes requests.
    Ready,
    /// It takes requests, but something slows it down; with what, for a person to act on.
    Degraded(String),
    /// It takes no requests; with the reason, for a person to act on.
    NotReady(String),
}

impl WorkerHealth {
    /// Whether the worker serves at this moment. Returns what the worker knows, at once, and sends nothing.
    ///
    /// The worker notices a lost broker within ten seconds.
    #[must_use]
    pub fn readiness(&self) -> Readiness {
        let Counters {
            activity,
            cache,
            broker,
        } = &self.0;
        if activity.is_stopping() {
            return Readiness::NotReady("stopping".to_owned());
        }
        match broker.connection.state() {
            ConnectionState::Connecting => {
                return Readiness::NotReady("not connected to RabbitMQ yet".to_owned());
            }
            ConnectionState::Down(error) => return Readiness::NotReady(error.to_string()),
            ConnectionState::Up => {}
        }
        let mut degraded = Vec::new();
        if broker.is_blocked() {
            degraded.push("RabbitMQ has raised an alarm: replies wait until it is over".to_owned());
        }
        match cache.redis.state() {
            ConnectionState::Connecting => degraded.push("not connected to Redis yet".to_owned()),
            ConnectionState::Down(error) => {
                degraded.push(format!("{error}; calls go on without the cache"));
            }
            ConnectionState::Up => degraded.extend(cache.refusals.reason()),
        }
        if degraded.is_empty() {
            Readiness::Ready
        } else {
            Readiness::Degraded(degraded.join("; "))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Error;
    use crate::worker::counters::StopGuard;
    use std::sync::Arc;

    fn down(server: &str) -> Error {
        Error::Unreachable {
            server: server.to_owned(),
            reason: "nothing is listening there".to_owned(),
        }
    }

    #[test]
    fn worker_is_ready_while_it_takes_requests() {
        let counters = Counters::default();
        let health = WorkerHealth(counters.clone());
        let not_ready = |why: &str| Readiness::NotReady(why.to_owned());
        assert_eq!(
            health.readiness(),
            not_ready("not connected to RabbitMQ yet")
        );
        counters.broker.down(down("amqp://a"));
        assert_eq!(
            health.readiness(),
            not_ready("cannot reach amqp://a: nothing is listening there")
        );
        counters.broker.up();
        counters.cache.redis.up();
        assert_eq!(health.readiness(), Readiness::Ready);
        counters.activity.mark_stopping();
        assert_eq!(health.readiness(), not_ready("stopping"));
    }

    #[test]
    fn dropped_worker_is_not_ready() {
        let counters = Counters::default();
        let health = WorkerHealth(counters.clone());
        let running = StopGuard(Arc::clone(&counters.activity));
        counters.broker.up();
        assert!(!matches!(health.readiness(), Readiness::NotReady(_)));
        drop(running);
        assert!(matches!(health.readiness(), Readiness::NotReady(_)));
    }

    #[test]
    fn worker_is_degraded_while_redis_is_down_or_rabbitmq_has_an_alarm() {
        let counters = Counters::default();
        let health = WorkerHealth(counters.clone());
        counters.broker.up();
        let degraded = |how: &str| Readiness::Degraded(how.to_owned());
        assert_eq!(health.readiness(), degraded("not connected to Redis yet"));
        counters.cache.redis.down(down("redis://b"));
        let without = "cannot reach redis://b: nothing is listening there; calls go on without the \
            cache";
        assert_eq!(health.readiness(), degraded(without));
        counters.broker.set_blocked(true);
        let alarm = "RabbitMQ has raised an alarm: replies wait until it is over";
        assert_eq!(health.readiness(), degraded(&format!("{alarm}; {without}")));
        counters.cache.redis.up();
        assert_eq!(health.readiness(), degraded(alarm));
        counters.broker.up();
        assert_eq!(health.readiness(), Readiness::Ready, "on a new connection");
    }

    #[test]
    fn worker_is_degraded_while_fills_are_refused() {
        let counters = Counters::default();
        let health = WorkerHealth(counters.clone());
        counters.broker.up();
        counters.cache.redis.up();
        let refusals = &counters.cache.refusals;
        refusals.fill_refused("OOM command not allowed".to_owned());
        let full = "Redis refuses to store answers: OOM command not allowed";
        assert_eq!(health.readiness(), Readiness::Degraded(full.to_owned()));
        refusals.fill_stored();
        assert_eq!(health.readiness(), Readiness::Ready);
        let replica = "Redis at redis://b (127.0.0.1:1) is a read-only replica";
        refusals.set_server(Some(replica.to_owned()));
        assert_eq!(health.readiness(), Readiness::Degraded(replica.to_owned()));
        refusals.set_server(None);
        assert_eq!(health.readiness(), Readiness::Ready);
    }
}
