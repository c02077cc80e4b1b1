//! How names of servers are found, where that is dangerous.
//!
//! glibc finds them by modules that /etc/nsswitch.conf names. Files and DNS are built in; whatever else
//! is loaded from the machine, also by a static program, which ends by a signal if the module is of
//! another glibc than its own. Nothing can be done about it by then, but to have said so.

use std::fs;

use tracing::error;

/// Whether this is a static program with a glibc in it.
const IS_STATIC_GLIBC: bool = cfg!(all(target_env = "gnu", target_feature = "crt-static"));

/// What is no module of the machine's.
const BUILT_IN: [&str; 2] = ["files", "dns"];

/// Says so, if looking up a name may end this program.
pub(crate) fn warn_of_modules() {
    if !IS_STATIC_GLIBC {
        return;
    }
    // Without the file there are the built-in ones.
    let switch = fs::read_to_string("/etc/nsswitch.conf").unwrap_or_default();
    if let Some(module) = loaded(&switch) {
        error!(
            "this is the static rpcache, and /etc/nsswitch.conf has names looked up by {module:?}: that \
             may end it by a signal. Install the dynamic one, or give servers by address"
        );
    }
}

/// The first module that would have to be loaded to look up a host.
fn loaded(switch: &str) -> Option<&str> {
    let line = |line| str::strip_prefix(str::trim_start(line), "hosts:");
    let hosts = switch.lines().rev().find_map(line)?;
    let services = hosts.split('#').next()?.split_whitespace();
    // [NOTFOUND=return], also with spaces in it, is what to do then.
    let mut in_brackets = false;
    services.into_iter().find(|service| {
        let is_action = in_brackets || service.starts_with('[');
        in_brackets = is_action && !service.ends_with(']');
        !is_action && !BUILT_IN.contains(service)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_built_in_needs_no_module() {
        for (switch, expected) in [
            ("", None),
            ("passwd: files systemd\n", None),
            ("hosts: files dns\n", None),
            ("hosts:files dns # mdns\n", None),
            ("hosts: files [ NOTFOUND = continue ] dns\n", None),
            (
                "hosts: files mdns4_minimal [NOTFOUND=return] dns\n",
                Some("mdns4_minimal"),
            ),
            (
                "# hosts: files\nhosts:\tfiles [!UNAVAIL=return] resolve",
                Some("resolve"),
            ),
        ] {
            assert_eq!(loaded(switch), expected, "{switch}");
        }
    }
}
