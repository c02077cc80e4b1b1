//! A second RabbitMQ with low limits, started by the first test that needs it; for one test at a time.

use super::rabbitmq::{Node, Vhost};
use std::sync::{Mutex, OnceLock, PoisonError};

/// A broker that refuses messages above [`Restricted::MAX_MESSAGE_SIZE`], and whose limits a test may change.
pub(crate) struct Restricted {
    node: &'static Node,
    _alone: tokio::sync::MutexGuard<'static, ()>,
}

impl Restricted {
    pub(crate) const MAX_MESSAGE_SIZE: u32 = 100_000;

    /// Starts the broker for the first test, and takes its next unused vhost.
    pub(crate) async fn unused() -> (Self, Vhost) {
        const VHOSTS: usize = 32;
        static NODE: OnceLock<Result<Node, String>> = OnceLock::new();
        static ALONE: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());
        static USED: Mutex<usize> = Mutex::new(0);
        let alone = ALONE.lock().await;
        let limit = format!("max_message_size = {}\n", Self::MAX_MESSAGE_SIZE);
        let node = match NODE.get_or_init(|| Node::start_with(VHOSTS, &limit)) {
            Ok(node) => node,
            Err(reason) => panic!("no restricted RabbitMQ for the tests: {reason}"),
        };
        let mut used = USED.lock().unwrap_or_else(PoisonError::into_inner);
        assert!(*used < VHOSTS, "more vhosts are needed");
        *used += 1;
        let restricted = Self {
            node,
            _alone: alone,
        };
        (restricted, Vhost::of(node, *used - 1))
    }

    /// See [`Node::evaluate`].
    pub(crate) fn evaluate(&self, expression: &str) -> String {
        let evaluated = self.node.evaluate(expression);
        evaluated.unwrap_or_else(|reason| panic!("{reason}"))
    }

    /// Applies to channels that are opened from now on.
    pub(crate) fn set_max_message_size(&self, bytes: u32) {
        // The setting of RabbitMQ 3.10, and that of later versions.
        self.evaluate(&format!(
            "application:set_env(rabbit, max_message_size, {bytes}), \
             persistent_term:put(max_message_size, {bytes})."
        ));
    }

    /// Applies to connections that are opened from now on.
    pub(crate) fn set_channel_max(&self, channels: u32) {
        self.evaluate(&format!(
            "application:set_env(rabbit, channel_max, {channels})."
        ));
    }

    /// How often the broker has logged these words for this vhost. It writes its log with a delay.
    pub(crate) fn logged(&self, vhost: &Vhost, words: &str) -> usize {
        let folder = self.node.folder.join("log");
        let logs = std::fs::read_dir(folder).expect("the node writes a log");
        let mut count = 0;
        for log in logs {
            let bytes = std::fs::read(log.expect("an entry").path()).expect("a log");
            let text = String::from_utf8_lossy(&bytes);
            let of_vhost = format!("vhost: '{}'", vhost.name());
            let mut lines = text.lines().peekable();
            while let Some(line) = lines.next() {
                let reason = lines.peek().copied().unwrap_or_default();
                count += usize::from(line.contains(&of_vhost) && reason.contains(words));
            }
        }
        count
    }
}

impl Drop for Restricted {
    fn drop(&mut self) {
        self.set_max_message_size(Self::MAX_MESSAGE_SIZE);
        self.set_channel_max(2047);
    }
}
