//! Faults of links: of one process's in every other case, else of all to that server.

use std::sync::Arc;

use super::Striker;
use crate::fault::Fault;
use crate::plan::Event;
use crate::proxy::{Link, Mode};

impl Striker {
    pub(super) async fn links(&self, links: &[Arc<Link>], event: &Event, mode: Mode) {
        let all = links.len() as u64;
        let struck = match usize::try_from(event.draw % (all * 2)) {
            Ok(one) if one < links.len() => &links[one..=one],
            _ => links,
        };
        for link in struck {
            link.set(mode);
            if matches!(
                event.fault,
                Fault::AmqpCut | Fault::AmqpRefuse | Fault::RedisCut | Fault::RedisRefuse
            ) {
                link.cut();
            }
        }
        self.last(event).await;
        for link in struck {
            link.set(Mode::Pass);
        }
    }
}
