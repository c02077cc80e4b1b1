//! The driver's side of the client processes: starts them, sends them instructions, reads the calls that they
//! report, and ends them.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::process::{Child, ChildStdin, ChildStdout};
use tokio::sync::Mutex;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::args::Args;
use crate::call::{Batch, Instruction};
use crate::fleet::Fleet;
use crate::ledger::Ledger;

/// The longest timeout of a call, the time until it counts as lost, and the end of the process.
const ENDS_WITHIN: Duration = Duration::from_secs(50);

pub(crate) struct Clients {
    clients: Vec<Client>,
    instructions: Instructions,
}

/// The stdin of each client, by which it gets instructions; closing it ends the client.
#[derive(Clone)]
pub(crate) struct Instructions(Arc<Mutex<Vec<ChildStdin>>>);

struct Client {
    child: Child,
    /// The number of calls that it reported, and whether it said that these are all.
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
        let stdins = stdins.map(|stdin| stdin.expect("it is piped")).collect();
        let instructions = Instructions(Arc::new(Mutex::new(stdins)));
        Ok(Self {
            clients,
            instructions,
        })
    }

    pub(crate) fn instructions(&self) -> Instructions {
        self.instructions.clone()
    }

    pub(crate) fn ids(&self) -> impl Iterator<Item = Option<u32>> {
        self.clients.iter().map(|client| client.child.id())
    }

    /// Ends the clients once their calls have ended.
    pub(crate) async fn end(self, ledger: &Ledger) {
        self.instructions.0.lock().await.clear();
        for (number, mut client) in self.clients.into_iter().enumerate() {
            let ended = timeout(ENDS_WITHIN, client.child.wait()).await;
            let succeeded = matches!(ended, Ok(Ok(status)) if status.success());
            // Its end of the pipe is closed with it, which ends `reading`.
            let _ = client.child.kill().await;
            let (calls, complete) = client.reading.await.unwrap_or((0, false));
            ledger.client_ended(number, calls, succeeded && complete);
        }
    }
}

impl Instructions {
    /// Sends an instruction to one of the clients.
    pub(crate) async fn send(
        &self,
        client: usize,
        instruction: &Instruction,
    ) -> Result<(), String> {
        let line = serde_json::to_string(instruction).expect("plain data") + "\n";
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
        // The last line of a killed client may be incomplete.
        let Ok(batch) = serde_json::from_str::<Batch>(&line) else {
            continue;
        };
        calls += batch.calls.len() as u64;
        complete = batch.last;
        ledger.take(client, batch);
    }
    (calls, complete)
}
