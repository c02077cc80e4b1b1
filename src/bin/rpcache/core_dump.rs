//! Switches core dumps off: the environment and the memory of a process that connects to a server hold passwords.

use rustix::process::{Resource, Rlimit, setrlimit};
use tracing::debug;

/// Sets the limit for core dumps of this process to 0, as `LimitCORE=0` does in a systemd unit. Images and Kubernetes
/// manifests have no such setting. A program to which the kernel pipes dumps must respect the limit itself, as
/// systemd-coredump and apport do.
pub(crate) fn forbid() {
    let none = Rlimit {
        current: Some(0),
        maximum: Some(0),
    };
    if let Err(error) = setrlimit(Resource::Core, none) {
        // Any process may lower a limit, but a seccomp filter may forbid the call.
        debug!(%error, "core dumps cannot be switched off");
    }
}
