//! Tests the requester against a simulated broker, without a connection: sessions start and end, and requests are
//! answered, refused, cancelled or lost, at random from a seed.

mod coverage;

use std::collections::HashMap;
use std::sync::Mutex;

use fastrand::Rng;
use tokio::task::{JoinSet, yield_now};

use self::coverage::Coverage;
use super::*;
use crate::error::ErrorCode;
use crate::interleavings::{millis, of_each_seed, shuffled};
use crate::message::Failure;

/// Worlds, and requests in each.
const SEEDS: u64 = 1000;
const REQUESTS: u64 = 100;

/// The tolerance of timers.
const TICK: Duration = Duration::from_millis(1);

struct World {
    requester: Requester,
    records: Mutex<Records>,
}

#[derive(Default)]
struct Records {
    by_id: HashMap<Uuid, Record>,
    begun: u32,
    copies: u32,
    session: u32,
    closed: bool,
    coverage: Coverage,
}

/// What the broker and the caller have seen of one request.
struct Record {
    deadline: Deadline,
    /// The deadline before another caller joined.
    first: Instant,
    /// Its outcomes while it waited.
    outcomes: Vec<Outcome>,
    /// When the latest publications expire, their number, and the number of those that expire earlier.
    expires: Option<Instant>,
    publications: usize,
    outdated: usize,
    /// Its latest session; how many copies were published in it; when its latest outcome came.
    session: u32,
    copies: u32,
    completed: Option<Instant>,
}

fn text(rng: &mut Rng) -> Reply {
    Reply {
        outcome: Ok(Arc::new(rng.u64(..).to_string().into_bytes())),
        source: None,
        filled: None,
        steps: None,
    }
}

fn expiry() -> Reply {
    let failure = Failure {
        code: ErrorCode::Expired,
        message: String::new(),
    };
    Reply {
        outcome: Err(failure),
        source: None,
        filled: None,
        steps: None,
    }
}

fn unreachable() -> Error {
    Error::Unreachable {
        server: "a broker".to_owned(),
        reason: "a reason".to_owned(),
    }
}

fn no_worker() -> Outcome {
    Outcome::Failed(Error::NoWorkers {
        queue: "a queue".to_owned(),
    })
}

impl World {
    fn new(rng: &mut Rng) -> Arc<Self> {
        let world = Arc::new(Self {
            requester: Requester::new(RequesterOptions {
                url: "amqp://localhost".parse().unwrap(),
                queue: "rpc_queue".into(),
                one_shot: false,
            }),
            records: Mutex::default(),
        });
        let broker = tokio::spawn(shuffled(rng.fork(), broker(rng.fork(), Arc::clone(&world))));
        let supervisor = AbortOnDropHandle::new(broker);
        world.requester.supervisor.set(supervisor).unwrap();
        world
    }

    /// Completes a request, whether it waits or not.
    fn complete(&self, id: Uuid, outcome: Outcome) {
        if self.requester.pending.awaits(id) {
            self.records.lock().unwrap().add_outcome(id, &outcome);
        }
        self.requester.pending.complete(id, outcome);
    }

    fn complete_all(&self, outcome: &Outcome) {
        let mut records = self.records.lock().unwrap();
        let ids: Vec<Uuid> = records.by_id.keys().copied().collect();
        for id in ids {
            if self.requester.pending.awaits(id) {
                records.add_outcome(id, outcome);
            }
        }
        self.requester.pending.complete_all(outcome);
    }
}

impl Records {
    fn add_outcome(&mut self, id: Uuid, outcome: &Outcome) {
        let record = self.by_id.get_mut(&id).unwrap();
        record.outcomes.push(outcome.clone());
        record.completed = Some(Instant::now());
    }

    /// Asserts what must be true of every publication.
    fn published(&mut self, publication: &Publication) {
        let record = self.by_id.get_mut(&publication.id).unwrap();
        let (now, deadline) = (Instant::now(), record.deadline.at());
        let properties = &publication.properties;
        assert_eq!(message::correlation_id(properties), Some(publication.id));
        assert!(now < deadline, "published after the deadline");
        let expiration = properties.expiration().as_ref().unwrap();
        let left = Duration::from_millis(expiration.as_str().parse().unwrap());
        assert!(
            now + left <= deadline || left == TICK,
            "outlives its caller"
        );

        let expires = now + left;
        let later = record.expires.is_none_or(|last| expires > last + 2 * TICK);
        if later {
            record.outdated += std::mem::take(&mut record.publications);
        }
        record.publications += 1;
        let anew = later || record.session != self.session;
        if record.completed == Some(now) && !anew {
            // It was in flight when its request was completed.
            return;
        }
        if record.completed.is_some() || anew {
            let has_expired = record.outcomes.last() == Some(&Outcome::Reply(expiry()));
            let completed = record.completed.is_some();
            if record.completed != Some(now) {
                record.completed = None;
            }
            // Otherwise it may have been in flight when its request was completed, and is published again later.
            // Publications that an result session has dropped count, too, and are not seen here.
            let extended = deadline > record.first;
            assert!(
                extended || !(completed && has_expired),
                "published again, out of time"
            );
            record.copies = 0;
        } else {
            assert!(record.copies < MAX_COPIES, "another copy");
            record.copies += 1;
            self.copies += 1;
            assert!(self.copies <= 10 + self.begun / 10, "beyond the budget");
        }
        record.session = self.session;
        record.expires = Some(expires);
    }
}

/// Simulates one session after another, and then the end of the supervisor.
async fn broker(mut rng: Rng, world: Arc<World>) {
    let Requester { state, pending, .. } = &world.requester;
    for _ in 0..rng.u8(3..20) {
        sleep(millis(&mut rng, 100)).await;
        if rng.u8(..4) == 0 {
            state.send_replace(SessionState::Down(unreachable()));
            sleep(millis(&mut rng, 100)).await;
        }
        let (session, mut publications) = SessionHandle::new("amq.gen-1".into());
        world.records.lock().unwrap().session += 1;
        state.send_replace(SessionState::Up(Arc::new(session)));
        let mut end = Box::pin(sleep(millis(&mut rng, 500)));
        let mut replies = JoinSet::new();
        loop {
            tokio::select! {
                biased;
                Some(publication) = publications.recv() => {
                    world.records.lock().unwrap().published(&publication);
                    // As the supervisor does.
                    if pending.awaits(publication.id) {
                        let fate = fate(rng.fork(), Arc::clone(&world), publication.id);
                        replies.spawn(shuffled(rng.fork(), fate));
                    }
                }
                () = &mut end => break,
            }
        }
        // In the supervisor's order; callers on other threads run in between.
        publications.close();
        yield_now().await;
        state.send_replace(SessionState::Connecting);
        yield_now().await;
        world.complete_all(&match rng.u8(..10) {
            0 => Outcome::Failed(unreachable()),
            _ => Outcome::Lost,
        });
    }
    world.records.lock().unwrap().closed = true;
    state.send_replace(SessionState::Closed);
    world.complete_all(&Outcome::Lost);
}

/// Completes a published request in a random way.
async fn fate(mut rng: Rng, world: Arc<World>, id: Uuid) {
    let (soon, late) = (millis(&mut rng, 50), millis(&mut rng, 1000));
    let (pause, outcome) = match rng.u8(..20) {
        0..6 => (soon, Outcome::Reply(text(&mut rng))),
        6..10 => (late, Outcome::Reply(text(&mut rng))),
        10..12 => (soon, Outcome::Nacked),
        12..14 => (soon, Outcome::Unroutable),
        14..16 => (soon, Outcome::Reply(expiry())),
        16 => (soon, no_worker()),
        // Never answered.
        _ => return,
    };
    sleep(pause).await;
    world.complete(id, outcome);
    if rng.bool() {
        sleep(soon).await;
        world.complete(id, Outcome::Reply(text(&mut rng)));
    }
}

/// Extends the deadline, in a third of all cases, as a caller that joins the flight. Never ends.
async fn joining_caller(mut rng: Rng, deadline: &Deadline) {
    if rng.u8(..3) == 0 {
        sleep(millis(&mut rng, 1000)).await;
        deadline.extend(deadline.at() + millis(&mut rng, 500) + 5 * TICK);
    }
    std::future::pending::<()>().await;
}

/// Sends one request. For some, another caller extends the deadline; some are cancelled.
async fn caller(mut rng: Rng, world: Arc<World>) {
    sleep(millis(&mut rng, 1000)).await;
    let deadline = Deadline::new(Instant::now() + millis(&mut rng, 1000));
    let (id, wait) = (Uuid::from_u128(rng.u128(..)), rng.bool());
    let record = Record {
        first: deadline.at(),
        deadline: deadline.clone(),
        outcomes: Vec::new(),
        expires: None,
        publications: 0,
        outdated: 0,
        session: 0,
        copies: 0,
        completed: None,
    };
    {
        let mut records = world.records.lock().unwrap();
        records.begun += 1;
        records.by_id.insert(id, record);
    }
    let cancelled = match rng.u8(..10) {
        0 => millis(&mut rng, 500),
        _ => Duration::from_secs(60),
    };
    let request = (world.requester).request(id, "30", CacheUse::Normal, wait, &deadline);
    let result = tokio::select! {
        biased;
        result = request => Some(result),
        () = joining_caller(rng.fork(), &deadline) => unreachable!("it does not end"),
        () = sleep(cancelled) => None,
    };
    assert!(!world.requester.pending.awaits(id), "still registered");
    if let Some(result) = result {
        let Records {
            by_id,
            coverage,
            closed,
            ..
        } = &mut *world.records.lock().unwrap();
        coverage.check(&by_id[&id], &result, *closed);
    }
}

#[test]
fn in_a_hundred_thousand_interleavings_every_request_ends_correctly() {
    let coverage = Mutex::new(Coverage::default());
    of_each_seed(SEEDS, async |mut rng| {
        let world = World::new(&mut rng);
        world.records.lock().unwrap().coverage = std::mem::take(&mut coverage.lock().unwrap());
        let mut callers = JoinSet::new();
        for _ in 0..REQUESTS {
            let caller = caller(rng.fork(), Arc::clone(&world));
            callers.spawn(shuffled(rng.fork(), caller));
        }
        callers.join_all().await;
        assert!(world.requester.pending.is_empty());
        *coverage.lock().unwrap() = std::mem::take(&mut world.records.lock().unwrap().coverage);
    });
    let coverage = coverage.into_inner().unwrap();
    coverage.is_broad();
}
