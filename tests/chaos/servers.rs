//! The servers of a run: one broker and one Redis, or several of each.

use tokio::sync::Mutex;
use tokio::task::block_in_place;

use crate::args::Args;
use crate::broker::{self, Broker};
use crate::fault::{Fault, Topology};
use crate::redis_server::Redis;
use crate::redis_set::RedisSet;
use crate::support::rabbit_cluster::{NODES, RabbitCluster};

pub(crate) enum Servers {
    Single(Box<Single>),
    Several(Box<Several>),
}

pub(crate) struct Single {
    pub(crate) broker: Mutex<Broker>,
    pub(crate) redis: Mutex<Redis>,
}

pub(crate) struct Several {
    pub(crate) rabbit: Mutex<RabbitCluster>,
    pub(crate) redis: Mutex<RedisSet>,
}

/// Where processes connect to.
pub(crate) struct Ports {
    pub(crate) amqp: Vec<u16>,
    pub(crate) vhost: &'static str,
    /// Of the one Redis, to which links lead.
    pub(crate) redis: Vec<u16>,
    /// The address of several Redis servers, which has no links.
    pub(crate) redis_url: Option<String>,
}

impl Servers {
    pub(crate) async fn start(args: &Args) -> Result<(Self, Ports), String> {
        match args.topology() {
            Topology::Single => Self::single(args),
            topology => Self::several(topology, args.net_ticktime).await,
        }
    }

    fn single(args: &Args) -> Result<(Self, Ports), String> {
        let broker = Broker::start()?;
        if args.selected().contains(&Fault::HostilePublisher) {
            // Before the workers, which look for the dead-letter queue when they connect.
            broker.declare_dead_letters()?;
        }
        let redis = Redis::start()?;
        let ports = Ports {
            // Two addresses of one broker.
            amqp: vec![broker.port(); 2],
            vhost: broker::VHOST,
            redis: vec![redis.port()],
            redis_url: None,
        };
        let single = Single {
            broker: Mutex::new(broker),
            redis: Mutex::new(redis),
        };
        Ok((Self::Single(Box::new(single)), ports))
    }

    async fn several(topology: Topology, net_ticktime: u32) -> Result<(Self, Ports), String> {
        let rabbit = block_in_place(|| RabbitCluster::start(net_ticktime))?;
        let redis = RedisSet::start(topology).await;
        let ports = Ports {
            amqp: (0..NODES).map(|n| rabbit.port(n)).collect(),
            vhost: "%2f",
            redis: Vec::new(),
            redis_url: Some(redis.url()),
        };
        let several = Several {
            rabbit: Mutex::new(rabbit),
            redis: Mutex::new(redis),
        };
        Ok((Self::Several(Box::new(several)), ports))
    }

    /// The name of each queue of the run, and its numbers of ready and unacked messages.
    pub(crate) async fn queues(&self) -> Result<Vec<(String, u64, u64)>, String> {
        match self {
            Self::Single(single) => single.broker.lock().await.queues(),
            Self::Several(several) => {
                let rabbit = several.rabbit.lock().await;
                broker::queues_of("/", |expression| {
                    block_in_place(|| rabbit.evaluate(0, expression))
                })
            }
        }
    }

    /// The number of connections to the broker, or to all of its nodes.
    pub(crate) async fn connections(&self) -> Result<usize, String> {
        const COUNT: &str = "integer_to_list(length(rabbit_networking:connections())).";
        let text = match self {
            Self::Single(single) => single.broker.lock().await.evaluate(COUNT)?,
            Self::Several(several) => {
                let rabbit = several.rabbit.lock().await;
                block_in_place(|| rabbit.evaluate(0, COUNT))?
            }
        };
        text.trim().parse().map_err(|_| text)
    }
}
