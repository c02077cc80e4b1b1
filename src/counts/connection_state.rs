//! Connection state of one server: written by its connection task, read by health checks and metrics.

use tokio::sync::watch;

use super::Counter;
use crate::error::Error;

/// The state of a connection that is reopened when it is lost.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) enum ConnectionState {
    /// The first attempt is under way.
    #[default]
    Connecting,
    Up,
    /// With the reason.
    Down(Error),
}

/// Tracks the state and counters of a connection that is reopened when it is lost.
#[derive(Debug, Default)]
pub(crate) struct ConnectionMonitor {
    state: watch::Sender<ConnectionState>,
    /// Connections established so far.
    connected: Counter,
    /// Connections that ended because the server closed them or vanished.
    pub(crate) lost: Counter,
    /// Connections closed by this side because the server was too late too often.
    pub(crate) late: Counter,
}

impl ConnectionMonitor {
    /// Records a new connection. Returns the state before.
    pub(crate) fn up(&self) -> ConnectionState {
        self.connected.count();
        self.state.send_replace(ConnectionState::Up)
    }

    /// Records that there is no connection, and why. Returns the state before.
    pub(crate) fn down(&self, error: Error) -> ConnectionState {
        self.state.send_replace(ConnectionState::Down(error))
    }

    pub(crate) fn state(&self) -> ConnectionState {
        self.state.borrow().clone()
    }

    pub(crate) fn subscribe(&self) -> watch::Receiver<ConnectionState> {
        self.state.subscribe()
    }

    /// Connections established after the first.
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
        let monitor = ConnectionMonitor::default();
        assert_eq!(
            (monitor.state(), monitor.reconnects()),
            (ConnectionState::Connecting, 0)
        );
        let down = Error::Unreachable {
            server: "there".to_owned(),
            reason: "nothing is listening there".to_owned(),
        };
        monitor.down(down.clone());
        assert_eq!(monitor.up(), ConnectionState::Down(down));
        assert_eq!(monitor.reconnects(), 0);
        monitor.up();
        assert_eq!(monitor.reconnects(), 1);
    }
}
