//! A RabbitMQ cluster on loopback, one process for each node, to be killed, frozen and cut off.
//!
//! Any user can run it; cutting a node off takes root and iptables, since the packets of a node are told from
//! those of others by the user that it runs as.

use super::process::signal;
use super::rabbitmq::{epmd_command, evaluate, find};
use super::{lifetime, ports, wait};
use std::path::{Path, PathBuf};
use std::process::{Child, Command};

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
        let cookie = folder.join(".erlang.cookie").display().to_string();
        run("chmod", &["400", &cookie]).expect("the cookie is ours");
        if is_root() {
            let user = self.nodes[n].amqp.to_string();
            let parent = folder.parent().expect("the run's folder");
            run("chmod", &["711", &parent.display().to_string()]).expect("the folder is ours");
            let chown = run("chown", &["-R", &user, &folder.display().to_string()]);
            chown.expect("root may give files away");
        }
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

    /// Drops what a node sends to the others, until [`heal`](Self::heal). Clients still reach it.
    pub(crate) fn cut(&self, n: usize) -> Result<(), String> {
        self.packets_of(n, "-I")
    }

    pub(crate) fn heal(&self, n: usize) -> Result<(), String> {
        self.packets_of(n, "-D")
    }

    fn packets_of(&self, n: usize, change: &str) -> Result<(), String> {
        let user = self.nodes[n].amqp.to_string();
        for node in &self.nodes {
            let port = node.distribution.to_string();
            for side in ["--dport", "--sport"] {
                #[rustfmt::skip]
                let rule = [
                    change, "OUTPUT", "-o", "lo", "-p", "tcp", "-m", "owner", "--uid-owner", &user, "-m", "tcp",
                    side, &port, "-j", "DROP",
                ];
                run("iptables", &rule)?;
            }
        }
        Ok(())
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
        let mut node = as_user(&server, self.amqp);
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

/// Root starts each node as a user of its own, whose number is the node's port.
fn as_user(program: &Path, user: u16) -> Command {
    if !is_root() {
        return Command::new(program);
    }
    let mut command = Command::new("setpriv");
    command
        .args(["--reuid", &user.to_string(), "--clear-groups"])
        .arg(program);
    command
}

fn is_root() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let user = status.lines().find_map(|line| line.strip_prefix("Uid:"));
    user.and_then(|ids| ids.split_whitespace().nth(1)) == Some("0")
}

fn run(program: &str, arguments: &[&str]) -> Result<(), String> {
    let output = Command::new(program).args(arguments).output();
    let output = output.map_err(|error| {
        format!("cannot run {program}, which cutting off a node takes: {error}")
    })?;
    if output.status.success() {
        return Ok(());
    }
    Err(String::from_utf8_lossy(&output.stderr).into_owned())
}
