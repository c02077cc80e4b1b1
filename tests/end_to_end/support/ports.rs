//! Ports on loopback: free ports, silent and closed ones, and a forwarder that can be cut.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::time::Duration;
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::watch;

/// Different ports that are free now. Another process may take one: a caller that starts a server tries again
/// with others.
pub(crate) fn free<const N: usize>() -> [u16; N] {
    let listeners = [(); N].map(|()| listen());
    listeners.map(|listener| port_of(&listener))
}

/// A peer that accepts every connection and never sends a byte.
pub(crate) struct SilentPeer(TcpListener);

impl SilentPeer {
    pub(crate) fn start() -> Self {
        // The kernel completes connections up to the backlog, without an accept.
        Self(listen())
    }

    pub(crate) fn port(&self) -> u16 {
        port_of(&self.0)
    }
}

/// A port whose backlog is full: packets of further connections are dropped, none is refused.
pub(crate) struct DroppingPort {
    listener: tokio::net::TcpListener,
    _held: Vec<std::net::TcpStream>,
}

impl DroppingPort {
    pub(crate) fn reserve() -> Self {
        let socket = TcpSocket::new_v4().expect("a socket");
        let bound = socket.bind((Ipv4Addr::LOCALHOST, 0).into());
        bound.expect("some port is free");
        let listener = socket.listen(1).expect("the port is ours");
        let address = listener.local_addr().expect("it is bound");
        let more = std::iter::repeat_with(|| {
            std::net::TcpStream::connect_timeout(&address, Duration::from_millis(200))
        });
        let held: Vec<_> = more.take(100).map_while(Result::ok).collect();
        assert!(held.len() < 100, "the backlog is never full");
        Self {
            listener,
            _held: held,
        }
    }

    pub(crate) fn port(&self) -> u16 {
        self.listener
            .local_addr()
            .map_or(0, |address| address.port())
    }
}

/// A port that is reserved and refuses connections.
pub(crate) struct ClosedPort {
    socket: TcpSocket,
    port: u16,
}

impl ClosedPort {
    pub(crate) fn reserve() -> Self {
        let socket = TcpSocket::new_v4().expect("a socket");
        socket
            .bind((Ipv4Addr::LOCALHOST, 0).into())
            .expect("some port is free");
        let port = socket.local_addr().expect("it is bound").port();
        Self { socket, port }
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// Opens the port: connections are forwarded to `target`.
    pub(crate) fn forward_to(self, target: u16) -> Forwarder {
        let listener = self.socket.listen(128).expect("the port is ours");
        let (state, cut) = watch::channel(State {
            target,
            cuts: 0,
            closed: false,
            stalled: false,
        });
        tokio::spawn(async move {
            while let Ok((near, _)) = listener.accept().await {
                tokio::spawn(forward(near, cut.clone()));
            }
        });
        Forwarder {
            port: self.port,
            state,
        }
    }
}

/// Forwards connections from a port of its own to another one.
pub(crate) struct Forwarder {
    port: u16,
    state: watch::Sender<State>,
}

struct State {
    target: u16,
    cuts: u32,
    closed: bool,
    stalled: bool,
}

impl Forwarder {
    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// Closes every connection; new ones are forwarded as before.
    pub(crate) fn cut(&self) {
        self.state.send_modify(|state| state.cuts += 1);
    }

    /// Closes every connection, and new ones at once.
    pub(crate) fn close(&self) {
        self.state.send_modify(|state| state.closed = true);
    }

    /// Passes no data any more, and keeps connections open, as if packets were dropped, until it is opened again: then
    /// the connections end.
    pub(crate) fn stall(&self) {
        self.state.send_modify(|state| state.stalled = true);
    }

    /// Forwards new connections to `target`, as when a name leads elsewhere; open connections stay.
    pub(crate) fn lead_to(&self, target: u16) {
        self.state.send_modify(|state| state.target = target);
    }

    /// Forwards again.
    pub(crate) fn open(&self) {
        self.state.send_modify(|state| {
            state.closed = false;
            state.stalled = false;
        });
    }
}

async fn forward(mut near: TcpStream, mut cut: watch::Receiver<State>) {
    let (target, cuts, closed) = {
        let state = cut.borrow_and_update();
        (state.target, state.cuts, state.closed)
    };
    if closed {
        return;
    }
    let Ok(mut far) = TcpStream::connect((Ipv4Addr::LOCALHOST, target)).await else {
        return;
    };
    let mut stalled = cut.clone();
    let forwarded = async {
        tokio::select! {
            _ = tokio::io::copy_bidirectional(&mut near, &mut far) => return,
            _ = stalled.wait_for(|state| state.stalled) => {}
        }
        // An error: the forwarder is gone.
        let _ = stalled.wait_for(|state| !state.stalled).await;
    };
    tokio::select! {
        () = forwarded => {}
        _ = cut.wait_for(|state| state.cuts != cuts || state.closed) => {}
    }
}

fn listen() -> TcpListener {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("some port is free")
}

fn port_of(listener: &TcpListener) -> u16 {
    listener.local_addr().as_ref().map_or(0, SocketAddr::port)
}
