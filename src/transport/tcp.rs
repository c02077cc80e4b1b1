//! Opens TCP connections with keepalive, racing the addresses of a name as in RFC 8305.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};

use super::race::{CONNECTION_ATTEMPT_DELAY, HeadStart, race};

/// The shortest delay between two attempts (RFC 8305, section 8).
const MIN_HEAD_START: Duration = Duration::from_millis(10);

/// A connection that is idle for so long is probed. Well below the limits of NAT gateways and load balancers
/// (from 60 s), which drop idle connections silently.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(30);

/// Time between probes. The connection is lost after [`KEEPALIVE_PROBES`] unanswered ones in a row.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);
const KEEPALIVE_PROBES: u32 = 3;

/// Connects to the first of these addresses that answers, before the deadline, and drops the other attempts.
/// Cancel safe.
pub(crate) async fn open(addresses: Vec<SocketAddr>, deadline: Instant) -> io::Result<TcpStream> {
    let addresses = interleaved(addresses);
    let head_start = HeadStart::to_connect(head_start(addresses.len(), deadline));
    let attempts = addresses.into_iter().map(TcpStream::connect).collect();
    let Ok(raced) = timeout_at(deadline, race(attempts, &head_start)).await else {
        return Err(io::ErrorKind::TimedOut.into());
    };
    let stream = raced.map_err(|mut errors| {
        let last = errors.pop();
        last.unwrap_or_else(|| io::Error::other("the name has no address"))
    })?;
    keep_alive(&stream)?;
    Ok(stream)
}

/// Short enough for every address to be tried, with one share of the time left to log in to the last.
fn head_start(addresses: usize, deadline: Instant) -> Duration {
    let turns = u32::try_from(addresses)
        .unwrap_or(u32::MAX)
        .saturating_add(1);
    let share = deadline.saturating_duration_since(Instant::now()) / turns;
    share.clamp(MIN_HEAD_START, CONNECTION_ATTEMPT_DELAY)
}

/// Alternates IPv6 and IPv4 addresses, starting with the family of the first: a family without a route costs
/// one head start.
fn interleaved(addresses: Vec<SocketAddr>) -> Vec<SocketAddr> {
    let starts_with_ipv6 = addresses.first().is_some_and(SocketAddr::is_ipv6);
    let (first, second): (Vec<_>, Vec<_>) = addresses
        .into_iter()
        .partition(|address| address.is_ipv6() == starts_with_ipv6);
    let (mut first, mut second) = (first.into_iter(), second.into_iter());
    let mut turns = Vec::new();
    loop {
        let before = turns.len();
        turns.extend(first.next());
        turns.extend(second.next());
        if turns.len() == before {
            return turns;
        }
    }
}

fn keep_alive(stream: &TcpStream) -> io::Result<()> {
    let keepalive = TcpKeepalive::new()
        .with_time(KEEPALIVE_IDLE)
        .with_interval(KEEPALIVE_INTERVAL)
        .with_retries(KEEPALIVE_PROBES);
    SockRef::from(stream).set_tcp_keepalive(&keepalive)
}

#[cfg(test)]
mod tests {
    use super::*;
    use socket2::{Domain, Socket, Type};
    use tokio::net::TcpListener;

    /// A listener whose backlog is full: further attempts are neither answered nor refused.
    struct Blackhole {
        address: SocketAddr,
        _held: Vec<Socket>,
    }

    impl Blackhole {
        fn at(ip: &str) -> Self {
            let address = SocketAddr::new(ip.parse().unwrap(), 0);
            let open = || Socket::new(Domain::for_address(address), Type::STREAM, None).unwrap();
            let listener = open();
            listener.bind(&address.into()).unwrap();
            listener.listen(0).unwrap();
            let address = listener.local_addr().unwrap();
            let mut held = vec![listener];
            loop {
                let one_more = open();
                let connected = one_more.connect_timeout(&address, Duration::from_millis(200));
                held.push(one_more);
                if connected.is_err() {
                    break;
                }
                assert!(held.len() < 100, "the backlog of {address:?} is never full");
            }
            Self {
                address: address.as_socket().unwrap(),
                _held: held,
            }
        }
    }

    async fn listening() -> (TcpListener, SocketAddr) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        (listener, address)
    }

    fn deadline() -> Instant {
        Instant::now() + Duration::from_secs(5)
    }

    #[tokio::test]
    async fn an_address_that_drops_packets_costs_a_head_start() {
        let (_listener, good) = listening().await;
        let has_ipv6 = TcpListener::bind("[::1]:0").await.is_ok();
        for ip in ["127.0.0.1", "::1"]
            .into_iter()
            .take(1 + usize::from(has_ipv6))
        {
            let blackhole = Blackhole::at(ip);
            let start = Instant::now();
            let opened = open(vec![blackhole.address, good], deadline()).await;
            assert_eq!(opened.unwrap().peer_addr().unwrap(), good, "{ip}");
            assert!(
                start.elapsed() >= CONNECTION_ATTEMPT_DELAY,
                "{:?}",
                start.elapsed()
            );
            assert!(
                start.elapsed() < CONNECTION_ATTEMPT_DELAY * 4,
                "{:?}",
                start.elapsed()
            );
        }
    }

    #[tokio::test]
    async fn an_address_that_refuses_costs_nothing() {
        let (_listener, good) = listening().await;
        let (closed, refusing) = listening().await;
        drop(closed);
        let start = Instant::now();
        let opened = open(vec![refusing, good], deadline()).await;
        assert_eq!(opened.unwrap().peer_addr().unwrap(), good);
        assert!(
            start.elapsed() < CONNECTION_ATTEMPT_DELAY,
            "{:?}",
            start.elapsed()
        );
    }

    #[tokio::test]
    async fn without_an_answer_the_attempt_ends_at_the_deadline() {
        let blackhole = Blackhole::at("127.0.0.1");
        let deadline = Instant::now() + Duration::from_millis(300);
        let opened = open(vec![blackhole.address], deadline).await;
        assert_eq!(opened.unwrap_err().kind(), io::ErrorKind::TimedOut);
        assert!(open(Vec::new(), deadline).await.is_err());
    }

    #[tokio::test]
    async fn an_idle_connection_is_probed() {
        let (_listener, good) = listening().await;
        let stream = open(vec![good], deadline()).await.unwrap();
        let socket = SockRef::from(&stream);
        assert!(socket.keepalive().unwrap());
        assert_eq!(socket.tcp_keepalive_time().unwrap(), KEEPALIVE_IDLE);
        assert_eq!(socket.tcp_keepalive_interval().unwrap(), KEEPALIVE_INTERVAL);
        assert_eq!(socket.tcp_keepalive_retries().unwrap(), KEEPALIVE_PROBES);
    }

    #[tokio::test(start_paused = true)]
    async fn every_address_is_tried_before_the_deadline() {
        let in_500_ms = Instant::now() + Duration::from_millis(500);
        assert_eq!(head_start(1, in_500_ms), CONNECTION_ATTEMPT_DELAY);
        assert_eq!(head_start(4, in_500_ms), Duration::from_millis(100));
        assert_eq!(head_start(2, deadline()), CONNECTION_ATTEMPT_DELAY);
        assert_eq!(head_start(usize::MAX, in_500_ms), MIN_HEAD_START);
        assert_eq!(head_start(1, Instant::now()), MIN_HEAD_START);
    }

    #[test]
    fn address_families_alternate() {
        let addresses = |texts: &[&str]| -> Vec<SocketAddr> {
            texts.iter().map(|text| text.parse().unwrap()).collect()
        };
        for (resolved, expected) in [
            (
                &["[::1]:1", "[::2]:1", "[::3]:1", "1.0.0.1:1", "1.0.0.2:1"][..],
                &["[::1]:1", "1.0.0.1:1", "[::2]:1", "1.0.0.2:1", "[::3]:1"][..],
            ),
            (
                &["1.0.0.1:1", "1.0.0.2:1", "[::1]:1"],
                &["1.0.0.1:1", "[::1]:1", "1.0.0.2:1"],
            ),
            (&["1.0.0.1:1"], &["1.0.0.1:1"]),
            (&[], &[]),
        ] {
            assert_eq!(interleaved(addresses(resolved)), addresses(expected));
        }
    }
}
