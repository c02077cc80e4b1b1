//! The private RabbitMQ, and what can be done to it from inside.

use serde_json::json;
use tokio::task::block_in_place;

use crate::support::process::signal;
use crate::support::rabbitmq::{Node, Vhost};

/// The vhost of a run: the first of those that the node has.
pub(crate) const VHOST: &str = "t0";
/// Of the procedure that is called: its requests, and those that the broker has given up.
pub(crate) const REQUESTS: &str = "rpc_queue";
pub(crate) const DEAD_LETTERS: &str = "rpc_queue.dead";
/// Where what is to expire is published.
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

    /// Kills the Erlang machine.
    pub(crate) fn kill(&self) -> Result<(), String> {
        let text = self.evaluate("os:getpid().")?;
        let machine = text.trim().parse();
        signal(
            "KILL",
            machine.map_err(|_| format!("no process id: {text}"))?,
        );
        Ok(())
    }

    /// Starts it again on the same data; returns when it listens.
    pub(crate) fn start_again(&mut self) -> Result<(), String> {
        block_in_place(|| self.node.launch())
    }

    /// See [`Node::evaluate`].
    pub(crate) fn evaluate(&self, expression: &str) -> Result<String, String> {
        block_in_place(|| self.node.evaluate(expression))
    }

    pub(crate) fn close_all_connections(&self) -> Result<(), String> {
        // One that ends by itself meanwhile is an error.
        self.evaluate("[catch rabbit_networking:close_connection(Each, \"chaos\") || Each <- rabbit_networking:connections_local()].").map(drop)
    }

    pub(crate) fn alarm(&self, on: bool) -> Result<(), String> {
        let mark = if on { "0.0000001" } else { "0.4" };
        self.evaluate(&format!(
            "vm_memory_monitor:set_vm_memory_high_watermark({mark})."
        ))
        .map(drop)
    }

    /// The largest message that it takes.
    pub(crate) fn max_message_size(&self) -> Result<u64, String> {
        let text = self.evaluate(
            "{ok, Size} = application:get_env(rabbit, max_message_size), integer_to_list(Size).",
        )?;
        text.trim().parse().map_err(|_| text)
    }

    /// For channels that are opened from now on, or for all: it depends on the version.
    pub(crate) fn set_max_message_size(&self, bytes: u64) -> Result<(), String> {
        // RabbitMQ 3.10 reads the first one when a channel is opened, 4 the second one.
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
            // As bytes: a text would have to be escaped.
            queues
                .to_string()
                .bytes()
                .map(|byte| byte.to_string())
                .collect::<Vec<_>>()
                .join(",")
        ))
        .map(drop)
    }

    /// The vhost of the run, for a connection by no link.
    pub(crate) fn vhost(&self) -> Vhost {
        Vhost::of(&self.node, 0)
    }

    /// Deletes the queues whose name begins so, dead letters excepted: nobody would declare them again.
    pub(crate) fn delete_queues(&self, prefix: &str) -> Result<(), String> {
        let length = prefix.len();
        self.evaluate(&format!(
            "[rabbit_amqqueue:delete(Q, false, false, <<\"chaos\">>) || Q <- rabbit_amqqueue:list(<<\"{VHOST}\">>), \
             binary:longest_common_prefix([element(4, amqqueue:get_name(Q)), <<\"{prefix}\">>]) =:= {length}, \
             element(4, amqqueue:get_name(Q)) =/= <<\"{DEAD_LETTERS}\">>]."
        ))
        .map(drop)
    }

    /// Each queue: its name, the messages that wait in it and those that are not acked.
    pub(crate) fn queues(&self) -> Result<Vec<(String, u64, u64)>, String> {
        let text = self.evaluate(&format!(
            "[io_lib:format(\"~s ~p ~p~n\", [element(4, amqqueue:get_name(Q)) | \
             [V || {{_, V}} <- rabbit_amqqueue:info(Q, [messages_ready, messages_unacknowledged])]]) \
             || Q <- rabbit_amqqueue:list(<<\"{VHOST}\">>)]."
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

    /// How many connections it has.
    pub(crate) fn connections(&self) -> Result<usize, String> {
        let text =
            self.evaluate("integer_to_list(length(rabbit_networking:connections_local())).")?;
        text.trim().parse().map_err(|_| text)
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        // One that no longer listens to us is left to the run's watchdog.
        let _ = self.kill();
    }
}
