//! Warns if name resolution may crash this program.
//!
//! glibc resolves names by the modules in /etc/nsswitch.conf. The modules for files and DNS are built in; others are
//! loaded from the machine, even by a static program. If such a module belongs to another version of glibc, the
//! program ends by a signal. That cannot be caught, so the warning comes before.

use std::fs;

use tracing::error;

/// Whether this program is linked statically with glibc.
const IS_STATIC_GLIBC: bool = cfg!(all(target_env = "gnu", target_feature = "crt-static"));

/// Services of glibc that need no module.
const BUILT_IN: [&str; 2] = ["files", "dns"];

/// Logs an error if resolving a name may end this program.
pub(crate) fn warn_of_modules() {
    if !IS_STATIC_GLIBC {
        return;
    }
    // Without the file, glibc uses its built-in services.
    let switch = fs::read_to_string("/etc/nsswitch.conf").unwrap_or_default();
    if let Some(module) = loaded(&switch) {
        error!(
            "this is the static rpcache, and /etc/nsswitch.conf resolves names by the module {module:?}, which \
             may crash it. Install the dynamic rpcache, or name servers by IP address"
        );
    }
}

/// The first module that glibc must load to resolve a host.
fn loaded(switch: &str) -> Option<&str> {
    let line = |line| str::strip_prefix(str::trim_start(line), "hosts:");
    let hosts = switch.lines().rev().find_map(line)?;
    let services = hosts.split('#').next()?.split_whitespace();
    // Actions such as [NOTFOUND=return] may contain spaces.
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
    fn built_in_services_need_no_module() {
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
