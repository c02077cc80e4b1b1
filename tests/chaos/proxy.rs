//! A link is a TCP proxy between one process and one server, into which faults can be injected at any time.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicU16, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::watch;
use tokio::time::timeout;

use crate::tap::{Action, Protocol, Reader, Sender, Tap};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    Pass,
    /// Each piece of data is forwarded after a delay.
    Delay(Duration),
    /// Nothing is forwarded in either direction, and connections stay open.
    Stall,
    /// New connections are reset.
    Refuse,
    /// Packets of new connections are dropped: see [`Link::swallow`].
    Swallow,
}

/// Connections that wait to be accepted: enough for all that one process opens at once.
const BACKLOG: u32 = 16;
/// A connection on this machine that takes longer is never established.
const CONNECTS_WITHIN: Duration = Duration::from_millis(200);

/// Listens on a port of its own and forwards to the server's port, until the runtime ends.
pub(crate) struct Link {
    pub(crate) port: u16,
    mode: watch::Sender<Mode>,
    cuts: watch::Sender<()>,
    carried: Arc<Carried>,
}

/// The connections of a link, and their server.
struct Carried {
    /// The port of the server for new connections.
    server: AtomicU16,
    /// Connections, by the port of their server.
    open: Mutex<BTreeMap<u16, usize>>,
    /// Connections accepted since the start.
    accepted: AtomicUsize,
    /// Connections that a server closed.
    ended: AtomicUsize,
}

/// The tap on a link, and the protocol of the link.
pub(crate) type Tapped = Option<(Arc<Tap>, Protocol)>;

impl Link {
    pub(crate) fn to(server: u16, tap: Tapped) -> Self {
        let socket = TcpSocket::new_v4().expect("there are descriptors");
        socket
            .bind((Ipv4Addr::LOCALHOST, 0).into())
            .expect("some port is free");
        let listener = socket.listen(BACKLOG).expect("it is bound");
        let port = listener.local_addr().expect("it is bound").port();
        let (mode, modes) = watch::channel(Mode::Pass);
        let (cuts, cut) = watch::channel(());
        let carried = Arc::new(Carried {
            server: AtomicU16::new(server),
            open: Mutex::default(),
            accepted: AtomicUsize::new(0),
            ended: AtomicUsize::new(0),
        });
        tokio::spawn({
            let carried = Arc::clone(&carried);
            let mut mode = modes.clone();
            async move {
                while mode.wait_for(|mode| *mode != Mode::Swallow).await.is_ok() {
                    let accepted = tokio::select! {
                        accepted = listener.accept() => accepted,
                        _ = mode.wait_for(|mode| *mode == Mode::Swallow) => continue,
                    };
                    // Out of descriptors: the peer sees a connection that hangs.
                    let Ok((near, _)) = accepted else {
                        continue;
                    };
                    let (modes, cut, tap) = (modes.clone(), cut.clone(), tap.clone());
                    let carried = Arc::clone(&carried);
                    tokio::spawn(async move { carried.carry(near, modes, cut, tap).await });
                }
            }
        });
        Self {
            port,
            mode,
            cuts,
            carried,
        }
    }

    pub(crate) fn set(&self, mode: Mode) {
        self.mode.send_replace(mode);
    }

    /// Resets every open connection.
    pub(crate) fn cut(&self) {
        self.cuts.send_replace(());
    }

    /// Drops packets of new connections, by filling the listener's backlog with the connections that it
    /// returns, until the mode changes and those are dropped.
    pub(crate) async fn swallow(&self) -> Vec<TcpStream> {
        self.set(Mode::Swallow);
        let mut waiting = Vec::new();
        let connect = || TcpStream::connect((Ipv4Addr::LOCALHOST, self.port));
        while let Ok(Ok(connected)) = timeout(CONNECTS_WITHIN, connect()).await {
            waiting.push(connected);
        }
        waiting
    }

    /// Forwards new connections to another server.
    pub(crate) fn lead_to(&self, server: u16) {
        self.carried.server.store(server, Ordering::Relaxed);
    }

    /// The number of open connections.
    pub(crate) fn open(&self) -> usize {
        self.carried.open().values().sum()
    }

    /// The number of open connections to this server.
    pub(crate) fn open_to(&self, server: u16) -> usize {
        self.carried.open().get(&server).copied().unwrap_or(0)
    }

    /// The number of connections accepted since the start.
    pub(crate) fn accepted(&self) -> usize {
        self.carried.accepted.load(Ordering::Relaxed)
    }

    /// The number of connections that the server closed.
    pub(crate) fn ended_by_server(&self) -> usize {
        self.carried.ended.load(Ordering::Relaxed)
    }
}

impl Carried {
    fn open(&self) -> MutexGuard<'_, BTreeMap<u16, usize>> {
        self.open.lock().expect("the lock is not poisoned")
    }

    async fn carry(
        &self,
        near: TcpStream,
        modes: watch::Receiver<Mode>,
        cut: watch::Receiver<()>,
        tap: Tapped,
    ) {
        let server = self.server.load(Ordering::Relaxed);
        self.accepted.fetch_add(1, Ordering::Relaxed);
        *self.open().entry(server).or_default() += 1;
        if forward(near, server, modes, cut, tap).await == Some(Sender::Server) {
            self.ended.fetch_add(1, Ordering::Relaxed);
        }
        *self.open().entry(server).or_default() -= 1;
    }
}

/// Forwards until one side closes the connection, and returns which; `None` if the link was cut or refuses.
async fn forward(
    mut near: TcpStream,
    server: u16,
    modes: watch::Receiver<Mode>,
    mut cut: watch::Receiver<()>,
    tap: Tapped,
) -> Option<Sender> {
    cut.mark_unchanged();
    if *modes.borrow() == Mode::Refuse {
        let _ = near.set_zero_linger();
        return None;
    }
    let Ok(mut far) = TcpStream::connect((Ipv4Addr::LOCALHOST, server)).await else {
        // The server does not listen: reset, as if the connection had been refused.
        let _ = near.set_zero_linger();
        return None;
    };
    let _ = (near.set_nodelay(true), far.set_nodelay(true));
    let ended = {
        let (from_near, to_near) = near.split();
        let (from_far, to_far) = far.split();
        let tapped = |sender| {
            let tap = tap.as_ref();
            tap.map(|(tap, protocol)| (&**tap, Reader::new(*protocol, sender)))
        };
        tokio::select! {
            () = pump(from_near, to_far, modes.clone(), tapped(Sender::Worker)) => Some(Sender::Worker),
            () = pump(from_far, to_near, modes.clone(), tapped(Sender::Server)) => Some(Sender::Server),
            _ = cut.changed() => None,
        }
    };
    if ended.is_none() {
        let _ = (near.set_zero_linger(), far.set_zero_linger());
    }
    ended
}

/// Forwards one direction until either side closes.
async fn pump(
    mut from: ReadHalf<'_>,
    mut to: WriteHalf<'_>,
    mut modes: watch::Receiver<Mode>,
    mut tap: Option<(&Tap, Reader)>,
) {
    let mut piece = vec![0; 64 * 1024];
    loop {
        // A stalled link does not read, so that it does not notice closed peers either.
        let Ok(_) = modes.wait_for(|mode| *mode != Mode::Stall).await else {
            return;
        };
        let Ok(length @ 1..) = from.read(&mut piece).await else {
            return;
        };
        let mode = modes
            .wait_for(|mode| *mode != Mode::Stall)
            .await
            .map(|mode| *mode);
        if let Ok(Mode::Delay(delay)) = mode {
            tokio::time::sleep(delay).await;
        }
        let action = tap.as_mut().map_or(Action::Pass, |(tap, reader)| {
            tap.observe(&reader.read(&piece[..length]))
        });
        let last = match action {
            Action::Pass => None,
            Action::PassAndKill(kill) => Some(kill),
            Action::DropAndKill(kill) => return kill.carry_out(),
            Action::Drop => return,
        };
        let written = to.write_all(&piece[..length]).await;
        if let Some(kill) = last {
            return kill.carry_out();
        }
        if written.is_err() {
            return;
        }
    }
}
