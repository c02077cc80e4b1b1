//! The remedy for each finding: what to type or to set. One step per line; a line that begins with a space continues
//! the command before it.

use rpcache::doctor::{Check, ClusterProblem, Finding, Found, MissingRights, Severity};
use rpcache::{Error, QueueName};

use crate::args;
use crate::output::{UNIX_SOCKET, is_local, tls_remedy};

const AMQP: &str = "--amqp-url (AMQP_URL)";
const REDIS: &str = "--redis-url (REDIS_URL)";
const MANAGEMENT: &str = "--management-url (RPCACHE_MANAGEMENT_URL)";
const NAMESPACE: &str = "--namespace (RPCACHE_NAMESPACE)";

/// The remedy for faults of any other kind.
const LOGS: &str = "see the log of the workers, and of both servers";

/// Makes remedies that name the queue and the vhost.
pub(super) struct Remedies {
    queue: QueueName,
    /// As the check of the vhost found it.
    vhost: String,
}

impl Remedies {
    pub(super) fn new(args: &args::Doctor) -> Self {
        Self {
            queue: args.queue(),
            vhost: "/".to_owned(),
        }
    }

    /// The remedy; `None` if there is nothing to do.
    pub(super) fn of(&mut self, finding: &Finding) -> Option<String> {
        if let Found::Vhost(vhost) = &finding.found {
            self.vhost.clone_from(vhost);
        }
        match finding.severity {
            Severity::Skipped
                if finding.check == Check::AmqpCluster
                    && matches!(finding.found, Found::Unknown(_)) =>
            {
                Some("give --management-url http://HOST:15672 (RPCACHE_MANAGEMENT_URL)".to_owned())
            }
            Severity::Ok | Severity::Skipped => None,
            Severity::Warning | Severity::Failure => Some(match finding.check {
                Check::Queue | Check::Consumers | Check::DeadLetters => self.for_queue(finding),
                Check::Call | Check::Hit => self.for_call(finding),
                Check::AmqpCluster => for_cluster(finding),
                _ => for_server(finding),
            }),
        }
    }

    fn for_queue(&self, finding: &Finding) -> String {
        let Self { queue, vhost } = self;
        match (finding.check, &finding.found) {
            (Check::Queue, Found::NoQueue(_)) => {
                format!("start a worker, which creates it: {}", self.worker())
            }
            (_, Found::ExclusiveQueue(queue)) => format!(
                "stop the program that owns {queue}: rabbitmqctl list_queues -p {vhost} name owner_pid\n\
                 or give rpcache another --queue (RPCACHE_QUEUE)"
            ),
            (Check::Queue, Found::Queue(_)) => format!(
                "if no tutorial program needs this kind of queue, stop the workers, and\n\
                 rabbitmqctl delete_queue -p {vhost} {queue} --if-empty\n\
                 {}",
                self.worker()
            ),
            (Check::Consumers, Found::Consumers { consumers: 0, .. }) => {
                format!("start a worker: {}", self.worker())
            }
            (Check::Consumers, Found::Consumers { .. }) => {
                format!("start more workers: {}", self.worker())
            }
            (Check::DeadLetters, Found::NoQueue(dead)) => format!(
                "declare {dead}, and set a policy that dead-letters messages of {queue} to it, \
                 as docker/rabbitmq/definitions.json does; then workers answer these messages"
            ),
            (Check::DeadLetters, Found::Consumers { queue, .. }) => format!(
                "start or restart the workers: they look for {queue} when they connect, and need \
                 the right to read it"
            ),
            _ => LOGS.to_owned(),
        }
    }

    fn for_call(&self, finding: &Finding) -> String {
        let Self { queue, vhost } = self;
        match &finding.found {
            Found::Failed(Error::WrongAnswer { .. }) => format!(
                "stop the program that serves {queue} (rabbitmqctl list_consumers -p {vhost} names \
                 it), or give rpcache another --queue (RPCACHE_QUEUE)"
            ),
            Found::Failed(Error::NoWorkers { .. }) => {
                format!("start a worker: {}", self.worker())
            }
            Found::Failed(Error::Deadline { .. }) => {
                "see the log of the workers; --timeout gives them longer".to_owned()
            }
            Found::Failed(Error::Overloaded { .. }) => alarm(),
            Found::Replaced { .. } => "find the program that writes there; check all entries:\n\
                                       rpcache cache verify --repair"
                .to_owned(),
            Found::TooLate(_) => "use a Redis nearby, or a longer --cache-budget \
                                  (RPCACHE_CACHE_BUDGET)"
                .to_owned(),
            Found::StoredElsewhere(_) => {
                format!("give workers and clients the same {REDIS} and the same {NAMESPACE}")
            }
            Found::NotStored(_) => format!(
                "see the workers' log: do they use this Redis, has it memory, may \
                 they write there? Set their {REDIS}"
            ),
            _ => LOGS.to_owned(),
        }
    }

    fn worker(&self) -> String {
        match self.queue.to_string().as_str() {
            "rpc_queue" => "rpcache worker".to_owned(),
            queue => format!("rpcache worker --queue {queue}"),
        }
    }
}

fn for_server(finding: &Finding) -> String {
    let is_redis = finding.check.as_str().starts_with("redis");
    let url = if is_redis { REDIS } else { AMQP };
    match (finding.check, &finding.found) {
        (_, Found::Failed(Error::Tls { fault, .. })) => {
            tls_remedy(fault, is_redis).unwrap_or_else(|| LOGS.to_owned())
        }
        (_, Found::NoAddress(_)) => format!("correct {url}"),
        (_, Found::PlainText) => format!(
            "write {} in {url}, if the server supports TLS",
            if is_redis { "rediss://" } else { "amqps://" },
        ),
        (Check::AmqpEncryption | Check::RedisEncryption, _) => {
            format!("does the server speak TLS at this port? Correct host and port in {url}; see the server's log")
        }
        (Check::AmqpName | Check::RedisName, _) => {
            format!("correct the host in {url}, or this machine's name resolution")
        }
        (Check::RedisPort, Found::Nodes { failed, .. })
            if failed.iter().all(|at| at.starts_with('/')) =>
        {
            format!("{UNIX_SOCKET}\nor correct the path in {url}")
        }
        (Check::AmqpPort | Check::RedisPort, Found::Nodes { failed, .. }) => {
            if failed.iter().all(|node| is_local(node)) {
                format!(
                    "is it running? `scripts/services up` or `docker compose up -d` starts the \
                     servers\nor correct the port in {url}"
                )
            } else {
                format!(
                    "is it running there, and does the firewall let this machine through?\n\
                     or correct host and port in {url}"
                )
            }
        }
        (Check::AmqpProtocol, _) => {
            let or_hangs = or_hangs(&finding.found);
            format!("correct host and port in {url}; RabbitMQ's own port is 5672{or_hangs}")
        }
        (Check::RedisProtocol, _) => {
            let or_hangs = or_hangs(&finding.found);
            format!("correct host and port in {url}; Redis' own port is 6379{or_hangs}")
        }
        (Check::AmqpLogin, Found::Failed(Error::Refused { reason, .. }))
            if reason.contains("channel_max") =>
        {
            "set channel_max in the broker's rabbitmq.conf, and no channel_max in the address: 2047 is the \
             default"
                .to_owned()
        }
        (Check::AmqpLogin, Found::Failed(Error::Refused { .. })) => format!(
            "correct user and password in {url}, or on the broker:\n\
             rabbitmqctl change_password USER PASSWORD\n\
             (guest may log in from the broker's own machine only)"
        ),
        (Check::AmqpVhost, Found::Failed(Error::Overloaded { .. })) => {
            "wait until connections are closed, or raise the limit: rabbitmqctl list_vhost_limits, \
             list_user_limits"
                .to_owned()
        }
        (Check::AmqpVhost, Found::Failed(_)) => format!(
            "correct the vhost in {url} (the vhost / is written %2f), or create it:\n\
             rabbitmqctl add_vhost VHOST\n\
             rabbitmqctl set_permissions -p VHOST USER '.*' '.*' '.*'"
        ),
        (Check::AmqpNodes, _) => {
            "look at the nodes with rabbitmqctl cluster_status; restart one that is partitioned. Until a silent \
             node is given up, it holds up queues: set net_ticktime to 10"
                .to_owned()
        }
        (Check::AmqpRights, Found::MayNotPublish { user, vhost, .. }) => format!(
            "rabbitmqctl set_permissions -p {vhost} {user} \\\n \
             '^amq\\.gen-.*$' '^amq\\.default$' '^amq\\.gen-.*$'"
        ),
        (Check::AmqpRights, Found::Failed(Error::Overloaded { .. })) => alarm(),
        (
            Check::RedisLogin,
            Found::Failed(Error::Refused { reason, .. } | Error::Unreachable { reason, .. }),
        ) => for_redis_login(reason),
        (_, Found::ReadOnlyReplica(address)) => {
            let (host, port) = address.rsplit_once(':').unwrap_or((address, "6379"));
            let host = host.trim_matches(['[', ']']);
            format!(
                "write the primary's address in {url}, or a name that follows it; the address is printed by\n\
                 redis-cli -h {host} -p {port} ROLE"
            )
        }
        (_, Found::Shards(_)) => {
            format!("write redis+cluster:// in place of redis:// in {url}")
        }
        (Check::RedisVersion, Found::Version(_)) => "use Redis 7.0 or later".to_owned(),
        (_, Found::MissingRights(missing)) => for_rights(missing),
        (
            _,
            Found::Memory {
                limit, for_ever, ..
            },
        ) => for_memory(limit.is_some(), *for_ever),
        _ => LOGS.to_owned(),
    }
}

/// A step for a server that accepts connections and does not answer.
fn or_hangs(found: &Found) -> &'static str {
    match found {
        Found::Nodes { failed, .. } if failed.iter().any(|node| node.ends_with("it hangs")) => {
            "\nor restart the server, if it hangs"
        }
        _ => "",
    }
}

/// The remedy for a refused login, by the message of Redis or of its client library.
fn for_redis_login(reason: &str) -> String {
    if reason.contains("max number of clients") {
        return "close connections, or raise the limit: redis-cli CONFIG SET maxclients 10000\n\
                redis-cli CLIENT LIST shows the connections"
            .to_owned();
    }
    if reason.contains("'select'") {
        return format!(
            "redis-cli ACL SETUSER USER +select\nor use database 0 in {REDIS}, which needs no such right"
        );
    }
    if reason.contains("DB index is out of range") {
        return format!(
            "correct the number of the database in {REDIS}:\n\
             redis-cli CONFIG GET databases says how many there are"
        );
    }
    if reason.contains(": write redis") {
        return format!("write that address in {REDIS}");
    }
    if reason.contains("+cluster|slots") {
        return "redis-cli ACL SETUSER USER +cluster|slots\non every node".to_owned();
    }
    if reason.contains("begins with redis") || reason.contains("watches no primary") {
        return format!("correct the address in {REDIS}");
    }
    if reason.contains("authentication")
        || reason.contains("NOAUTH")
        || reason.contains("WRONGPASS")
    {
        return format!("correct user and password in {REDIS}");
    }
    LOGS.to_owned()
}

fn for_rights(missing: &MissingRights) -> String {
    // A shell would expand patterns of keys.
    let quoted = |right: &String| match right.strip_prefix('~') {
        Some(_) => format!("'{right}'"),
        None => right.clone(),
    };
    let rights = missing.client.iter().chain(&missing.worker).map(quoted);
    let rights = rights.collect::<Vec<_>>().join(" ");
    let mut remedy = format!("redis-cli ACL SETUSER {} {rights}", missing.user);
    if missing.client.is_empty() {
        remedy.push_str("\nor nothing, if no worker uses this login");
    }
    remedy
}

fn for_memory(bounded: bool, for_ever: bool) -> String {
    let mut steps = Vec::new();
    if !bounded {
        steps.push("redis-cli CONFIG SET maxmemory 1gb");
    }
    steps.push("redis-cli CONFIG SET maxmemory-policy allkeys-lfu");
    if for_ever {
        steps.push("or let answers expire: --ttl 1d (RPCACHE_TTL)");
    }
    steps.join("\n")
}

fn for_cluster(finding: &Finding) -> String {
    match &finding.found {
        Found::Cluster { problems, .. } => {
            let mut steps: Vec<_> = problems.iter().map(for_cluster_problem).collect();
            steps.dedup();
            steps.join("\n")
        }
        Found::Failed(Error::Refused { .. }) => format!(
            "correct the login in {MANAGEMENT}, or on the broker:\n\
             rabbitmqctl set_user_tags USER monitoring"
        ),
        Found::Failed(Error::Tls { fault, .. }) => {
            tls_remedy(fault, false).unwrap_or_else(|| LOGS.to_owned())
        }
        _ => format!(
            "correct {MANAGEMENT}, or on the broker:\nrabbitmq-plugins enable rabbitmq_management"
        ),
    }
}

fn for_cluster_problem(problem: &ClusterProblem) -> String {
    match problem {
        ClusterProblem::Down { node } => format!("start {node}"),
        ClusterProblem::Partitioned { node, .. } => format!("restart {node}"),
        ClusterProblem::Alarm { .. } => alarm(),
        ClusterProblem::LongTickTime { .. } => {
            "set net_ticktime = 10 in rabbitmq.conf, and restart one node after the other"
                .to_owned()
        }
        ClusterProblem::OneCopy { queue, .. } => format!(
            "if no tutorial program needs a classic queue, stop the workers, delete {queue}, and start them: \
             they declare a quorum queue"
        ),
        ClusterProblem::FewReplicas { .. } => "rabbitmq-queues grow NODE all".to_owned(),
        ClusterProblem::Offline { nodes, .. } => {
            format!("see the logs of {nodes}; rabbitmq-queues quorum_status QUEUE")
        }
        ClusterProblem::OneLeader { .. } => "rabbitmq-queues rebalance quorum".to_owned(),
        _ => LOGS.to_owned(),
    }
}

fn alarm() -> String {
    "free memory or disk space on the broker: `rabbitmq-diagnostics alarms` says which it lacks"
        .to_owned()
}
