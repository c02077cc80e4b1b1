//! A minimal HTTP client, and the metrics endpoint of a worker.

use super::process::Process;
use super::{Setup, wait};
use std::io;
use std::net::SocketAddr;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// A response.
#[derive(Debug)]
pub(crate) struct Page {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: String,
}

impl Page {
    /// The value of the one sample with this name and labels.
    #[track_caller]
    pub(crate) fn number(&self, series: &str) -> f64 {
        let value = |line: &str| {
            let rest = line.strip_prefix(series)?;
            rest.strip_prefix(' ')?.parse().ok()
        };
        self.body
            .lines()
            .find_map(value)
            .unwrap_or_else(|| panic!("no {series} in {self:#?}"))
    }
}

/// One request on a connection of its own.
pub(crate) async fn request(
    address: SocketAddr,
    method: &str,
    path: &str,
    headers: &str,
) -> io::Result<Page> {
    let request =
        format!("{method} {path} HTTP/1.1\r\nhost: test\r\nconnection: close\r\n{headers}\r\n");
    let mut stream = TcpStream::connect(address).await?;
    stream.write_all(request.as_bytes()).await?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await?;
    let answer = String::from_utf8_lossy(&answer);
    let bad = || io::Error::other(format!("no answer: {answer:?}"));
    let (head, body) = answer.split_once("\r\n\r\n").ok_or_else(bad)?;
    let status = head
        .split(' ')
        .nth(1)
        .and_then(|status| status.parse().ok());
    Ok(Page {
        status: status.ok_or_else(bad)?,
        head: head.to_lowercase(),
        body: body.to_owned(),
    })
}

/// Gets a page, which must exist.
pub(crate) async fn get(address: SocketAddr, path: &str) -> Page {
    wait::soon(path, request(address, "GET", path, ""))
        .await
        .unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// The address of a worker with `--metrics-addr 127.0.0.1:0`, from its log.
pub(crate) async fn address_of(worker: &Process) -> SocketAddr {
    worker.says("/metrics").await;
    let log = worker.stderr();
    let (_, rest) = log.split_once("http://").expect("a URL");
    let (address, _) = rest.split_once("/metrics").expect("the page");
    address.parse().expect("an address")
}

/// Options for an endpoint on a free port.
pub(crate) const METRICS: [&str; 2] = ["--metrics-addr", "127.0.0.1:0"];

/// Starts a worker with these options that serves its metrics, and waits until it serves.
pub(crate) async fn scraped(setup: &Setup, options: &[&str]) -> (Process, SocketAddr) {
    let worker = setup.worker(&[&METRICS[..], options].concat()).await;
    let address = address_of(&worker).await;
    (worker, address)
}

/// The series of a worker that has this label.
pub(crate) fn series(name: &str, label: &str) -> String {
    format!("{name}{{procedure=\"fib\",role=\"worker\",{label}}}")
}
