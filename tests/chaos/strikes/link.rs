//! Faults of links: to a server, of one process in every other case, else of all.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::{BETWEEN_LOOKS, Striker};
use crate::fault::Fault;
use crate::plan::Event;
use crate::proxy::{Link, Mode};

/// Less than the time for one connection, some of which a process that connects anew may wait before.
const FINDS_ANOTHER: Duration = Duration::from_secs(4);

impl Striker {
    /// `links` are those of each process.
    pub(super) async fn links(&self, links: &[&[Arc<Link>]], event: &Event, mode: Mode) {
        let all = links.len() as u64;
        let struck = match usize::try_from(event.draw % (all * 2)) {
            Ok(one) if one < links.len() => &links[one..=one],
            _ => links,
        };
        let cut = matches!(
            event.fault,
            Fault::AmqpCut | Fault::AmqpRefuse | Fault::RedisCut | Fault::RedisRefuse
        );
        let struck: Vec<_> = struck.iter().copied().flatten().collect();
        self.strike_links(&struck, event, mode, cut).await;
    }

    /// One of the broker's addresses, for everybody.
    pub(super) async fn node(&self, event: &Event) {
        let node = usize::from(event.draw.is_multiple_of(2));
        let links = self.fleet.links.iter();
        let struck: Vec<_> = links.map(|links| &links.amqp[node]).collect();
        self.strike_links(&struck, event, Mode::Refuse, true).await;
    }

    /// The first address of the broker, for one process or for all: what is connected has to look for
    /// another one, and has it before long.
    pub(super) async fn first_address(&self, event: &Event) {
        let all = self.fleet.links.len() as u64;
        let struck = match usize::try_from(event.draw % (all * 2)) {
            Ok(one) if (one as u64) < all => one..one + 1,
            _ => 0..self.fleet.links.len(),
        };
        let mut waiting = Vec::new();
        for links in &self.fleet.links[struck.clone()] {
            waiting.push(links.amqp[0].swallow().await);
        }
        // Those that no fault of workers strikes at the same time, and that are never without a call.
        let steady = struck.clone().filter(|seat| self.fleet.is_steady(*seat));
        let other = |seat: usize| &self.fleet.links[seat].amqp[1];
        let before: Vec<_> = steady.map(|seat| (seat, other(seat).accepted())).collect();
        let replies = || self.fleet.taps[0].replies();
        for link in self.fleet.links[struck.clone()]
            .iter()
            .flat_map(|links| &links.amqp)
        {
            link.cut();
        }
        let (since, replies_before) = (Instant::now(), replies());
        for (seat, before) in before {
            while other(seat).accepted() == before && since.elapsed() < FINDS_ANOTHER {
                sleep(BETWEEN_LOOKS).await;
            }
            if other(seat).accepted() == before && !self.stop.is_cancelled() {
                let name = &self.fleet.logs()[seat].0;
                self.ledger.broken(format!(
                    "{name} does not connect to the broker's second address while the first swallows packets"
                ));
            }
        }
        if struck.contains(&0) {
            while replies() == replies_before && since.elapsed() < FINDS_ANOTHER {
                sleep(BETWEEN_LOOKS).await;
            }
            if replies() == replies_before
                && !self.stop.is_cancelled()
                && !self.broker_is_disturbed(event)
            {
                self.ledger.broken(
                    "worker 0 sends no reply while the broker's first address swallows packets",
                );
            }
        }
        self.last(event).await;
        drop(waiting);
        for links in &self.fleet.links[struck] {
            links.amqp[0].set(Mode::Pass);
        }
    }

    async fn strike_links(&self, struck: &[&Arc<Link>], event: &Event, mode: Mode, cut: bool) {
        for link in struck {
            link.set(mode);
            if cut {
                link.cut();
            }
        }
        self.last(event).await;
        for link in struck {
            link.set(Mode::Pass);
        }
    }
}
