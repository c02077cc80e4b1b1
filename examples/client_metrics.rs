//! A long-lived client whose metrics Prometheus can scrape.
//!
//!     cargo run --example client_metrics -- 127.0.0.1:9465
//!     curl http://127.0.0.1:9465/metrics
//!
//! It makes one call after another until it is stopped, with the servers that `AMQP_URL` and `REDIS_URL` name.
//! The HTTP server here is as small as possible. A program that serves HTTP already needs a route only, and one
//! with a registry of prometheus-client registers `client.metrics()`.

use std::io;
use std::time::Duration;

use rpcache::fibonacci::{Fibonacci, N};
use rpcache::{CacheOptions, Client, ClientOptions, Metrics, MetricsFormat};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{sleep, timeout};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let url = |name, local: &str| std::env::var(name).unwrap_or(local.into());
    let amqp = url("AMQP_URL", "amqp://localhost").parse()?;
    let cache = CacheOptions::new(url("REDIS_URL", "redis://localhost").parse()?);
    let client = Client::new(Fibonacci::default(), ClientOptions::new(amqp, cache));

    let address = std::env::args().nth(1).unwrap_or("127.0.0.1:9465".into());
    let listener = TcpListener::bind(address).await?;
    println!("http://{}/metrics", listener.local_addr()?);
    tokio::spawn(serve(listener, client.metrics()));

    for n in (0..100).cycle() {
        if let Err(error) = client.call(N(n)).await {
            eprintln!("{n}: {error}");
        }
        sleep(Duration::from_millis(20)).await;
    }
    Ok(())
}

/// Answers one scrape after another.
async fn serve(listener: TcpListener, metrics: Metrics) {
    while let Ok((stream, _)) = listener.accept().await {
        // A scraper that stalls or disconnects must not block the next one.
        let _ = timeout(Duration::from_secs(1), answer(stream, &metrics)).await;
    }
}

async fn answer(mut stream: TcpStream, metrics: &Metrics) -> io::Result<()> {
    // The request is not parsed: every path has the metrics.
    let _ = stream.read(&mut [0; 8192]).await?;
    let format = MetricsFormat::Prometheus;
    let (content_type, body) = (format.content_type(), metrics.encode(format));
    let length = body.len();
    let head = format!(
        "HTTP/1.1 200 OK\r\ncontent-type: {content_type}\r\ncontent-length: {length}\r\n\
         connection: close\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).await?;
    stream.write_all(body.as_bytes()).await
}
