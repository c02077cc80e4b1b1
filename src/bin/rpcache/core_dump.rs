//! No core dumps: passwords are in the environment and the memory of whatever connects to a server.

use rustix::process::{Resource, Rlimit, setrlimit};
use tracing::debug;

/// From now on this process leaves no core dump, as by `LimitCORE=0` in a systemd unit: in an image or a
/// Kubernetes manifest there is no such setting. A program that the kernel pipes dumps to may disregard it;
/// systemd-coredump and apport do not.
pub(crate) fn forbid() {
    let none = Rlimit {
        current: Some(0),
        maximum: Some(0),
    };
    if let Err(error) = setrlimit(Resource::Core, none) {
        // A limit may always be lowered, but a seccomp filter may refuse.
        debug!(%error, "core dumps cannot be switched off");
    }
}
