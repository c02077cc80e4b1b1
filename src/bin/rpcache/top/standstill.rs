//! Why nothing is answered, although requests wait: the first reason that the figures show. Pure.

use rpcache::inspect::QueueDepth;

use super::snapshot::{Computing, Fleet, Seen, Snapshot, Worker};
use crate::text::thousands;

/// The snapshot with the reason, if there is one.
pub(super) fn explained(snapshot: Snapshot) -> Snapshot {
    Snapshot {
        standstill: reason(&snapshot),
        ..snapshot
    }
}

/// The reason; `None` if answers are sent, nothing is to be done, or figures are missing. A server that is down
/// is shown as such.
fn reason(snapshot: &Snapshot) -> Option<String> {
    match (&snapshot.broker, &snapshot.fleet) {
        (Seen::Ok(depths), Seen::Ok(fleet)) => of_fleet(depths.requests, fleet, snapshot),
        _ => None,
    }
}

fn of_fleet(requests: QueueDepth, fleet: &Fleet, snapshot: &Snapshot) -> Option<String> {
    let QueueDepth::Ok { ready, consumers } = requests else {
        return None;
    };
    if fleet.workers == 0 {
        return (ready > 0 && consumers > 0).then(|| {
            "the queue's consumers have not announced themselves in this Redis and namespace"
                .to_owned()
        });
    }
    if let Some(seconds) = silence(&snapshot.workers) {
        return Some(format!(
            "no worker has announced itself for {seconds} s: they are frozen, or cannot write to this Redis"
        ));
    }
    // RabbitMQ reports an empty queue without consumers if its leader does not answer.
    if consumers == 0 {
        return Some(
            "the queue has no consumers, though workers run: they reconnect, or its leader does not answer \
             (rpcache doctor compares the nodes)"
                .to_owned(),
        );
    }
    if fleet.per_second.is_none_or(|rates| rates.answered > 0.0) {
        return None;
    }
    while_consumed(fleet, ready, snapshot.computing.first())
}

/// The least time for which a worker was silent, if all were.
fn silence(workers: &[Worker]) -> Option<u64> {
    let silences = workers.iter().map(|worker| worker.silent_s);
    silences.min().filter(|seconds| *seconds > 0)
}

/// Why consumers that are well answer nothing.
fn while_consumed(fleet: &Fleet, ready: u32, longest: Option<&Computing>) -> Option<String> {
    if fleet.under_way > 0 {
        let longest = longest.map_or(0, |computing| computing.ms / 1000);
        let all_busy = fleet.under_way >= fleet.slots;
        return all_busy.then(|| format!("every slot is computing, the longest for {longest} s"));
    }
    if fleet.held > 0 {
        return Some(format!(
            "{} requests are held, none is computed: they wait for Redis, or for other workers that compute \
             the same keys",
            thousands(fleet.held)
        ));
    }
    (ready > 0).then(|| {
        "the queue delivers nothing: its leader is being elected or is silent, RabbitMQ has raised an alarm, \
         or other programs consume it"
            .to_owned()
    })
}

#[cfg(test)]
mod tests {
    use super::super::snapshot::Rates;
    use super::super::view::tests::snapshot;
    use super::*;

    /// Two workers, which answer nothing.
    fn stopped() -> Snapshot {
        let mut stopped = snapshot(2);
        let fleet = fleet(&mut stopped);
        fleet.per_second = Some(Rates::default());
        (fleet.under_way, fleet.held) = (0, 0);
        stopped
    }

    fn fleet(snapshot: &mut Snapshot) -> &mut Fleet {
        match &mut snapshot.fleet {
            Seen::Ok(fleet) => fleet,
            other => panic!("{other:?}"),
        }
    }

    #[track_caller]
    fn is_because(ready: u32, consumers: u32, snapshot: &Snapshot, expected: Option<&str>) {
        let Seen::Ok(fleet) = &snapshot.fleet else {
            panic!("{snapshot:?}")
        };
        let reason = of_fleet(QueueDepth::Ok { ready, consumers }, fleet, snapshot);
        match (&reason, expected) {
            (Some(reason), Some(expected)) => assert!(reason.starts_with(expected), "{reason}"),
            _ => assert_eq!(reason.as_deref(), expected),
        }
    }

    #[test]
    fn reason_is_the_first_that_the_figures_show() {
        is_because(0, 2, &stopped(), None);
        is_because(5, 2, &stopped(), Some("the queue delivers nothing"));
        is_because(0, 0, &stopped(), Some("the queue has no consumers, though"));

        let mut answering = stopped();
        fleet(&mut answering).per_second = Some(Rates {
            answered: 0.5,
            ..Rates::default()
        });
        is_because(5, 2, &answering, None);
        fleet(&mut answering).per_second = None;
        is_because(5, 2, &answering, None);

        let mut computing = stopped();
        (fleet(&mut computing).under_way, fleet(&mut computing).held) = (15, 20);
        is_because(5, 2, &computing, None);
        fleet(&mut computing).under_way = 16;
        let longest_for = |seconds| format!("every slot is computing, the longest for {seconds} s");
        is_because(5, 2, &computing, Some(&longest_for(0)));
        computing.computing = computing.workers[0].computing.clone();
        is_because(5, 2, &computing, Some(&longest_for(3)));

        let mut waiting = stopped();
        fleet(&mut waiting).held = 1200;
        let held = "1,200 requests are held, none is computed";
        is_because(0, 2, &waiting, Some(held));

        let mut frozen = stopped();
        frozen.workers[0].silent_s = 9;
        is_because(5, 2, &frozen, Some("the queue delivers nothing"));
        frozen.workers[1].silent_s = 7;
        is_because(
            5,
            2,
            &frozen,
            Some("no worker has announced itself for 7 s"),
        );

        let mut others = stopped();
        fleet(&mut others).workers = 0;
        is_because(
            5,
            2,
            &others,
            Some("the queue's consumers have not announced"),
        );
    }

    #[test]
    fn nothing_is_said_while_a_server_is_unknown() {
        assert_eq!(reason(&stopped()), None);
    }
}
