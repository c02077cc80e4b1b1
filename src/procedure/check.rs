//! Checks an answer before it is used, wherever it came from: the store, or a worker.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use super::Procedure;

/// A larger answer is checked on a blocking thread: the check is linear in the size and would hold up
/// other tasks on an async one.
const MAX_CHECKED_INLINE: usize = 64 * 1024;

/// Reads and verifies an answer from the store or from a worker; gives the bytes back if it is refused.
/// A panic of the procedure refuses it.
pub(crate) async fn check<P: Procedure>(
    procedure: &Arc<P>,
    argument: &Arc<P::Argument>,
    bytes: Vec<u8>,
) -> Result<P::Answer, Vec<u8>> {
    if bytes.len() <= MAX_CHECKED_INLINE {
        return check_now(&**procedure, argument, bytes);
    }
    let (procedure, argument) = (Arc::clone(procedure), Arc::clone(argument));
    tokio::task::spawn_blocking(move || check_now(&*procedure, &argument, bytes))
        .await
        // The runtime is shutting down: the call ends with it.
        .unwrap_or_else(|_| Err(Vec::new()))
}

fn check_now<P: Procedure>(
    procedure: &P,
    argument: &P::Argument,
    bytes: Vec<u8>,
) -> Result<P::Answer, Vec<u8>> {
    let verified = || {
        let answer = procedure.parse_answer(&bytes)?;
        procedure.verify(argument, &answer).then_some(answer)
    };
    match catch_unwind(AssertUnwindSafe(verified)) {
        Ok(Some(answer)) => Ok(answer),
        Ok(None) | Err(_) => Err(bytes),
    }
}
