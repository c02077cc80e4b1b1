//! The client processes as the driver sees them: their lines, and their end.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::process::{Child, ChildStdin, ChildStdout};
use tokio::sync::Mutex;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::args::Args;
use crate::fleet::Fleet;
use crate::ledger::Ledger;
use crate::record::{Batch, Order};

/// The most patient call, what it is given beyond, and the end of the process.
const ENDS_WITHIN: Duration = Duration::from_secs(50);

pub(crate) struct Clients {
    clients: Vec<Client>,
    orders: Orders,
}

/// What the clients are told by their stdin, which ends them when it is closed.
#[derive(Clone)]
pub(crate) struct Orders(Arc<Mutex<Vec<ChildStdin>>>);

struct Client {
    child: Child,
    /// How many calls it has told of, and whether it said that these are all.
    reading: JoinHandle<(u64, bool)>,
}

impl Clients {
    pub(crate) fn start(
        fleet: &Fleet,
        ledger: &Arc<Ledger>,
        args: &Args,
        seed: u64,
        answers: &Path,
    ) -> Result<Self, String> {
        let start = |number| {
            let mut child = fleet.start_client(number, seed, answers)?;
            let stdout = child.stdout.take().expect("it is piped");
            let reading = tokio::spawn(read(stdout, number, Arc::clone(ledger)));
            Ok(Client { child, reading })
        };
        let started: std::io::Result<Vec<Client>> = (0..args.clients as usize).map(start).collect();
        let mut clients = started.map_err(|error| format!("no client: {error}"))?;
        let stdins = clients.iter_mut().map(|client| client.child.stdin.take());
        let orders = stdins.map(|stdin| stdin.expect("it is piped")).collect();
        let orders = Orders(Arc::new(Mutex::new(orders)));
        Ok(Self { clients, orders })
    }

    pub(crate) fn orders(&self) -> Orders {
        self.orders.clone()
    }

    pub(crate) fn ids(&self) -> impl Iterator<Item = Option<u32>> {
        self.clients.iter().map(|client| client.child.id())
    }

    /// Lets them finish what they have begun.
    pub(crate) async fn end(self, ledger: &Ledger) {
        self.orders.0.lock().await.clear();
        for (number, mut client) in self.clients.into_iter().enumerate() {
            let ended = timeout(ENDS_WITHIN, client.child.wait()).await;
            let succeeded = matches!(ended, Ok(Ok(status)) if status.success());
            // Its pipe ends with it.
            let _ = client.child.kill().await;
            let (calls, complete) = client.reading.await.unwrap_or((0, false));
            ledger.client_ended(number, calls, succeeded && complete);
        }
    }
}

impl Orders {
    /// To one of the clients.
    pub(crate) async fn give(&self, client: usize, order: &Order) -> Result<(), String> {
        let line = serde_json::to_string(order).expect("plain data") + "\n";
        let mut stdins = self.0.lock().await;
        let stdin = stdins.get_mut(client).ok_or("the client has ended")?;
        let written = stdin.write_all(line.as_bytes()).await;
        written.map_err(|error| format!("client {client}: {error}"))
    }
}

async fn read(stdout: ChildStdout, client: usize, ledger: Arc<Ledger>) -> (u64, bool) {
    let mut lines = BufReader::new(stdout).lines();
    let (mut calls, mut complete) = (0, false);
    while let Ok(Some(line)) = lines.next_line().await {
        // The last line of a killed client may be half a line.
        let Ok(batch) = serde_json::from_str::<Batch>(&line) else {
            continue;
        };
        calls += batch.calls.len() as u64;
        complete = batch.last;
        ledger.take(client, batch);
    }
    (calls, complete)
}
