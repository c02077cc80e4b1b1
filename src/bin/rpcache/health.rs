//! `rpcache health`: whether a worker takes requests, as its /readyz tells. For the health check of an
//! image that holds nothing but rpcache.

use std::io::{self, Write as _};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::args;
use crate::output::Failure;

/// Connecting, asking and reading together. Docker's own limit for a check is usually 3 s or more.
const LIMIT: Duration = Duration::from_secs(2);

/// More than any answer of a worker, in bytes.
const LONGEST: u64 = 8192;

pub(crate) async fn run(args: args::Health) -> Result<(), Failure> {
    let address = reachable(args.metrics_addr);
    let told = match timeout(LIMIT, ask(address)).await {
        Err(_) => {
            let silent = format!("no answer from {address} within {LIMIT:?}");
            return Err(Failure::new(124, silent));
        }
        Ok(Err(error)) => {
            let nobody = format!("no worker serves its health at {address}: {error}");
            return Err(Failure::new(3, nobody));
        }
        Ok(Ok(answer)) => told(&answer).map_err(|why| Failure::new(1, why))?,
    };
    Ok(writeln!(io::stdout(), "{told}")?)
}

/// Who listens on all addresses is asked on this machine's own.
fn reachable(mut address: SocketAddr) -> SocketAddr {
    if address.ip().is_unspecified() {
        address.set_ip(match address {
            SocketAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
            SocketAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
        });
    }
    address
}

/// By HTTP/1.0 the answer ends with the connection.
async fn ask(address: SocketAddr) -> io::Result<String> {
    let mut stream = TcpStream::connect(address).await?;
    stream.write_all(b"GET /readyz HTTP/1.0\r\n\r\n").await?;
    let mut answer = Vec::new();
    stream.take(LONGEST).read_to_end(&mut answer).await?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

/// The line with which it says that it takes requests, or that it does not.
fn told(answer: &str) -> Result<String, String> {
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((answer, ""));
    let mut status = head.lines().next().unwrap_or_default().split(' ');
    let is_http = status
        .next()
        .is_some_and(|protocol| protocol.starts_with("HTTP/1."));
    // Whoever it was that answered.
    let line = body.trim_end().escape_debug().to_string();
    match status.next() {
        Some("200") if is_http => Ok(line),
        Some("503") if is_http => Err(line),
        _ => Err("what answers there is no worker of rpcache".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_200_is_healthy() {
        let ready = "HTTP/1.0 200 OK\r\ncontent-length: 6\r\n\r\nready\n";
        assert_eq!(told(ready), Ok("ready".to_owned()));
        let stopping = "HTTP/1.0 503 Service Unavailable\r\n\r\nnot ready: \u{1b}[31mstopping\n";
        let escaped = "not ready: \\u{1b}[31mstopping".to_owned();
        assert_eq!(told(stopping), Err(escaped));
        for other in [
            "",
            "HTTP/1.0 404 Not Found\r\n\r\n",
            "SSH-2.0 200\r\n",
            "220",
        ] {
            assert!(told(other).unwrap_err().contains("no worker"), "{other:?}");
        }
    }

    #[test]
    fn who_listens_everywhere_is_asked_here() {
        for (told, asked) in [
            ("0.0.0.0:9464", "127.0.0.1:9464"),
            ("[::]:1", "[::1]:1"),
            ("10.0.0.1:9464", "10.0.0.1:9464"),
        ] {
            assert_eq!(reachable(told.parse().unwrap()), asked.parse().unwrap());
        }
    }
}
