//! The private RabbitMQ, and what can be done to it from inside.

use tokio::task::block_in_place;

use crate::support::process::signal;
use crate::support::rabbitmq::Node;

/// The vhost of a run: the first of those that the node has.
pub(crate) const VHOST: &str = "t0";

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
        self.evaluate("rabbit_networking:close_connections(rabbit_networking:connections_local(), \"chaos\").").map(drop)
    }

    pub(crate) fn alarm(&self, on: bool) -> Result<(), String> {
        let mark = if on { "0.0000001" } else { "0.4" };
        self.evaluate(&format!(
            "vm_memory_monitor:set_vm_memory_high_watermark({mark})."
        ))
        .map(drop)
    }

    /// Deletes the queues whose name begins so.
    pub(crate) fn delete_queues(&self, prefix: &str) -> Result<(), String> {
        let length = prefix.len();
        self.evaluate(&format!(
            "[rabbit_amqqueue:delete(Q, false, false, <<\"chaos\">>) || Q <- rabbit_amqqueue:list(<<\"{VHOST}\">>), \
             binary:longest_common_prefix([element(4, amqqueue:get_name(Q)), <<\"{prefix}\">>]) =:= {length}]."
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
