//! Ends everything that the tests start when the test process ends, in whatever way it ends.
//!
//! Statics are not dropped at exit and nothing at all is dropped on SIGKILL, so guards alone would
//! leave servers behind. Every child therefore joins one process group, and a watchdog outside it
//! reads a pipe whose other end only the test process holds: when that end closes, the group is
//! killed and the run's folder removed.

use super::wait;
use std::net::{Ipv4Addr, TcpStream};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

struct Run {
    folder: PathBuf,
    group: i32,
    /// Kept for their pipes: both processes read until these are closed.
    _leader_and_watchdog: [Child; 2],
}

fn run() -> &'static Run {
    static RUN: OnceLock<Run> = OnceLock::new();
    RUN.get_or_init(|| {
        let folder = tempfile::Builder::new()
            .prefix("rpcache-tests-")
            .tempdir()
            .expect("a folder for this run")
            .keep();
        // The group's first member does nothing but give it a number.
        let leader = until_pipe_closes(Command::new("cat"));
        let group = i32::try_from(leader.id()).expect("process ids are positive");
        let mut watchdog = Command::new("sh");
        watchdog
            .arg("-c")
            .arg(r#"cat; kill -KILL -"$1"; rm -rf "$2" || { sleep 1; rm -rf "$2"; }"#)
            .arg("watchdog")
            .arg(group.to_string())
            .arg(&folder);
        Run {
            folder,
            group,
            _leader_and_watchdog: [leader, until_pipe_closes(watchdog)],
        }
    })
}

fn until_pipe_closes(mut command: Command) -> Child {
    command
        .process_group(0)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("cat and sh exist")
}

/// A new, empty folder that is removed when the test process ends.
pub(crate) fn folder(purpose: &str) -> PathBuf {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let folder = run().folder.join(format!("{purpose}-{number}"));
    std::fs::create_dir(&folder).expect("the run's folder is ours");
    folder
}

/// The process group that every child must be started in.
pub(crate) fn group() -> i32 {
    run().group
}

/// Starts a server in the group, with its output in `folder`, and waits until it listens on `port`. An
/// error if it ends instead, for example because another process has taken the port.
pub(crate) fn start_server(
    mut command: Command,
    folder: &Path,
    port: u16,
) -> Result<Child, String> {
    let name = command.get_program().display().to_string();
    let log = std::fs::File::create(folder.join("output")).expect("the run's folder is ours");
    let mut server = command
        .process_group(group())
        .current_dir(folder)
        .stdin(Stdio::null())
        .stdout(log.try_clone().expect("a second handle"))
        .stderr(log)
        .spawn()
        .map_err(|error| format!("{name}: {error}; scripts/test installs it"))?;
    wait::block_until(&format!("{name} listens"), || match server.try_wait() {
        Ok(None) => Ok(TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_ok()),
        ended => Err(format!("{name} ended ({ended:?}):\n{}", output_of(folder))),
    })?;
    Ok(server)
}

/// The output of the server of this folder.
pub(crate) fn output_of(folder: &Path) -> String {
    std::fs::read(folder.join("output")).map_or_else(
        |error| error.to_string(),
        |bytes| String::from_utf8_lossy(&bytes).into_owned(),
    )
}
