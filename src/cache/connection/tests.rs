//! When a connection is given up: commands that a test answers, refuses or leaves, against a count.

use super::*;
use crate::interleavings::{of_each_seed, shuffled};
use redis::{RedisConnectionInfo, ServerErrorKind};
use tokio::io::DuplexStream;
use tokio::time::sleep;

const PATIENCE: Duration = Duration::from_millis(50);

impl Connection {
    /// One that is never there, without a keeper.
    pub(in crate::cache) fn to_nobody() -> Self {
        Self {
            slot: Arc::new(ArcSwapOption::empty()),
            counts: Arc::default(),
            _keeper: AbortOnDropHandle::new(tokio::spawn(async {})),
        }
    }

    /// Over what is there already, without a keeper.
    pub(crate) async fn over(stream: DuplexStream, patience: Duration) -> Self {
        let info = RedisConnectionInfo::default().set_skip_set_lib_name();
        let config = AsyncConnectionConfig::new().set_response_timeout(None);
        let connection = MultiplexedConnection::new_with_config(&info, stream, config).await;
        let (connection, driver) = connection.unwrap();
        let link = Link {
            connection,
            breaker: Breaker::default(),
            patience,
            down: CancellationToken::new(),
            why: OnceLock::new(),
        };
        let counts = Arc::<CacheCounts>::default();
        counts.redis.up();
        Self {
            slot: Arc::new(ArcSwapOption::from_pointee(link)),
            counts,
            _keeper: AbortOnDropHandle::new(tokio::spawn(driver)),
        }
    }
}

/// A connection to nobody.
async fn connection() -> (Connection, Arc<Link>) {
    let (ours, _) = tokio::io::duplex(1);
    let connection = Connection::over(ours, PATIENCE).await;
    let link = connection.slot.load_full().unwrap();
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
            Self::Refused => matches!(ended, Err(Unanswered::Refused(_))),
            _ => matches!(ended, Err(Unanswered::Unavailable)),
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
            assert_eq!(link.down.is_cancelled(), late >= 3);
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
        assert!(!link.down.is_cancelled());
    });
}
