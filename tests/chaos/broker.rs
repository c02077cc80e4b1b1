//! The RabbitMQ node of a run, and the faults that are injected through its Erlang shell.

use serde_json::json;
use tokio::task::block_in_place;

use crate::support::process::signal;
use crate::support::rabbitmq::{Node, Vhost};

/// The vhost of a run: the first one of the node.
pub(crate) const VHOST: &str = "t0";
/// The request queue of the procedure that is called, and its dead-letter queue.
pub(crate) const REQUESTS: &str = "rpc_queue";
pub(crate) const DEAD_LETTERS: &str = "rpc_queue.dead";
/// Messages published here expire, and are dead-lettered to [`DEAD_LETTERS`].
pub(crate) const EXPIRING: &str = "expiring";

pub(crate) struct Broker {
    node: Node,
}

impl Broker {
    pub(crate) fn start() -> Result<Self, String> {
        Ok(Self {
            node: Node::start(1)?,
        })
    }

    pub(crate) fn port(&self) -> u16 {
        self.node.amqp
    }

    /// Kills the Erlang VM.
    pub(crate) fn kill(&self) -> Result<(), String> {
        let text = self.evaluate("os:getpid().")?;
        let machine = text.trim().parse();
        signal(
            "KILL",
            machine.map_err(|_| format!("no process id: {text}"))?,
        );
        Ok(())
    }

    /// Starts the node again with its data; returns when it listens.
    pub(crate) fn start_again(&mut self) -> Result<(), String> {
        block_in_place(|| self.node.launch())
    }

    /// See [`Node::evaluate`].
    pub(crate) fn evaluate(&self, expression: &str) -> Result<String, String> {
        block_in_place(|| self.node.evaluate(expression))
    }

    pub(crate) fn close_all_connections(&self) -> Result<(), String> {
        // A connection that is closed at the same time is reported as an error: ignored.
        self.evaluate("[catch rabbit_networking:close_connection(Each, \"chaos\") || Each <- rabbit_networking:connections_local()].").map(drop)
    }

    pub(crate) fn alarm(&self, on: bool) -> Result<(), String> {
        let mark = if on { "0.0000001" } else { "0.4" };
        self.evaluate(&format!(
            "vm_memory_monitor:set_vm_memory_high_watermark({mark})."
        ))
        .map(drop)
    }

    /// The size of the largest message that the broker accepts.
    pub(crate) fn max_message_size(&self) -> Result<u64, String> {
        let text = self.evaluate(
            "{ok, Size} = application:get_env(rabbit, max_message_size), integer_to_list(Size).",
        )?;
        text.trim().parse().map_err(|_| text)
    }

    /// Applies to channels that are opened from now on, or to all: it depends on the version.
    pub(crate) fn set_max_message_size(&self, bytes: u64) -> Result<(), String> {
        // RabbitMQ 3.10 reads the first setting when a channel is opened, 4 the second one.
        self.evaluate(&format!(
            "application:set_env(rabbit, max_message_size, {bytes}), \
             persistent_term:put(max_message_size, {bytes})."
        ))
        .map(drop)
    }

    /// A dead-letter queue for requests, and a queue whose messages go there when they expire.
    pub(crate) fn declare_dead_letters(&self) -> Result<(), String> {
        let queue = |name, arguments| json!({"name": name, "vhost": VHOST, "durable": true, "auto_delete": false, "arguments": arguments});
        let queues = json!({"queues": [
            queue(DEAD_LETTERS, json!({"x-queue-type": "quorum"})),
            queue(EXPIRING, json!({"x-dead-letter-exchange": "", "x-dead-letter-routing-key": DEAD_LETTERS})),
        ]});
        self.evaluate(&format!(
            "ok = rabbit_definitions:import_raw(<<{}>>).",
            // As a list of bytes: a string would have to be escaped.
            queues
                .to_string()
                .bytes()
                .map(|byte| byte.to_string())
                .collect::<Vec<_>>()
                .join(",")
        ))
        .map(drop)
    }

    /// The vhost of the run, for a connection that bypasses the links.
    pub(crate) fn vhost(&self) -> Vhost {
        Vhost::of(&self.node, 0)
    }

    /// Deletes the queues with this prefix, except for dead letters, which no process declares again.
    pub(crate) fn delete_queues(&self, prefix: &str) -> Result<(), String> {
        let length = prefix.len();
        self.evaluate(&format!(
            "[rabbit_amqqueue:delete(Q, false, false, <<\"chaos\">>) || Q <- rabbit_amqqueue:list(<<\"{VHOST}\">>), \
             binary:longest_common_prefix([element(4, amqqueue:get_name(Q)), <<\"{prefix}\">>]) =:= {length}, \
             element(4, amqqueue:get_name(Q)) =/= <<\"{DEAD_LETTERS}\">>]."
        ))
        .map(drop)
    }

    /// See [`queues_of`].
    pub(crate) fn queues(&self) -> Result<Vec<(String, u64, u64)>, String> {
        queues_of(VHOST, |expression| self.evaluate(expression))
    }
}

/// The name of each queue of a vhost, and its numbers of ready and unacked messages, by a node that evaluates.
pub(crate) fn queues_of(
    vhost: &str,
    evaluate: impl Fn(&str) -> Result<String, String>,
) -> Result<Vec<(String, u64, u64)>, String> {
    let text = evaluate(&format!(
        "[io_lib:format(\"~s ~p ~p~n\", [element(4, amqqueue:get_name(Q)) | \
         [V || {{_, V}} <- rabbit_amqqueue:info(Q, [messages_ready, messages_unacknowledged])]]) \
         || Q <- rabbit_amqqueue:list(<<\"{vhost}\">>)]."
    ))?;
    let parse = |line: &str| {
        let mut words = line.split(' ');
        let name = words.next()?.to_owned();
        Some((
            name,
            words.next()?.parse().ok()?,
            words.next()?.parse().ok()?,
        ))
    };
    text.lines()
        .filter(|line| !line.is_empty())
        .map(|line| parse(line).ok_or_else(|| format!("not a queue: {line}")))
        .collect()
}

impl Drop for Broker {
    fn drop(&mut self) {
        // If the node does not respond, the run's watchdog ends it.
        let _ = self.kill();
    }
}
