//! The links of one process to the servers of a run.

use std::sync::Arc;

use crate::proxy::Link;
use crate::tap::{Protocol, Tap};

pub(crate) struct Links {
    /// One for each address of the broker.
    pub(crate) amqp: Vec<Arc<Link>>,
    /// None to several servers, which announce addresses of their own.
    pub(crate) redis: Vec<Arc<Link>>,
    vhost: &'static str,
}

impl Links {
    /// Links to these ports of the broker and of Redis.
    pub(crate) fn to(
        (amqp, vhost): (&[u16], &'static str),
        redis: &[u16],
        tap: Option<&Arc<Tap>>,
    ) -> Self {
        let links = |ports: &[u16], protocol: fn() -> Protocol| {
            let tap = || tap.map(|tap| (Arc::clone(tap), protocol()));
            let ports = ports.iter();
            ports.map(|&port| Arc::new(Link::to(port, tap()))).collect()
        };
        Self {
            amqp: links(amqp, || Protocol::Amqp),
            redis: links(redis, || Protocol::Redis),
            vhost,
        }
    }

    /// The address of the broker.
    pub(crate) fn amqp_url(&self) -> String {
        // Without a heartbeat of its own: rpcache's default applies.
        let node =
            |link: &Arc<Link>| format!("amqp://guest:guest@127.0.0.1:{}/{}", link.port, self.vhost);
        let nodes: Vec<_> = self.amqp.iter().map(node).collect();
        nodes.join(",")
    }

    /// The address of one Redis; `None` without a link to it.
    pub(crate) fn redis_url(&self) -> Option<String> {
        let link = self.redis.first()?;
        Some(format!("redis://127.0.0.1:{}/", link.port))
    }

    pub(crate) fn all(&self) -> impl Iterator<Item = &Arc<Link>> {
        self.amqp.iter().chain(&self.redis)
    }
}
