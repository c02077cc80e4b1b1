//! `rpcache health`: fetches /readyz of a worker, for the health check of an image without a shell or curl.

use std::io::{self, Write as _};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::args;
use crate::output::Failure;

/// Time limit for the whole check, below the 3 s or more that health checks usually have.
const TIMEOUT: Duration = Duration::from_secs(2);

/// Limit of a response, in bytes; those of a worker are shorter.
const MAX_RESPONSE: u64 = 8192;

pub(crate) async fn run(args: args::Health) -> Result<(), Failure> {
    let address = reachable(args.metrics_addr);
    let line = match timeout(TIMEOUT, fetch(address)).await {
        Err(_) => {
            let message = format!("no answer from {address} within {TIMEOUT:?}");
            return Err(Failure::new(124, message));
        }
        Ok(Err(error)) => {
            let message = format!("no worker serves its health at {address}: {error}");
            return Err(Failure::new(3, message));
        }
        Ok(Ok(response)) => readiness(&response).map_err(|why| Failure::new(1, why))?,
    };
    Ok(writeln!(io::stdout(), "{line}")?)
}

/// The address to connect to: loopback for a worker that listens on all interfaces.
fn reachable(mut address: SocketAddr) -> SocketAddr {
    if address.ip().is_unspecified() {
        address.set_ip(match address {
            SocketAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
            SocketAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
        });
    }
    address
}

/// Fetches /readyz. With HTTP/1.0, the end of the connection ends the response.
async fn fetch(address: SocketAddr) -> io::Result<String> {
    let mut stream = TcpStream::connect(address).await?;
    stream.write_all(b"GET /readyz HTTP/1.0\r\n\r\n").await?;
    let mut answer = Vec::new();
    stream.take(MAX_RESPONSE).read_to_end(&mut answer).await?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

/// The line of the page: `Ok` if the worker takes requests, `Err` with the reason if not.
fn readiness(answer: &str) -> Result<String, String> {
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((answer, ""));
    let mut status = head.lines().next().unwrap_or_default().split(' ');
    let is_http = status
        .next()
        .is_some_and(|protocol| protocol.starts_with("HTTP/1."));
    // Escaped: any program may listen there.
    let line = body.trim_end().escape_debug().to_string();
    match status.next() {
        Some("200") if is_http => Ok(line),
        Some("503") if is_http => Err(line),
        _ => Err("the program at this address is no worker of rpcache".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_200_is_healthy() {
        let ready = "HTTP/1.0 200 OK\r\ncontent-length: 6\r\n\r\nready\n";
        assert_eq!(readiness(ready), Ok("ready".to_owned()));
        let stopping = "HTTP/1.0 503 Service Unavailable\r\n\r\nnot ready: \u{1b}[31mstopping\n";
        let escaped = "not ready: \\u{1b}[31mstopping".to_owned();
        assert_eq!(readiness(stopping), Err(escaped));
        for other in [
            "",
            "HTTP/1.0 404 Not Found\r\n\r\n",
            "SSH-2.0 200\r\n",
            "220",
        ] {
            assert!(
                readiness(other).unwrap_err().contains("no worker"),
                "{other:?}"
            );
        }
    }

    #[test]
    fn a_worker_on_all_interfaces_is_reached_by_loopback() {
        for (listening, reached) in [
            ("0.0.0.0:9464", "127.0.0.1:9464"),
            ("[::]:1", "[::1]:1"),
            ("10.0.0.1:9464", "10.0.0.1:9464"),
        ] {
            assert_eq!(
                reachable(listening.parse().unwrap()),
                reached.parse().unwrap()
            );
        }
    }
}
