//! The RabbitMQ node that all tests share, started by the first one that needs it, with a vhost for each test.
//! The parent module configures further listeners.

use super::{lifetime, ports, wait};
use serde_json::json;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, OnceLock, PoisonError};

/// The numbers of vhosts that the node starts with, and that are made together later, at some 50 ms for each and half a
/// second for the Erlang node that asks for them. A vhost is used once.
const FIRST: usize = 16;
const BATCH: usize = 64;

/// Users of every vhost: name, and the patterns of what it may configure, write and read.
const USERS: [(&str, [&str; 3]); 4] = [
    ("guest", [".*", ".*", ".*"]),
    ("worker", ["^$", r"^amq\.default$", r"^rpc_queue(\.dead)?$"]),
    ("client", ["^$", r"^amq\.default$", "^$"]),
    ("mute", ["^$", "^$", "^$"]),
];

/// A vhost that belongs to one test.
pub(crate) struct Vhost {
    port: u16,
    tls_port: u16,
    name: String,
}

impl Vhost {
    /// The next unused vhost. Starts the broker for the first one.
    pub(crate) fn unused() -> Self {
        static MADE_AND_USED: Mutex<(usize, usize)> = Mutex::new((FIRST, 0));
        let node = broker();
        // A test that panicked here has reported the reason.
        let mut numbers = MADE_AND_USED.lock().unwrap_or_else(PoisonError::into_inner);
        let (made, used) = &mut *numbers;
        if used == made {
            node.make_vhosts(*made..*made + BATCH);
            *made += BATCH;
        }
        *used += 1;
        Self {
            port: node.amqp,
            tls_port: node.further,
            name: vhost(*used - 1),
        }
    }

    /// The port of the further listener.
    pub(crate) fn tls_port(&self) -> u16 {
        self.tls_port
    }

    /// The name of the vhost.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// The URL of the user with all rights.
    pub(crate) fn url(&self) -> String {
        self.url_by(self.port)
    }

    /// The URL of that user by another port.
    pub(crate) fn url_by(&self, port: u16) -> String {
        format!("amqp://guest:guest@127.0.0.1:{port}/{}", self.name)
    }

    /// A vhost of another node.
    pub(crate) fn of(node: &Node, number: usize) -> Self {
        Self {
            port: node.amqp,
            tls_port: node.further,
            name: vhost(number),
        }
    }

    /// Makes the same vhost at another node.
    pub(crate) fn is_at(&self, node: &Node) {
        let number = self.name.trim_start_matches('t').parse().expect("a number");
        node.make_vhosts(number..number + 1);
    }

    /// A vhost that another program makes.
    pub(crate) fn made(name: &str) -> Self {
        Self {
            port: broker().amqp,
            tls_port: broker().further,
            name: name.to_owned(),
        }
    }

    /// The URL of one of [`USERS`]; the password is the name.
    pub(crate) fn url_of(&self, user: &str) -> String {
        self.url_with(user, user)
    }

    pub(crate) fn url_with(&self, user: &str, password: &str) -> String {
        format!(
            "amqp://{user}:{password}@127.0.0.1:{}/{}",
            self.port, self.name
        )
    }
}

fn vhost(number: usize) -> String {
    format!("t{number}")
}

/// The broker that all tests share.
pub(crate) fn broker() -> &'static Node {
    // A failure is kept, too: otherwise each test would repeat it slowly.
    static BROKER: OnceLock<Result<Node, String>> = OnceLock::new();
    match BROKER.get_or_init(|| Node::start(FIRST)) {
        Ok(node) => node,
        Err(reason) => panic!("no RabbitMQ for the tests: {reason}"),
    }
}

/// A RabbitMQ node and the epmd that belongs to it alone.
pub(crate) struct Node {
    pub(crate) folder: PathBuf,
    pub(crate) amqp: u16,
    /// The port of the further listener.
    further: u16,
    distribution: u16,
    pub(crate) epmd: u16,
    /// The shell script that runs the Erlang VM and ends with it.
    script: Option<Child>,
    _epmd_process: Child,
}

impl Node {
    /// Starts a node with so many vhosts. Each takes some 0.1 s, and more at a restart.
    pub(crate) fn start(vhosts: usize) -> Result<Self, String> {
        Self::start_with(vhosts, "")
    }

    /// With further lines of rabbitmq.conf.
    pub(crate) fn start_with(vhosts: usize, settings: &str) -> Result<Self, String> {
        let mut failure = String::new();
        for _ in 0..3 {
            // Another process may have taken one of the ports: try again with others.
            match Self::try_to_start(vhosts, settings) {
                Ok(node) => return Ok(node),
                Err(reason) => failure = reason,
            }
        }
        Err(failure)
    }

    fn try_to_start(vhosts: usize, settings: &str) -> Result<Self, String> {
        let folder = lifetime::folder("rabbitmq");
        let [amqp, other, distribution, epmd] = ports::free();
        let settings = super::further_listeners(other) + settings;
        write_configuration(&folder, amqp, vhosts, &settings);
        // Otherwise the node starts an epmd that outlives it.
        let epmd_process =
            lifetime::start_server(epmd_command(epmd), &lifetime::folder("epmd"), epmd)?;
        let mut node = Self {
            folder,
            amqp,
            further: other,
            distribution,
            epmd,
            script: None,
            _epmd_process: epmd_process,
        };
        node.launch()?;
        node.wait_until_started()?;
        Ok(node)
    }

    /// A node listens before it counts as running, and until then RabbitMQ 4.0 drops replies by direct reply-to.
    fn wait_until_started(&self) -> Result<(), String> {
        wait::block_until("RabbitMQ has started", || {
            Ok(lifetime::output_of(&self.folder).contains("completed with"))
        })
    }

    /// Starts the node with its data, also after it was killed; returns when it listens.
    pub(crate) fn launch(&mut self) -> Result<(), String> {
        if let Some(mut script) = self.script.take() {
            let _ = script.wait();
        }
        let mut node = Command::new(find(
            "lib/rabbitmq/bin/rabbitmq-server",
            "sbin/rabbitmq-server",
        )?);
        node.env("ERL_EPMD_PORT", self.epmd.to_string())
            .env("ERL_EPMD_ADDRESS", "127.0.0.1")
            .env("HOME", &self.folder)
            .env("RABBITMQ_NODENAME", node_name())
            .env("RABBITMQ_DIST_PORT", self.distribution.to_string())
            .env("RABBITMQ_MNESIA_BASE", self.folder.join("mnesia"))
            .env("RABBITMQ_LOG_BASE", self.folder.join("log"))
            .env(
                "RABBITMQ_ENABLED_PLUGINS_FILE",
                self.folder.join("enabled_plugins"),
            )
            .env("RABBITMQ_CONFIG_FILE", self.folder.join("rabbitmq.conf"))
            .env("RABBITMQ_PID_FILE", self.folder.join("pid"))
            .env("RABBITMQ_CONF_ENV_FILE", "/dev/null");
        // The definitions are in place before the port is opened.
        self.script = Some(lifetime::start_server(node, &self.folder, self.amqp)?);
        Ok(())
    }
}

impl Node {
    fn make_vhosts(&self, numbers: Range<usize>) {
        let file = self
            .folder
            .join(format!("definitions-{}.json", numbers.start));
        std::fs::write(&file, definitions(numbers).to_string()).expect("the run's folder is ours");
        let expression = format!(
            "{{ok, Json}} = file:read_file(\"{}\"), ok = rabbit_definitions:import_raw(Json).",
            file.display()
        );
        self.evaluate(&expression)
            .unwrap_or_else(|reason| panic!("no vhosts for the tests: {reason}"));
    }

    /// See [`evaluate`].
    pub(crate) fn evaluate(&self, expression: &str) -> Result<String, String> {
        evaluate(&node_name(), self.epmd, &self.folder, expression)
    }
}

/// Evaluates an Erlang expression on a node, through a short-lived Erlang node, which is much quicker than
/// rabbitmqctl. Returns the value as text. `home` has the node's cookie.
pub(crate) fn evaluate(
    node: &str,
    epmd: u16,
    home: &Path,
    expression: &str,
) -> Result<String, String> {
    const SEND: &str = r#"
        {ok, Tokens, _} = erl_scan:string(os:getenv("EXPRESSION")),
        {ok, Expressions} = erl_parse:parse_exprs(Tokens),
        Node = list_to_atom(os:getenv("NODE")),
        %% Whatever the node's net_ticktime: it must not take this one for dead.
        spawn(fun Ping() -> net_adm:ping(Node), timer:sleep(1000), Ping() end),
        case rpc:call(Node, erl_eval, exprs, [Expressions, []], 60000) of
            {value, Value, _} ->
                Text = try unicode:characters_to_binary(Value) catch _:_ -> error end,
                if is_binary(Text) -> file:write(standard_io, Text); true -> io:format("~0p", [Value]) end,
                halt(0);
            Failure -> io:format("~0p", [Failure]), halt(1)
        end."#;
    let output = Command::new(find("lib/erlang/bin/erl", "bin/erl")?)
        .args(["-noinput", "-hidden", "-boot", "no_dot_erlang", "-sname"])
        .arg(format!("asks{}@localhost", fastrand::u64(..)))
        .args(["-eval", SEND])
        .env("EXPRESSION", expression)
        .env("NODE", node)
        .env("HOME", home)
        .env("ERL_EPMD_PORT", epmd.to_string())
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .output()
        .map_err(|error| format!("erl: {error}"))?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    if output.status.success() {
        Ok(text)
    } else {
        Err(format!("the broker does not evaluate {expression}: {text}"))
    }
}

pub(crate) fn node_name() -> String {
    format!("t{}@localhost", std::process::id())
}

/// Definitions of the users and of the vhosts with these numbers.
fn definitions(numbers: Range<usize>) -> serde_json::Value {
    let vhosts = || numbers.clone().map(vhost);
    let permissions = vhosts().flat_map(|vhost| {
        USERS.map(|(user, [configure, write, read])| {
            json!({"user": user, "vhost": vhost, "configure": configure, "write": write, "read": read})
        })
    });
    json!({
        "users": USERS.map(|(name, _)| json!({"name": name, "password": name, "tags": ""})),
        "vhosts": vhosts().map(|name| json!({"name": name})).collect::<Vec<_>>(),
        "permissions": permissions.collect::<Vec<_>>(),
    })
}

fn write_configuration(folder: &Path, port: u16, vhosts: usize, also: &str) {
    let write = |name: &str, content: String| {
        std::fs::write(folder.join(name), content).expect("the run's folder is ours");
    };
    write("definitions.json", definitions(0..vhosts).to_string());
    write("enabled_plugins", "[].".into());
    write(
        "rabbitmq.conf",
        format!(
            "listeners.tcp.1 = 127.0.0.1:{port}\n\
             load_definitions = {}\n\
             disk_free_limit.absolute = 1MB\n\
             {also}",
            folder.join("definitions.json").display()
        ),
    );
}

pub(crate) fn epmd_command(port: u16) -> Command {
    let mut command =
        Command::new(find("lib/erlang/bin/epmd", "bin/epmd").unwrap_or("epmd".into()));
    command
        .arg("-port")
        .arg(port.to_string())
        .arg("-address")
        .arg("127.0.0.1");
    command
}

/// Finds a program beside the folders in `PATH`: first where Debian has it, whose `sbin/rabbitmq-server` is a
/// wrapper that changes the user, then where other systems have it.
pub(crate) fn find(debian: &str, others: &str) -> Result<PathBuf, String> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let prefixes =
        || std::env::split_paths(&path).filter_map(|bin| bin.parent().map(Path::to_owned));
    let places = prefixes()
        .map(|prefix| prefix.join(debian))
        .chain(prefixes().map(|prefix| prefix.join(others)));
    places
        .chain([PathBuf::from("/opt/rabbitmq").join(others)])
        .find(|place| place.exists())
        .ok_or_else(|| format!("{others} is not installed; scripts/test installs it"))
}
