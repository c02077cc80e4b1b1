//! A link between one process and one server that can be made to fail at any moment.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use crate::tap::{Protocol, Reader, Sender, Tap, Verdict};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    Pass,
    /// Each piece waits before it goes on.
    Delay(Duration),
    /// Nothing goes on, in either direction, and nobody is told.
    Stall,
    /// New connections are reset.
    Refuse,
}

/// Listens on a port of its own and forwards to the server's. Its end is the runtime's.
pub(crate) struct Link {
    pub(crate) port: u16,
    mode: watch::Sender<Mode>,
    cuts: watch::Sender<()>,
    open: Arc<AtomicUsize>,
}

/// Who watches a link, and what is spoken there.
pub(crate) type Tapped = Option<(Arc<Tap>, Protocol)>;

impl Link {
    pub(crate) async fn to(server: u16, tap: Tapped) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
            .await
            .expect("some port is free");
        let port = listener.local_addr().expect("it is bound").port();
        let (mode, modes) = watch::channel(Mode::Pass);
        let (cuts, cut) = watch::channel(());
        let open = Arc::new(AtomicUsize::new(0));
        tokio::spawn({
            let open = Arc::clone(&open);
            async move {
                loop {
                    // Out of descriptors for a moment: the caller sees a connection that hangs.
                    let Ok((near, _)) = listener.accept().await else {
                        continue;
                    };
                    let (modes, cut, open) = (modes.clone(), cut.clone(), Arc::clone(&open));
                    let tap = tap.clone();
                    tokio::spawn(async move {
                        open.fetch_add(1, Ordering::Relaxed);
                        forward(near, server, modes, cut, tap).await;
                        open.fetch_sub(1, Ordering::Relaxed);
                    });
                }
            }
        });
        Self {
            port,
            mode,
            cuts,
            open,
        }
    }

    pub(crate) fn set(&self, mode: Mode) {
        self.mode.send_replace(mode);
    }

    /// Resets every connection there is.
    pub(crate) fn cut(&self) {
        self.cuts.send_replace(());
    }

    pub(crate) fn open(&self) -> usize {
        self.open.load(Ordering::Relaxed)
    }
}

async fn forward(
    mut near: TcpStream,
    server: u16,
    modes: watch::Receiver<Mode>,
    mut cut: watch::Receiver<()>,
    tap: Tapped,
) {
    cut.mark_unchanged();
    if *modes.borrow() == Mode::Refuse {
        let _ = near.set_zero_linger();
        return;
    }
    let Ok(mut far) = TcpStream::connect((Ipv4Addr::LOCALHOST, server)).await else {
        // As if it had not been accepted: the server is not there.
        let _ = near.set_zero_linger();
        return;
    };
    let _ = (near.set_nodelay(true), far.set_nodelay(true));
    let reset = {
        let (from_near, to_near) = near.split();
        let (from_far, to_far) = far.split();
        let tapped = |sender| {
            let tap = tap.as_ref();
            tap.map(|(tap, protocol)| (&**tap, Reader::new(*protocol, sender)))
        };
        tokio::select! {
            () = pump(from_near, to_far, modes.clone(), tapped(Sender::Worker)) => false,
            () = pump(from_far, to_near, modes.clone(), tapped(Sender::Server)) => false,
            _ = cut.changed() => true,
        }
    };
    if reset {
        let _ = (near.set_zero_linger(), far.set_zero_linger());
    }
}

/// Until either side ends.
async fn pump(
    mut from: ReadHalf<'_>,
    mut to: WriteHalf<'_>,
    mut modes: watch::Receiver<Mode>,
    mut tap: Option<(&Tap, Reader)>,
) {
    let mut piece = vec![0; 64 * 1024];
    loop {
        // A stalled link does not even notice that its peers have gone.
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
        let verdict = tap.as_mut().map_or(Verdict::Passes, |(tap, reader)| {
            tap.judge(&reader.read(&piece[..length]))
        });
        let last = match verdict {
            Verdict::Passes => None,
            Verdict::PassesAsTheLast(kill) => Some(kill),
            Verdict::IsDroppedFor(kill) => return kill.carry_out(),
            Verdict::IsDropped => return,
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
