//! Checks of the network path to a server: name resolution, port, TLS, protocol.
//!
//! Uses sockets without lapin or redis-rs, so that each step has a finding of its own. Each wait has a deadline.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::lookup_host;
use tokio::time::{Instant, timeout};

use super::Found;
use crate::error::{Error, quote};
use crate::tls::{Tls, TlsFault};
use crate::transport::{Endpoint, Fault, Stream, describe, expects_tls, open_tcp, open_unix};

/// Time for each step of each node.
const DEADLINE: Duration = Duration::from_secs(3);

/// Bytes to read of a server's first reply; both servers send fewer.
const MAX_FIRST_REPLY: usize = 4096;

const AMQP_HELLO: &[u8] = b"AMQP\x00\x00\x09\x01";

/// Redis answers it before any login, if only with an error. Twice, because RabbitMQ waits for eight bytes.
const REDIS_HELLO: &[u8] = b"PING\r\nPING\r\n";

/// Sent to a server that is still silent: many protocols wait for the end of a line.
const NUDGE: &[u8] = b"\r\n\r\n";
const NUDGE_AFTER: Duration = Duration::from_secs(1);

type Judged = Result<String, String>;

/// The nodes of one server, as far as the checks have reached them.
#[derive(Debug, Default)]
pub(super) struct Route {
    endpoints: Vec<Endpoint>,
    resolved: Vec<(Node, Vec<SocketAddr>)>,
    reached: Vec<(Node, Stream)>,
}

#[derive(Debug)]
struct Node {
    endpoint: Endpoint,
    at: String,
}

impl Route {
    pub(super) fn to(endpoints: Vec<Endpoint>) -> Self {
        Self {
            endpoints,
            ..Self::default()
        }
    }

    /// Resolves the host names.
    pub(super) async fn resolve(&mut self) -> Found {
        let mut nodes = Vec::new();
        for endpoint in std::mem::take(&mut self.endpoints) {
            let at = endpoint.to_string();
            let (host, port) = match &endpoint {
                Endpoint::Tcp { host, port } => (host.clone(), *port),
                Endpoint::Unix(_) => {
                    nodes.push(Ok(format!("{at} is a path")));
                    self.resolved.push((Node { endpoint, at }, Vec::new()));
                    continue;
                }
            };
            let found = timeout(DEADLINE, lookup_host((host.as_str(), port))).await;
            let found = found.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
            nodes.push(match found.map(Iterator::collect::<Vec<_>>) {
                Ok(addresses) => {
                    let mut texts: Vec<_> =
                        addresses.iter().map(|one| one.ip().to_string()).collect();
                    texts.dedup();
                    let text = if host.parse::<IpAddr>().is_ok() {
                        format!("{host} is an address")
                    } else {
                        format!("{host} is {}", texts.join(", "))
                    };
                    self.resolved.push((Node { endpoint, at }, addresses));
                    Ok(text)
                }
                Err(error) => Err(format!("{host}: {}", resolution_error(&error))),
            });
        }
        found(nodes)
    }

    /// Connects to all nodes.
    pub(super) async fn connect(&mut self) -> Found {
        let mut nodes = Vec::new();
        for (node, addresses) in std::mem::take(&mut self.resolved) {
            let at = &node.at;
            let deadline = Instant::now() + DEADLINE;
            let opened = match &node.endpoint {
                Endpoint::Tcp { .. } => open_tcp(addresses, deadline).await.map(Stream::plain),
                Endpoint::Unix(path) => open_unix(path, deadline).await,
            };
            nodes.push(match opened {
                Ok(stream) => {
                    let text = format!("{at} is open");
                    self.reached.push((node, stream));
                    Ok(text)
                }
                Err(error) => Err(format!("{at}: {}", connection_error(&error))),
            });
        }
        found(nodes)
    }

    /// Whether all nodes run on this machine.
    pub(super) fn is_local(&self) -> bool {
        self.reached.iter().all(|(_, stream)| stream.is_local())
    }

    /// Starts TLS on all connections.
    pub(super) async fn encrypt(&mut self, tls: &Tls) -> Found {
        let (mut nodes, mut first_fault) = (Vec::new(), None);
        for (node, stream) in std::mem::take(&mut self.reached) {
            let deadline = Instant::now() + DEADLINE;
            let at = &node.at;
            nodes.push(
                match stream.encrypted(node.endpoint.host(), tls, deadline).await {
                    Ok(stream) => {
                        let text = format!("{at} uses {}", stream.protocol().unwrap_or_default());
                        self.reached.push((node, stream));
                        Ok(text)
                    }
                    Err(Fault::Tls(fault)) => {
                        let error = no_tls(&node, fault);
                        first_fault.get_or_insert(error.clone());
                        Err(error.to_string())
                    }
                    Err(Fault::Handshake(error)) if error.kind() == io::ErrorKind::TimedOut => {
                        let seconds = DEADLINE.as_secs();
                        Err(format!(
                            "{at}: no answer to the TLS handshake within {seconds} s"
                        ))
                    }
                    Err(Fault::Connecting(error) | Fault::Handshake(error)) => Err(format!(
                        "{at}: during the TLS handshake, {}",
                        describe(&error)
                    )),
                },
            );
        }
        found_or(nodes, first_fault)
    }

    pub(super) async fn speaks_amqp(&mut self) -> Found {
        self.speaks("RabbitMQ", AMQP_HELLO, amqp_start).await
    }

    pub(super) async fn speaks_redis(&mut self) -> Found {
        self.speaks("Redis", REDIS_HELLO, redis_reply).await
    }

    /// Sends the protocol's first message, judges the reply, and closes the connections.
    async fn speaks(&mut self, server: &str, hello: &[u8], judge: fn(&[u8]) -> Judged) -> Found {
        let (mut nodes, mut first_fault) = (Vec::new(), None);
        for (node, mut stream) in std::mem::take(&mut self.reached) {
            let reply = timeout(DEADLINE, first_reply(&mut stream, hello)).await;
            let judged = match reply {
                Ok(Ok(reply)) => judge(&reply),
                Ok(Err(error)) => Err(connection_error(&error)),
                Err(_elapsed) => Err(format!(
                    "it accepts connections, and does not answer: not {server}, or it hangs"
                )),
            };
            let plain = stream.protocol().is_none();
            let deadline = Instant::now() + NUDGE_AFTER;
            nodes.push(match (judged, stream.late_fault().fault()) {
                (Ok(text), _) => Ok(text),
                (Err(_), None) if plain && expects_tls(&node.endpoint, deadline).await => {
                    let error = no_tls(&node, TlsFault::Expected);
                    first_fault.get_or_insert(error.clone());
                    Err(error.to_string())
                }
                (Err(_), Some(fault)) => {
                    let error = no_tls(&node, fault);
                    first_fault.get_or_insert(error.clone());
                    Err(error.to_string())
                }
                (Err(reason), None) => Err(format!("{}: {reason}", node.at)),
            });
        }
        found_or(nodes, first_fault)
    }
}

fn no_tls(node: &Node, fault: TlsFault) -> Error {
    Error::Tls {
        server: node.at.clone(),
        fault,
    }
}

async fn first_reply(stream: &mut Stream, hello: &[u8]) -> io::Result<Vec<u8>> {
    stream.write_all(hello).await?;
    stream.flush().await?;
    let mut reply = vec![0; MAX_FIRST_REPLY];
    let length = match timeout(NUDGE_AFTER, stream.read(&mut reply)).await {
        Ok(read) => read?,
        Err(_elapsed) => {
            stream.write_all(NUDGE).await?;
            stream.flush().await?;
            stream.read(&mut reply).await?
        }
    };
    reply.truncate(length);
    Ok(reply)
}

/// Recognizes RabbitMQ's first frame, `Connection.Start`, which names product and version.
fn amqp_start(reply: &[u8]) -> Judged {
    // A method frame of channel 0; class 10, method 10.
    if reply.starts_with(&[1, 0, 0]) && reply.get(7..11) == Some(&[0, 10, 0, 10]) {
        let product = property(reply, b"\x07productS").unwrap_or("AMQP 0-9-1".to_owned());
        let version = property(reply, b"\x07versionS").unwrap_or_default();
        return Ok(format!("{product} {version}").trim_end().to_owned());
    }
    Err(other_server(reply, "RabbitMQ"))
}

/// The text of a field of the server's properties. `name` is the bytes of the field's name and type.
fn property(reply: &[u8], name: &[u8]) -> Option<String> {
    let at = reply.windows(name.len()).position(|part| part == name)? + name.len();
    let length = u32::from_be_bytes(reply.get(at..at + 4)?.try_into().ok()?);
    let text = reply.get(at + 4..)?.get(..usize::try_from(length).ok()?)?;
    Some(quote(text))
}

fn redis_reply(reply: &[u8]) -> Judged {
    match reply.first() {
        Some(b'+' | b'-') if reply.ends_with(b"\r\n") => Ok("Redis".to_owned()),
        _ => Err(other_server(reply, "Redis")),
    }
}

fn other_server(reply: &[u8], expected: &str) -> String {
    match reply {
        [] => "the connection was closed by the other side".to_owned(),
        reply => {
            let said = quote(&reply[..reply.len().min(40)]);
            format!("what answers there is not {expected}: \"{said}\"")
        }
    }
}

/// The finding for the nodes; the fault of TLS instead, if there is one and no node works.
fn found_or(nodes: Vec<Judged>, fault: Option<Error>) -> Found {
    match (found(nodes), fault) {
        (Found::Nodes { working, .. }, Some(fault)) if working.is_empty() => Found::Failed(fault),
        (found, _) => found,
    }
}

fn found(nodes: Vec<Judged>) -> Found {
    let (mut working, mut failed) = (Vec::new(), Vec::new());
    for node in nodes {
        match node {
            Ok(text) => working.push(text),
            Err(text) => failed.push(text),
        }
    }
    working.dedup();
    Found::Nodes { working, failed }
}

fn resolution_error(error: &io::Error) -> String {
    if error.kind() == io::ErrorKind::TimedOut {
        return "no answer from name resolution".to_owned();
    }
    let text = error.to_string();
    let reason = text.rsplit(": ").next().unwrap_or(&text);
    format!("no address ({})", quote(reason.as_bytes()))
}

fn connection_error(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => "nothing is listening there".to_owned(),
        io::ErrorKind::NotFound => "there is no such file".to_owned(),
        io::ErrorKind::TimedOut => format!("no answer within {} s", DEADLINE.as_secs()),
        io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => {
            "the connection was closed by the other side".to_owned()
        }
        _ => quote(error.to_string().as_bytes()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_broker_is_recognized_by_its_first_frame() {
        let mut frame =
            b"\x01\x00\x00\x00\x00\x00\x30\x00\x0a\x00\x0a\x00\x09\x00\x00\x00\x28".to_vec();
        frame.extend(b"\x07productS\x00\x00\x00\x08RabbitMQ\x07versionS\x00\x00\x00\x063.10.8");
        assert_eq!(amqp_start(&frame).as_deref(), Ok("RabbitMQ 3.10.8"));
        assert_eq!(amqp_start(&frame[..20]).as_deref(), Ok("AMQP 0-9-1"));
        for cut in 17..frame.len() {
            assert!(amqp_start(&frame[..cut]).is_ok());
        }
        let lies = b"\x01\x00\x00\x00\x00\x00\x30\x00\x0a\x00\x0a\x07productS\xff\xff\xff\xffR";
        assert_eq!(amqp_start(lies).as_deref(), Ok("AMQP 0-9-1"));
    }

    #[test]
    fn another_server_is_quoted() {
        let said = amqp_start(b"-ERR unknown\x1b command\r\n").unwrap_err();
        let expected = "what answers there is not RabbitMQ: \"-ERR unknown\\u{1b} command\\r\\n\"";
        assert_eq!(said, expected);
        assert!(amqp_start(b"").unwrap_err().contains("closed"));
        assert!(redis_reply(AMQP_HELLO).unwrap_err().contains("not Redis"));
        assert!(redis_reply(b"-NOAUTH Authentication required.\r\n").is_ok());
    }
}
