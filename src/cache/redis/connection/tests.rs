//! A connection is given up when it should be: commands that a test answers, refuses or leaves.

use super::*;
use crate::cache::redis::resp::Limits;
use crate::interleavings::{of_each_seed, shuffled};
use crate::server_url::RedisUrl;
use redis::{AsyncConnectionConfig, RedisConnectionInfo, ServerErrorKind};
use std::io;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};
use tokio::net::TcpListener;
use tokio::time::sleep;

const PATIENCE: Duration = Duration::from_millis(50);

impl Connection {
    /// A connection that is never there, without a keeper.
    pub(in crate::cache::redis) fn to_nobody() -> Self {
        Self {
            slot: Arc::default(),
            monitor: Arc::default(),
            _keeper: AbortOnDropHandle::new(tokio::spawn(async {})),
        }
    }

    /// A connection over an existing stream, without a keeper.
    pub(crate) async fn over(stream: DuplexStream, patience: Duration) -> Self {
        let info = RedisConnectionInfo::default().set_skip_set_lib_name();
        let config = AsyncConnectionConfig::new().set_response_timeout(None);
        let connection = MultiplexedConnection::new_with_config(&info, stream, config).await;
        let (connection, driver) = connection.unwrap();
        let slot = Arc::<Slot>::default();
        let nowhere = announced(b"localhost", 1).unwrap();
        slot.fill(Arc::new(Link::new(
            connection,
            nowhere,
            patience,
            Arc::default(),
        )));
        let monitor = Arc::<ConnectionMonitor>::default();
        monitor.up();
        Self {
            slot,
            monitor,
            _keeper: AbortOnDropHandle::new(tokio::spawn(driver)),
        }
    }
}

/// A connection whose other end is closed.
async fn connection() -> (Connection, Arc<Link>) {
    let (ours, _) = tokio::io::duplex(1);
    let connection = Connection::over(ours, PATIENCE).await;
    let link = connection.slot.link().unwrap();
    (connection, link)
}

/// What becomes of one command.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Fate {
    Answered,
    Refused,
    Late,
    /// Of a call that has spent half of its budget.
    LateForLess,
    Lost,
}

impl Fate {
    fn draw(rng: &mut fastrand::Rng) -> Self {
        match rng.u8(..100) {
            0..15 => Self::Answered,
            15..30 => Self::Refused,
            30..70 => Self::Late,
            70..99 => Self::LateForLess,
            _ => Self::Lost,
        }
    }

    async fn happen(self, connection: &Connection) {
        let limit = match self {
            Self::LateForLess => PATIENCE / 2,
            _ => PATIENCE,
        };
        let command = async |_| match self {
            Self::Answered => {
                sleep(limit.mul_f32(0.9)).await;
                Ok(())
            }
            Self::Refused => Err((ServerErrorKind::NoPerm.into(), "not you").into()),
            Self::Late | Self::LateForLess => std::future::pending().await,
            Self::Lost => Err(io::Error::from(io::ErrorKind::BrokenPipe).into()),
        };
        let ended = connection.within(limit, command).await;
        let as_it_should = match self {
            Self::Answered => ended.is_ok(),
            Self::Refused => matches!(ended, Err(CommandError::Refused(_))),
            _ => matches!(ended, Err(CommandError::Unavailable)),
        };
        assert!(as_it_should, "{self:?}: {ended:?}");
    }
}

#[test]
fn of_a_hundred_thousand_commands_three_late_ones_in_a_row_end_a_connection() {
    of_each_seed(10_000, async |mut rng| {
        let (connection, link) = connection().await;
        let mut late = 0;
        for _ in 0..10 {
            let fate = Fate::draw(&mut rng);
            fate.happen(&connection).await;
            match fate {
                Fate::Answered | Fate::Refused => late = 0,
                Fate::Late => late += 1,
                Fate::LateForLess => {}
                Fate::Lost => late = 3,
            }
            assert_eq!(link.is_down(), late >= 3);
            if late >= 3 {
                break;
            }
        }
    });
}

#[test]
fn refused_commands_end_no_connection_however_many_at_once() {
    of_each_seed(1000, async |mut rng| {
        let (connection, link) = connection().await;
        let commands = (0..100).map(|_| {
            let fate = [Fate::Refused, Fate::LateForLess][rng.usize(..2)];
            shuffled(rng.fork(), fate.happen(&connection))
        });
        futures_util::future::join_all(commands).await;
        assert!(!link.is_down());
    });
}

/// A server that reads until it has this much, and says all of its answers then.
async fn answering_together(commands: usize, answers: &'static [u8]) -> RedisUrl {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("redis://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        let (mut peer, _) = listener.accept().await.unwrap();
        let mut heard = Vec::new();
        while heard.split(|&byte| byte == b'*').count() <= commands {
            assert_ne!(peer.read_buf(&mut heard).await.unwrap(), 0, "{heard:?}");
        }
        peer.write_all(answers).await.unwrap();
        // Until the other side has gone.
        let _ = peer.read_buf(&mut heard).await;
    });
    url.parse().unwrap()
}

const LONG: Duration = Duration::from_secs(60);

const TERMS: Terms = Terms {
    patience: LONG,
    limits: Limits {
        string: 1 << 20,
        reply: 1 << 20,
    },
};

#[tokio::test]
async fn commands_that_may_go_ahead_are_sent_before_the_check_is_answered() {
    let url = answering_together(3, b"+PONG\r\n*0\r\n$1\r\n5\r\n").await;
    let connection = Connection::open(url, TERMS, true, Arc::default());
    connection.ready().await;
    assert_eq!(connection.state(), ConnectionState::Connecting);
    let answer: Result<String, _> = connection.run(&Cmd::get("fib:5"), LONG).await;
    assert_eq!(answer.unwrap(), "5");
    connection.settled().await;
    assert_eq!(connection.state(), ConnectionState::Up);
}

#[tokio::test]
async fn a_command_that_went_ahead_without_an_answer_waits_for_the_check() {
    let url = answering_together(3, b"-LOADING not yet\r\n*0\r\n-LOADING not yet\r\n").await;
    let connection = Connection::open(url, TERMS, true, Arc::default());
    connection.ready().await;
    let answer: Result<String, _> = connection.run(&Cmd::get("fib:5"), LONG).await;
    assert!(answer.is_err());
    assert!(matches!(connection.state(), ConnectionState::Down(_)));
    assert!(!connection.is_up());
}

#[tokio::test]
async fn commands_wait_for_the_check_unless_they_may_go_ahead() {
    let url = answering_together(2, b"-LOADING not yet\r\n*0\r\n").await;
    let connection = Connection::open(url, TERMS, false, Arc::default());
    connection.ready().await;
    assert!(matches!(connection.state(), ConnectionState::Down(_)));
}
