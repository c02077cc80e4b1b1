//! Whether a server is there: told by whoever keeps the connection, read by whoever wants to know.

use tokio::sync::watch;

use super::Counter;
use crate::error::Error;

/// What is known of a connection that is kept.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) enum State {
    /// There was none yet.
    #[default]
    Connecting,
    Up,
    /// Why not.
    Down(Error),
}

/// A connection that is replaced when it is lost.
#[derive(Debug, Default)]
pub(crate) struct Standing {
    state: watch::Sender<State>,
    /// Connections so far.
    connected: Counter,
    /// Connections that ended because the other side was gone.
    pub(crate) lost: Counter,
    /// Connections that were given up because the other side was late too often.
    pub(crate) late: Counter,
}

impl Standing {
    /// There is a connection. What was known before.
    pub(crate) fn up(&self) -> State {
        self.connected.count();
        self.state.send_replace(State::Up)
    }

    /// There is none, or no longer one. What was known before.
    pub(crate) fn down(&self, error: Error) -> State {
        self.state.send_replace(State::Down(error))
    }

    pub(crate) fn state(&self) -> State {
        self.state.borrow().clone()
    }

    pub(crate) fn subscribe(&self) -> watch::Receiver<State> {
        self.state.subscribe()
    }

    /// How often there was another connection after the first.
    #[cfg(any(test, feature = "metrics"))]
    pub(crate) fn reconnects(&self) -> u64 {
        self.connected.get().saturating_sub(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_connection_is_no_reconnect() {
        let standing = Standing::default();
        assert_eq!(
            (standing.state(), standing.reconnects()),
            (State::Connecting, 0)
        );
        let down = Error::Unreachable {
            server: "there".to_owned(),
            reason: "nobody".to_owned(),
        };
        standing.down(down.clone());
        assert_eq!(standing.up(), State::Down(down));
        assert_eq!(standing.reconnects(), 0);
        standing.up();
        assert_eq!(standing.reconnects(), 1);
    }
}
