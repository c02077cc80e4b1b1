//! Whether a worker is fit to work, for whoever starts, stops or pages somebody over it.

use super::activity::Vitals;
use crate::counts::State;

/// How a worker is, before, while and after it runs: see [`Worker::health`](super::Worker::health).
/// Clones are cheap and tell the same.
#[derive(Debug, Clone)]
pub struct WorkerHealth(pub(super) Vitals);

/// Whether a worker serves.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Readiness {
    /// It takes requests.
    Ready,
    /// It takes requests, and something makes that slower: what, for a person to act upon.
    Degraded(String),
    /// It takes none: why, for a person to act upon.
    NotReady(String),
}

impl WorkerHealth {
    /// Whether it serves at this moment. Asks nobody: what the worker knows is told at once.
    ///
    /// A lost broker is noticed within ten seconds.
    #[must_use]
    pub fn readiness(&self) -> Readiness {
        let Vitals {
            activity,
            cache,
            broker,
        } = &self.0;
        if activity.is_stopping() {
            return Readiness::NotReady("stopping".to_owned());
        }
        match broker.standing.state() {
            State::Connecting => {
                return Readiness::NotReady("not connected to RabbitMQ yet".to_owned());
            }
            State::Down(error) => return Readiness::NotReady(error.to_string()),
            State::Up => {}
        }
        let mut degraded = Vec::new();
        if broker.is_blocked() {
            degraded.push("RabbitMQ has raised an alarm: replies wait until it is over".to_owned());
        }
        match cache.redis.state() {
            State::Connecting => degraded.push("not connected to Redis yet".to_owned()),
            State::Down(error) => {
                degraded.push(format!("{error}; calls go on without the cache"));
            }
            State::Up => degraded.extend(cache.refusals.reason()),
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
    use crate::worker::activity::Running;
    use std::sync::Arc;

    fn down(server: &str) -> Error {
        Error::Unreachable {
            server: server.to_owned(),
            reason: "nothing is listening there".to_owned(),
        }
    }

    #[test]
    fn it_is_ready_while_it_takes_requests() {
        let vitals = Vitals::default();
        let health = WorkerHealth(vitals.clone());
        let not_ready = |why: &str| Readiness::NotReady(why.to_owned());
        assert_eq!(
            health.readiness(),
            not_ready("not connected to RabbitMQ yet")
        );
        vitals.broker.down(down("amqp://a"));
        assert_eq!(
            health.readiness(),
            not_ready("cannot reach amqp://a: nothing is listening there")
        );
        vitals.broker.up();
        vitals.cache.redis.up();
        assert_eq!(health.readiness(), Readiness::Ready);
        vitals.activity.stops();
        assert_eq!(health.readiness(), not_ready("stopping"));
    }

    #[test]
    fn it_is_not_ready_when_it_is_dropped() {
        let vitals = Vitals::default();
        let health = WorkerHealth(vitals.clone());
        let running = Running(Arc::clone(&vitals.activity));
        vitals.broker.up();
        assert!(!matches!(health.readiness(), Readiness::NotReady(_)));
        drop(running);
        assert!(matches!(health.readiness(), Readiness::NotReady(_)));
    }

    #[test]
    fn what_only_slows_it_is_told() {
        let vitals = Vitals::default();
        let health = WorkerHealth(vitals.clone());
        vitals.broker.up();
        let degraded = |how: &str| Readiness::Degraded(how.to_owned());
        assert_eq!(health.readiness(), degraded("not connected to Redis yet"));
        vitals.cache.redis.down(down("redis://b"));
        let without = "cannot reach redis://b: nothing is listening there; calls go on without the \
            cache";
        assert_eq!(health.readiness(), degraded(without));
        vitals.broker.blocks(true);
        let alarm = "RabbitMQ has raised an alarm: replies wait until it is over";
        assert_eq!(health.readiness(), degraded(&format!("{alarm}; {without}")));
        vitals.cache.redis.up();
        assert_eq!(health.readiness(), degraded(alarm));
        vitals.broker.up();
        assert_eq!(health.readiness(), Readiness::Ready, "on a new connection");
    }

    #[test]
    fn it_is_degraded_while_fills_are_refused() {
        let vitals = Vitals::default();
        let health = WorkerHealth(vitals.clone());
        vitals.broker.up();
        vitals.cache.redis.up();
        let refusals = &vitals.cache.refusals;
        refusals.fill("OOM command not allowed".to_owned());
        let full = "Redis refuses to store answers: OOM command not allowed";
        assert_eq!(health.readiness(), Readiness::Degraded(full.to_owned()));
        refusals.filled();
        assert_eq!(health.readiness(), Readiness::Ready);
        let replica = "Redis at redis://b (127.0.0.1:1) is a read-only replica";
        refusals.server(Some(replica.to_owned()));
        assert_eq!(health.readiness(), Readiness::Degraded(replica.to_owned()));
        refusals.server(None);
        assert_eq!(health.readiness(), Readiness::Ready);
    }
}
