//! A RabbitMQ cluster on loopback, one process for each node, to be killed, frozen and cut off.
//!
//! Any user can run it; cutting a node off takes root and iptables.

use super::isolated::{self, Dropped};
use super::process::signal;
use super::rabbitmq::{epmd_command, evaluate, find};
use super::{lifetime, ports, wait};
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::Child;

/// The number of nodes.
pub(crate) const NODES: usize = 3;

pub(crate) struct RabbitCluster {
    nodes: Vec<ClusterNode>,
    epmd: u16,
    /// The port of the first node's management API.
    management: u16,
    net_ticktime: u32,
    _epmd_process: Child,
}

struct ClusterNode {
    folder: PathBuf,
    amqp: u16,
    distribution: u16,
    /// The shell script that runs the Erlang machine and ends with it.
    script: Option<Child>,
}

impl RabbitCluster {
    /// Starts the nodes and waits until they are one cluster. `net_ticktime` is in seconds: so long at most a silent
    /// node counts as a member.
    pub(crate) fn start(net_ticktime: u32) -> Result<Self, String> {
        let mut failure = String::new();
        for _ in 0..3 {
            // Another process may have taken one of the ports: once more with others.
            match Self::try_to_start(net_ticktime) {
                Ok(cluster) => return Ok(cluster),
                Err(reason) => failure = reason,
            }
        }
        Err(failure)
    }

    fn try_to_start(net_ticktime: u32) -> Result<Self, String> {
        let [epmd, management, ports @ ..] = ports::free::<{ 2 + 2 * NODES }>();
        let epmd_process =
            lifetime::start_server(epmd_command(epmd), &lifetime::folder("epmd"), epmd)?;
        let nodes = (0..NODES).map(|n| ClusterNode {
            folder: lifetime::folder("rabbitmq"),
            amqp: ports[n],
            distribution: ports[NODES + n],
            script: None,
        });
        let mut cluster = Self {
            nodes: nodes.collect(),
            epmd,
            management,
            net_ticktime,
            _epmd_process: epmd_process,
        };
        for n in 0..NODES {
            cluster.prepare(n);
        }
        // The others join the first one.
        cluster.launch(0)?;
        std::thread::scope(|scope| {
            let mut starting = Vec::new();
            for (n, node) in cluster.nodes.iter_mut().enumerate().skip(1) {
                starting.push(scope.spawn(move || node.launch(n, epmd, net_ticktime)));
            }
            starting
                .into_iter()
                .try_for_each(|started| started.join().map_err(|_| "it panicked".to_owned())?)
        })?;
        match cluster.members(0)? {
            NODES => Ok(cluster),
            members => Err(format!("only {members} nodes have joined")),
        }
    }

    fn prepare(&self, n: usize) {
        let folder = &self.nodes[n].folder;
        let write = |name: &str, content: String| {
            std::fs::write(folder.join(name), content).expect("the run's folder is ours");
        };
        let plugin = if n == 0 {
            "rabbitmq_management"
        } else {
            "rabbitmq_management_agent"
        };
        write("enabled_plugins", format!("[{plugin}]."));
        write(".erlang.cookie", "rpcache".into());
        let peers = (0..NODES).map(|n| {
            format!(
                "cluster_formation.classic_config.nodes.{} = {}\n",
                n + 1,
                name(n)
            )
        });
        let conf = format!(
            "listeners.tcp.1 = 127.0.0.1:{}\n\
             cluster_partition_handling = pause_minority\n\
             disk_free_limit.absolute = 1MB\n\
             vm_memory_high_watermark.absolute = 1GB\n\
             cluster_formation.peer_discovery_backend = classic_config\n{}{}",
            self.nodes[n].amqp,
            if n == 0 {
                format!(
                    "management.tcp.ip = 127.0.0.1\nmanagement.tcp.port = {}\n",
                    self.management
                )
            } else {
                String::new()
            },
            peers.collect::<String>()
        );
        write("rabbitmq.conf", conf);
        let cookie = folder.join(".erlang.cookie");
        let only_its_owner = std::fs::Permissions::from_mode(0o400);
        std::fs::set_permissions(cookie, only_its_owner).expect("the cookie is ours");
        isolated::give(folder, self.nodes[n].amqp);
    }

    pub(crate) fn url_of(&self, n: usize) -> String {
        url(self.port(n))
    }

    /// The address of the management API.
    pub(crate) fn management_url(&self) -> String {
        format!("http://127.0.0.1:{}", self.management)
    }

    pub(crate) fn port(&self, n: usize) -> u16 {
        self.nodes[n].amqp
    }

    /// Starts a node that has ended, on its data, and waits until it takes part.
    pub(crate) fn launch(&mut self, n: usize) -> Result<(), String> {
        let (epmd, net_ticktime) = (self.epmd, self.net_ticktime);
        self.nodes[n].launch(n, epmd, net_ticktime)
    }

    /// Kills the Erlang machine.
    pub(crate) fn kill(&self, n: usize) {
        signal("KILL", self.machine(n));
    }

    /// Asks a node to end, and waits for that.
    pub(crate) fn stop(&mut self, n: usize) {
        signal("TERM", self.machine(n));
        if let Some(mut script) = self.nodes[n].script.take() {
            let _ = script.wait();
        }
    }

    pub(crate) fn freeze(&self, n: usize) {
        signal("STOP", self.machine(n));
    }

    pub(crate) fn thaw(&self, n: usize) {
        signal("CONT", self.machine(n));
    }

    /// Drops what a node sends to the others, until the result is dropped. Clients still reach it.
    pub(crate) fn cut(&self, n: usize) -> Result<Dropped, String> {
        let ports = self.nodes.iter().map(|node| node.distribution.to_string());
        let ports: Vec<_> = ports.collect();
        let to_or_from = |port| [["--dport", port], ["--sport", port]];
        let rules: Vec<_> = ports.iter().flat_map(|port| to_or_from(port)).collect();
        let rules: Vec<_> = rules.iter().map(|rule| &rule[..]).collect();
        Dropped::of(self.nodes[n].amqp, &rules)
    }

    /// The node that leads a queue of the vhost `/`, as node `asked` has it.
    pub(crate) fn leader(&self, queue: &str, asked: usize) -> Result<usize, String> {
        let leader = self.evaluate(
            asked,
            &format!(
                "{{ok, Queue}} = rabbit_amqqueue:lookup({{resource, <<\"/\">>, queue, <<\"{queue}\">>}}), \
                 {{_, Node}} = amqqueue:get_pid(Queue), atom_to_list(Node)."
            ),
        )?;
        let found = (0..NODES).find(|&n| name(n) == leader);
        found.ok_or_else(|| format!("{queue} is led by {leader:?}"))
    }

    /// What waits until a node sees another leader of a queue of the vhost `/` than at its beginning; when, in
    /// microseconds of the system's clock. `None`: not within 50 s.
    pub(crate) fn next_leader(
        &self,
        queue: &str,
        asked: usize,
    ) -> impl FnOnce() -> Result<Option<u64>, String> + Send + use<> {
        let expression = format!(
            "{{ok, Queue}} = rabbit_amqqueue:lookup({{resource, <<\"/\">>, queue, <<\"{queue}\">>}}), \
             {{Name, _}} = amqqueue:get_pid(Queue), \
             First = ra_leaderboard:lookup_leader(Name), \
             Wait = fun Wait(0) -> \"none\"; \
                        Wait(Left) -> case ra_leaderboard:lookup_leader(Name) of \
                            Next when Next =/= First, Next =/= undefined -> \
                                integer_to_list(erlang:system_time(microsecond)); \
                            _ -> timer:sleep(20), Wait(Left - 1) end end, \
             Wait(2500)."
        );
        let (epmd, folder) = (self.epmd, self.nodes[asked].folder.clone());
        move || {
            let seen = evaluate(&name(asked), epmd, &folder, &expression)?;
            match seen.as_str() {
                "none" => Ok(None),
                at => at.parse().map(Some).map_err(|_| seen),
            }
        }
    }

    /// Whether every node sees all the others, and no partition.
    pub(crate) fn is_whole(&self) -> bool {
        (0..NODES).all(|n| self.is_member(n))
    }

    /// Whether a node sees all the others, and no partition.
    pub(crate) fn is_member(&self, n: usize) -> bool {
        let partitions = self.evaluate(
            n,
            "integer_to_list(length(rabbit_node_monitor:partitions())).",
        );
        self.members(n) == Ok(NODES) && partitions.as_deref() == Ok("0")
    }

    /// How many nodes a node sees running.
    pub(crate) fn members(&self, asked: usize) -> Result<usize, String> {
        let members = self.evaluate(
            asked,
            "integer_to_list(length(rabbit_nodes:all_running())).",
        )?;
        members.parse().map_err(|_| members)
    }

    /// Has a node evaluate an Erlang expression.
    pub(crate) fn evaluate(&self, n: usize, expression: &str) -> Result<String, String> {
        evaluate(&name(n), self.epmd, &self.nodes[n].folder, expression)
    }

    fn machine(&self, n: usize) -> u32 {
        let running = self.running(n);
        running.unwrap_or_else(|| panic!("node {n} does not run"))
    }

    /// The process of a node's Erlang machine. The file may have the number of one that has ended.
    fn running(&self, n: usize) -> Option<u32> {
        let pid = std::fs::read_to_string(self.nodes[n].folder.join("pid")).ok()?;
        let pid = pid.trim().parse().ok()?;
        let environment = std::fs::read(format!("/proc/{pid}/environ")).ok()?;
        let node = format!("RABBITMQ_NODENAME={}", name(n)).into_bytes();
        environment
            .split(|byte| *byte == 0)
            .any(|line| line == node)
            .then_some(pid)
    }
}

impl ClusterNode {
    fn launch(&mut self, n: usize, epmd: u16, net_ticktime: u32) -> Result<(), String> {
        if let Some(mut script) = self.script.take() {
            let _ = script.wait();
        }
        let _ = std::fs::remove_file(self.folder.join("pid"));
        let server = find("lib/rabbitmq/bin/rabbitmq-server", "sbin/rabbitmq-server")?;
        // As a user of its own, so that a rule of iptables can match its packets.
        let mut node = isolated::command(&server, self.amqp);
        let folder = &self.folder;
        node.env("ERL_EPMD_PORT", epmd.to_string())
            .env("ERL_EPMD_ADDRESS", "127.0.0.1")
            .env("HOME", folder)
            .env("RABBITMQ_NODENAME", name(n))
            .env("RABBITMQ_DIST_PORT", self.distribution.to_string())
            .env("RABBITMQ_MNESIA_BASE", folder.join("mnesia"))
            .env("RABBITMQ_LOG_BASE", folder.join("log"))
            .env("RABBITMQ_ENABLED_PLUGINS_FILE", folder.join("enabled_plugins"))
            .env("RABBITMQ_CONFIG_FILE", folder.join("rabbitmq.conf"))
            .env("RABBITMQ_PID_FILE", folder.join("pid"))
            .env("RABBITMQ_CONF_ENV_FILE", "/dev/null")
            .env(
                "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS",
                // Few schedulers, and none that spins: three nodes share the machine.
                format!(
                    "+S 2:2 +sbwt none +sbwtdcpu none +sbwtdio none -kernel net_ticktime {net_ticktime}"
                ),
            );
        self.script = Some(lifetime::start_server(node, folder, self.amqp)?);
        wait::block_until("RabbitMQ has started", || {
            Ok(lifetime::output_of(folder).contains("completed with"))
        })
    }
}

impl Drop for RabbitCluster {
    fn drop(&mut self) {
        for n in 0..NODES {
            if let Some(machine) = self.running(n) {
                signal("KILL", machine);
            }
        }
    }
}

pub(crate) fn url(port: u16) -> String {
    format!("amqp://guest:guest@127.0.0.1:{port}/%2f")
}

fn name(n: usize) -> String {
    format!("t{}n{n}@localhost", std::process::id())
}
