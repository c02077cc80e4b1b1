//! The requester between callers and a broker that a test plays: no connection, but sessions that
//! come and go, and requests that are answered, refused, given up or forgotten, as a seed has it.

use std::collections::HashMap;
use std::sync::Mutex;

use fastrand::Rng;
use tokio::task::{JoinSet, yield_now};

use super::requests::Publication;
use super::*;
use crate::error::ErrorCode;
use crate::interleavings::{millis, of_each_seed, shuffled};
use crate::message::Failure;

/// Worlds, and requests in each.
const SEEDS: u64 = 1000;
const REQUESTS: u64 = 100;

/// What a timer may be late.
const TICK: Duration = Duration::from_millis(1);

struct World {
    requester: Requester,
    book: Mutex<Book>,
}

#[derive(Default)]
struct Book {
    asked: HashMap<Uuid, Asked>,
    begun: u32,
    copies: u32,
    session: u32,
    closed: bool,
    met: Met,
}

/// One request, as the broker and its caller have seen it.
struct Asked {
    deadline: Deadline,
    /// The deadline before anybody joined.
    first: Instant,
    /// What it was told while it waited.
    heard: Vec<Outcome>,
    /// When the latest publication expires, how many do then, and how many did sooner.
    expires: Option<Instant>,
    publications: usize,
    outdated: usize,
    /// Its session; whether there was a copy of it, and since when there is an outcome.
    session: u32,
    copied: bool,
    told: Option<Instant>,
}

/// How often what is tested happened, in all worlds.
#[derive(Debug, Default)]
struct Met {
    answered: u32,
    after_a_loss: u32,
    after_a_nack: u32,
    after_unroutable: u32,
    after_expiry: u32,
    after_a_copy: u32,
    nacked_twice: u32,
    unreachable: u32,
    too_late: u32,
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
    Outcome::Failed(Error::NobodyServing {
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
            book: Mutex::default(),
        });
        let broker = tokio::spawn(shuffled(rng.fork(), broker(rng.fork(), Arc::clone(&world))));
        let supervisor = AbortOnDropHandle::new(broker);
        world.requester.supervisor.set(supervisor).unwrap();
        world
    }

    /// Tells a request something, whether it waits or not.
    fn tells(&self, id: Uuid, outcome: Outcome) {
        if self.requester.pending.awaits(id) {
            self.book.lock().unwrap().hears(id, &outcome);
        }
        self.requester.pending.complete(id, outcome);
    }

    fn tells_all(&self, outcome: &Outcome) {
        let mut book = self.book.lock().unwrap();
        let asked: Vec<Uuid> = book.asked.keys().copied().collect();
        for id in asked {
            if self.requester.pending.awaits(id) {
                book.hears(id, outcome);
            }
        }
        self.requester.pending.complete_all(outcome);
    }
}

impl Book {
    fn hears(&mut self, id: Uuid, outcome: &Outcome) {
        let asked = self.asked.get_mut(&id).unwrap();
        asked.heard.push(outcome.clone());
        asked.told = Some(Instant::now());
    }

    /// What must be true of every publication.
    fn published(&mut self, publication: &Publication) {
        let asked = self.asked.get_mut(&publication.id).unwrap();
        let (now, deadline) = (Instant::now(), asked.deadline.at());
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
        let later = asked.expires.is_none_or(|last| expires > last + 2 * TICK);
        if later {
            asked.outdated += std::mem::take(&mut asked.publications);
        }
        asked.publications += 1;
        let anew = later || asked.session != self.session;
        if asked.told == Some(now) && !anew {
            // It was under way when its caller was told.
            return;
        }
        if asked.told.is_some() || anew {
            let has_expired = asked.heard.last() == Some(&Outcome::Reply(expiry()));
            let told = asked.told.is_some();
            if asked.told != Some(now) {
                asked.told = None;
            }
            // Otherwise it may have been under way when its caller was told, who asks again later.
            // What a session that is over has taken with it counts, too, and is not seen here.
            let extended = deadline > asked.first;
            assert!(
                extended || !(told && has_expired),
                "asked again, out of time"
            );
            asked.copied = false;
        } else {
            assert!(!asked.copied, "a second copy");
            asked.copied = true;
            self.copies += 1;
            assert!(self.copies <= 10 + self.begun / 10, "beyond the budget");
        }
        asked.session = self.session;
        asked.expires = Some(expires);
    }
}

/// One session after another, until it is closed in some worlds.
async fn broker(mut rng: Rng, world: Arc<World>) {
    let Requester { state, pending, .. } = &world.requester;
    for _ in 0..rng.u8(3..20) {
        sleep(millis(&mut rng, 100)).await;
        if rng.u8(..4) == 0 {
            state.send_replace(SessionState::Down(unreachable()));
            sleep(millis(&mut rng, 100)).await;
        }
        let (session, mut publications) = SessionHandle::new("amq.gen-1".into());
        world.book.lock().unwrap().session += 1;
        state.send_replace(SessionState::Up(Arc::new(session)));
        let mut end = Box::pin(sleep(millis(&mut rng, 500)));
        let mut replies = JoinSet::new();
        loop {
            tokio::select! {
                biased;
                Some(publication) = publications.recv() => {
                    world.book.lock().unwrap().published(&publication);
                    // As the supervisor does.
                    if pending.awaits(publication.id) {
                        let fate = fate(rng.fork(), Arc::clone(&world), publication.id);
                        replies.spawn(shuffled(rng.fork(), fate));
                    }
                }
                () = &mut end => break,
            }
        }
        // As the supervisor does, in this order; callers on other threads come in between.
        publications.close();
        yield_now().await;
        state.send_replace(SessionState::Connecting);
        yield_now().await;
        world.tells_all(&match rng.u8(..10) {
            0 => Outcome::Failed(unreachable()),
            _ => Outcome::Lost,
        });
    }
    world.book.lock().unwrap().closed = true;
    state.send_replace(SessionState::Closed);
    world.tells_all(&Outcome::Lost);
}

/// What becomes of a request that was published.
async fn fate(mut rng: Rng, world: Arc<World>, id: Uuid) {
    let (soon, late) = (millis(&mut rng, 50), millis(&mut rng, 1000));
    let (pause, outcome) = match rng.u8(..20) {
        0..6 => (soon, Outcome::Reply(text(&mut rng))),
        6..10 => (late, Outcome::Reply(text(&mut rng))),
        10..12 => (soon, Outcome::Nacked),
        12..14 => (soon, Outcome::Unroutable),
        14..16 => (soon, Outcome::Reply(expiry())),
        16 => (soon, no_worker()),
        // For ever.
        _ => return,
    };
    sleep(pause).await;
    world.tells(id, outcome);
    if rng.bool() {
        sleep(soon).await;
        world.tells(id, Outcome::Reply(text(&mut rng)));
    }
}

/// Somebody who joins the flight and has more time, or nobody.
async fn company(mut rng: Rng, deadline: &Deadline) {
    if rng.u8(..3) == 0 {
        sleep(millis(&mut rng, 1000)).await;
        deadline.extend(deadline.at() + millis(&mut rng, 500) + 5 * TICK);
    }
    std::future::pending::<()>().await;
}

/// Asks once. Some have company that extends the deadline; some give up.
async fn caller(mut rng: Rng, world: Arc<World>) {
    sleep(millis(&mut rng, 1000)).await;
    let deadline = Deadline::new(Instant::now() + millis(&mut rng, 1000));
    let (id, wait) = (Uuid::from_u128(rng.u128(..)), rng.bool());
    let asked = Asked {
        first: deadline.at(),
        deadline: deadline.clone(),
        heard: Vec::new(),
        expires: None,
        publications: 0,
        outdated: 0,
        session: 0,
        copied: false,
        told: None,
    };
    {
        let mut book = world.book.lock().unwrap();
        book.begun += 1;
        book.asked.insert(id, asked);
    }
    let gives_up = match rng.u8(..10) {
        0 => millis(&mut rng, 500),
        _ => Duration::from_secs(60),
    };
    let request = (world.requester).request(id, "30", CacheUse::Normal, wait, &deadline);
    let ended = tokio::select! {
        biased;
        ended = request => Some(ended),
        () = company(rng.fork(), &deadline) => unreachable!("it does not end"),
        () = sleep(gives_up) => None,
    };
    assert!(!world.requester.pending.awaits(id), "it still waits");
    if let Some(ended) = ended {
        let Book {
            asked, met, closed, ..
        } = &mut *world.book.lock().unwrap();
        met.judge(&asked[&id], &ended, *closed);
    }
}

impl Met {
    /// What must be true of every end.
    fn judge(&mut self, asked: &Asked, ended: &Result<Reply, Error>, closed: bool) {
        let (now, deadline) = (Instant::now(), asked.deadline.at());
        assert!(now <= deadline + TICK, "too late");
        let heard = |outcome: &Outcome| asked.heard.iter().filter(|o| *o == outcome).count();
        let (last, before) = match asked.heard.split_last() {
            Some((last, before)) => (Some(last), before),
            None => (None, &[][..]),
        };
        for outcome in before {
            let retriable = match outcome {
                Outcome::Reply(reply) => reply.is_expired(),
                Outcome::Failed(_) => false,
                Outcome::Lost | Outcome::Unroutable | Outcome::Nacked => true,
            };
            assert!(retriable, "asked again after {outcome:?}");
        }
        match last {
            Some(Outcome::Reply(reply)) if !reply.is_expired() => {
                assert_eq!(ended.as_ref(), Ok(reply), "not the first reply");
                self.answered += 1;
                self.after_a_loss += u32::from(heard(&Outcome::Lost) > 0);
                self.after_a_nack += u32::from(heard(&Outcome::Nacked) > 0);
                self.after_unroutable += u32::from(heard(&Outcome::Unroutable) > 0);
                self.after_expiry += u32::from(heard(&Outcome::Reply(expiry())) > 0);
                self.after_a_copy += u32::from(asked.copied);
            }
            Some(Outcome::Failed(error)) => assert_eq!(ended.as_ref(), Err(error)),
            Some(Outcome::Nacked) if heard(&Outcome::Nacked) == 2 => {
                assert!(matches!(ended, Err(Error::Overloaded { .. })), "{ended:?}");
                self.nacked_twice += 1;
            }
            Some(Outcome::Reply(reply)) if ended.as_ref() == Ok(reply) => {
                let expired = heard(&Outcome::Reply(expiry()));
                assert!(expired > asked.outdated, "what was outdated has expired");
            }
            // Not published, and there is no connection.
            None if asked.expires.is_none() && *ended == Err(unreachable()) => {
                self.unreachable += 1;
            }
            Some(_) | None if closed => {
                assert!(matches!(ended, Err(Error::Unreachable { .. })), "{ended:?}");
            }
            Some(_) | None => {
                assert!(now >= deadline, "too early: {ended:?} after {last:?}");
                let late = matches!(ended, Err(Error::Deadline { .. }));
                assert!(late || *ended == Err(unreachable()), "{ended:?}");
                self.too_late += 1;
            }
        }
    }
}

#[test]
fn in_a_hundred_thousand_interleavings_every_request_ends_as_it_should() {
    let met = Mutex::new(Met::default());
    of_each_seed(SEEDS, async |mut rng| {
        let world = World::new(&mut rng);
        world.book.lock().unwrap().met = std::mem::take(&mut met.lock().unwrap());
        let mut callers = JoinSet::new();
        for _ in 0..REQUESTS {
            let caller = caller(rng.fork(), Arc::clone(&world));
            callers.spawn(shuffled(rng.fork(), caller));
        }
        callers.join_all().await;
        assert!(world.requester.pending.is_empty());
        *met.lock().unwrap() = std::mem::take(&mut world.book.lock().unwrap().met);
    });
    let met = met.into_inner().unwrap();
    let counts = [
        met.answered,
        met.after_a_loss,
        met.after_a_nack,
        met.after_unroutable,
        met.after_a_copy,
        met.nacked_twice,
        met.unreachable,
        met.too_late,
        // Rarer: a deadline has to be extended meanwhile.
        met.after_expiry * 10,
    ];
    assert!(counts.iter().all(|count| *count > 1000), "{met:?}");
}
