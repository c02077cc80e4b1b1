//! Faults of the links to a server: of one process in half of the cases, of all processes otherwise.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::{Injector, POLL_INTERVAL};
use crate::fault::Fault;
use crate::plan::Event;
use crate::proxy::{Link, Mode};

/// Less than the connect timeout, part of which a process may wait before it connects again.
const FINDS_ANOTHER: Duration = Duration::from_secs(4);

impl Injector {
    /// Injects a fault into `links`, which are those of each process.
    pub(super) async fn links(&self, links: &[&[Arc<Link>]], event: &Event, mode: Mode) {
        let all = links.len() as u64;
        let affected = match usize::try_from(event.draw % (all * 2)) {
            Ok(one) if one < links.len() => &links[one..=one],
            _ => links,
        };
        let cut = matches!(
            event.fault,
            Fault::AmqpCut | Fault::AmqpRefuse | Fault::RedisCut | Fault::RedisRefuse
        );
        let affected: Vec<_> = affected.iter().copied().flatten().collect();
        self.inject_into(&affected, event, mode, cut).await;
    }

    /// One of the broker's addresses refuses connections, for all processes.
    pub(super) async fn node(&self, event: &Event) {
        let node = usize::from(event.draw.is_multiple_of(2));
        let links = self.fleet.links.iter();
        let affected: Vec<_> = links.map(|links| &links.amqp[node]).collect();
        self.inject_into(&affected, event, Mode::Refuse, true).await;
    }

    /// The first address of the broker drops packets, for one process or for all: each must connect to the second
    /// address in time.
    pub(super) async fn first_address(&self, event: &Event) {
        let all = self.fleet.links.len() as u64;
        let affected = match usize::try_from(event.draw % (all * 2)) {
            Ok(one) if (one as u64) < all => one..one + 1,
            _ => 0..self.fleet.links.len(),
        };
        let mut waiting = Vec::new();
        for links in &self.fleet.links[affected.clone()] {
            waiting.push(links.amqp[0].swallow().await);
        }
        // Processes that no other fault kills, and that always have a call to make or to serve.
        let steady = affected
            .clone()
            .filter(|process| self.fleet.is_steady(*process));
        let other = |process: usize| &self.fleet.links[process].amqp[1];
        let before: Vec<_> = steady
            .map(|process| (process, other(process).accepted()))
            .collect();
        let replies = || self.fleet.taps[0].replies();
        for link in self.fleet.links[affected.clone()]
            .iter()
            .flat_map(|links| &links.amqp)
        {
            link.cut();
        }
        let (since, replies_before) = (Instant::now(), replies());
        for (process, before) in before {
            while other(process).accepted() == before && since.elapsed() < FINDS_ANOTHER {
                sleep(POLL_INTERVAL).await;
            }
            if other(process).accepted() == before && !self.stop.is_cancelled() {
                let name = &self.fleet.logs()[process].0;
                self.ledger.broken(format!(
                    "{name} does not connect to the broker's second address while the first one drops packets"
                ));
            }
        }
        if affected.contains(&0) {
            while replies() == replies_before && since.elapsed() < FINDS_ANOTHER {
                sleep(POLL_INTERVAL).await;
            }
            if replies() == replies_before
                && !self.stop.is_cancelled()
                && !self.broker_is_disturbed(event)
            {
                self.ledger.broken(
                    "worker 0 sends no reply while the broker's first address drops packets",
                );
            }
        }
        self.last(event).await;
        drop(waiting);
        for links in &self.fleet.links[affected] {
            links.amqp[0].set(Mode::Pass);
        }
    }

    async fn inject_into(&self, affected: &[&Arc<Link>], event: &Event, mode: Mode, cut: bool) {
        for link in affected {
            link.set(mode);
            if cut {
                link.cut();
            }
        }
        self.last(event).await;
        for link in affected {
            link.set(Mode::Pass);
        }
    }
}
