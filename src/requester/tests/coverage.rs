//! What must be true of every result, and how often each kind of event was tested.

use super::*;

/// Counts the tested events in all worlds.
#[derive(Debug, Default)]
pub(super) struct Coverage {
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

impl Coverage {
    /// Asserts what must be true of every result, and counts it.
    pub(super) fn check(&mut self, record: &Record, result: &Result<Reply, Error>, closed: bool) {
        let (now, deadline) = (Instant::now(), record.deadline.at());
        assert!(now <= deadline + TICK, "too late");
        let count = |outcome: &Outcome| record.outcomes.iter().filter(|o| *o == outcome).count();
        let (last, before) = match record.outcomes.split_last() {
            Some((last, before)) => (Some(last), before),
            None => (None, &[][..]),
        };
        for outcome in before {
            let retriable = match outcome {
                Outcome::Reply(reply) => reply.is_expired(),
                Outcome::Failed(_) => false,
                Outcome::Lost | Outcome::Unroutable | Outcome::Nacked => true,
            };
            assert!(retriable, "published again after {outcome:?}");
        }
        match last {
            Some(Outcome::Reply(reply)) if !reply.is_expired() => {
                assert_eq!(result.as_ref(), Ok(reply), "not the first reply");
                self.answered += 1;
                self.after_a_loss += u32::from(count(&Outcome::Lost) > 0);
                self.after_a_nack += u32::from(count(&Outcome::Nacked) > 0);
                self.after_unroutable += u32::from(count(&Outcome::Unroutable) > 0);
                self.after_expiry += u32::from(count(&Outcome::Reply(expiry())) > 0);
                self.after_a_copy += u32::from(record.copies > 0);
            }
            Some(Outcome::Failed(error)) => assert_eq!(result.as_ref(), Err(error)),
            Some(Outcome::Nacked) if count(&Outcome::Nacked) == 2 => {
                assert!(
                    matches!(result, Err(Error::Overloaded { .. })),
                    "{result:?}"
                );
                self.nacked_twice += 1;
            }
            Some(Outcome::Reply(reply)) if result.as_ref() == Ok(reply) => {
                let expired = count(&Outcome::Reply(expiry()));
                assert!(
                    expired > record.outdated,
                    "an outdated copy's expiry was returned"
                );
            }
            // Never published, because there is no connection.
            None if record.expires.is_none() && *result == Err(unreachable()) => {
                self.unreachable += 1;
            }
            Some(_) | None if closed => {
                assert!(
                    matches!(result, Err(Error::Unreachable { .. })),
                    "{result:?}"
                );
            }
            Some(_) | None => {
                assert!(now >= deadline, "too early: {result:?} after {last:?}");
                let late = matches!(result, Err(Error::Deadline { .. }));
                assert!(late || *result == Err(unreachable()), "{result:?}");
                self.too_late += 1;
            }
        }
    }

    /// Asserts that every kind of event was tested often.
    pub(super) fn is_broad(&self) {
        let counts = [
            self.answered,
            self.after_a_loss,
            self.after_a_nack,
            self.after_unroutable,
            self.after_a_copy,
            self.nacked_twice,
            self.unreachable,
            self.too_late,
            // Rarer: needs an extended deadline.
            self.after_expiry * 10,
        ];
        assert!(counts.iter().all(|count| *count > 1000), "{self:?}");
    }
}
