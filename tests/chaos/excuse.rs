//! Whether the faults of a run explain that a call failed which had much time.

use crate::fault::{Fault, Scope, Topology};

/// Which errors of patient calls the active faults explain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Excuse {
    /// Faults overlap: several together may cause any error.
    AnyFault,
    /// One fault at a time, which ends before the call's deadline: only what refuses calls at once.
    RefusedAtOnce,
    /// Several servers, of which one at a time is away: a patient call has more time than they need to elect, and so
    /// must be answered, even if Redis fails at the same time. But the requests that a stopped worker holds are not
    /// delivered to another worker while they elect.
    StoppedWorker,
}

impl Excuse {
    pub(crate) fn of(topology: Topology, apart: bool) -> Self {
        match topology {
            Topology::Single if apart => Self::RefusedAtOnce,
            Topology::Single => Self::AnyFault,
            Topology::Cluster | Topology::Sentinel => Self::StoppedWorker,
        }
    }

    /// Whether a patient call may end in this error under these faults.
    pub(crate) fn covers(self, faults: &[Fault], code: &str) -> bool {
        match self {
            Self::AnyFault => !faults.is_empty(),
            Self::RefusedAtOnce => code == "overloaded" && faults.contains(&Fault::BrokerAlarm),
            Self::StoppedWorker => {
                let mut faults_of_nodes = faults.iter().map(|fault| fault.about().scope);
                faults.contains(&Fault::WorkerStop)
                    && faults_of_nodes.any(|scope| scope == Scope::BrokerNode)
            }
        }
    }
}
