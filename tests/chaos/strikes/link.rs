//! Faults of links: to a server, of one process in every other case, else of all.

use std::sync::Arc;

use super::Striker;
use crate::fault::Fault;
use crate::plan::Event;
use crate::proxy::{Link, Mode};

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
