//! A collector of OTLP over HTTP, which keeps the spans that are posted to it.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::task::AbortOnDropHandle;

use crate::protobuf::{self, Span};

pub(crate) struct Collector {
    address: SocketAddr,
    posted: Arc<Mutex<Vec<Posted>>>,
    _serving: AbortOnDropHandle<()>,
}

struct Posted {
    head: String,
    body: Vec<u8>,
}

impl Collector {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let posted = Arc::new(Mutex::new(Vec::new()));
        let serving = tokio::spawn(serve(listener, Arc::clone(&posted)));
        Self {
            address,
            posted,
            _serving: AbortOnDropHandle::new(serving),
        }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// All spans received so far.
    pub(crate) fn all(&self) -> Vec<Span> {
        let posted = self.posted.lock().unwrap();
        posted
            .iter()
            .flat_map(|posted| protobuf::spans(&posted.body))
            .collect()
    }

    /// Everything received so far, as text.
    pub(crate) fn bytes(&self) -> String {
        let posted = self.posted.lock().unwrap();
        let text = |posted: &Posted| posted.head.clone() + &String::from_utf8_lossy(&posted.body);
        posted.iter().map(text).collect()
    }
}

async fn serve(listener: TcpListener, posted: Arc<Mutex<Vec<Posted>>>) {
    while let Ok((stream, _)) = listener.accept().await {
        tokio::spawn(take(stream, Arc::clone(&posted)));
    }
}

/// Reads all requests of one connection.
async fn take(mut stream: TcpStream, posted: Arc<Mutex<Vec<Posted>>>) -> Option<()> {
    let mut bytes = Vec::new();
    loop {
        let end = loop {
            if let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") {
                break end + 4;
            }
            if stream.read_buf(&mut bytes).await.ok()? == 0 {
                return None;
            }
        };
        let head = String::from_utf8_lossy(&bytes[..end]).to_lowercase();
        let length = head.split("content-length: ").nth(1)?.lines().next()?;
        let length: usize = length.parse().ok()?;
        while bytes.len() < end + length {
            stream.read_buf(&mut bytes).await.ok()?;
        }
        let body = bytes[end..end + length].to_vec();
        bytes.drain(..end + length);
        posted.lock().unwrap().push(Posted { head, body });
        let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";
        stream.write_all(answer).await.ok()?;
    }
}
