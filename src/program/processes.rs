//! The processes that programs have started: started in a group of their own, ended with it, reaped, none left behind.
//!
//! A process that leaves its group, as a daemon does, is found once its parent has ended: [`adopt_orphans`] makes this
//! process the parent of such orphans. Which computation an orphan belongs to is not known, so it is ended when every
//! computation that can have started it has ended.
//!
//! Ids are safe to use here: those of children of this process are not given to others before they are reaped, and each
//! child is reaped in one place only.

use std::collections::HashSet;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, ExitStatus};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError, RwLock};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{
    Pid, PidfdFlags, Signal, WaitOptions, getpid, kill_process, kill_process_group, pidfd_open,
    set_child_subreaper, waitpid,
};
use tracing::warn;

use super::proc::{Stat, all_processes, children, children_of_main_thread};

/// How long processes may take to end after SIGTERM.
const GRACE: Duration = Duration::from_secs(2);

/// How long processes that have got SIGKILL are waited for. Only the kernel can hold them up longer.
const MAX_DYING: Duration = Duration::from_secs(10);

static ADOPTING: AtomicBool = AtomicBool::new(false);

/// Held while a process is started and its id is noted, so that it is not taken for an orphan; exclusively while orphans are
/// ended. `true` once no more may be started.
static STARTING: RwLock<bool> = RwLock::new(false);

/// The processes that computations have started and not reaped yet. Each leads a group.
static LEADERS: Mutex<Vec<Pid>> = Mutex::new(Vec::new());

/// Makes orphans among the processes of programs children of this process, so that they are ended and reaped with the
/// computation that has left them.
///
/// Only for a process all of whose children are started by a [`Program`](super::Program): any other child that its main
/// thread starts is taken for an orphan, and killed.
///
/// # Errors
///
/// When the kernel refuses it, or `/proc` cannot be read.
pub fn adopt_orphans() -> io::Result<()> {
    children_of_main_thread()?;
    set_child_subreaper(Some(getpid()))?;
    ADOPTING.store(true, Ordering::Relaxed);
    Ok(())
}

/// Ends all children of this process by SIGKILL, and their descendants after [`adopt_orphans`], and reaps them. No program is
/// started after that. For a process that is about to end; blocks for 10 s at most.
pub fn end_all() {
    let mut ended = write(&STARTING);
    *ended = true;
    let mut killed = HashSet::new();
    let deadline = Instant::now() + MAX_DYING;
    loop {
        let Ok(children) = children() else { return };
        if children.is_empty() {
            return;
        }
        for child in &children {
            kill(child);
            reap(child.pid);
        }
        if Instant::now() > deadline {
            return;
        }
        killed = pause(&children, &killed);
    }
}

/// A started process, the leader of its group. Dropping it ends the group by SIGKILL and reaps it.
#[derive(Debug)]
pub(super) struct Leader {
    child: Child,
    pid: Pid,
    /// Readable once the process has ended.
    ended: OwnedFd,
    is_reaped: bool,
}

impl Leader {
    pub(super) fn start(command: &mut Command) -> io::Result<Self> {
        let ended = STARTING.read().unwrap_or_else(PoisonError::into_inner);
        if *ended {
            return Err(io::Error::other("the worker is ending"));
        }
        let mut child = command.process_group(0).spawn()?;
        let opened = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
        let opened = opened.ok_or(io::ErrorKind::InvalidData.into());
        let opened = opened.and_then(|pid| Ok((pid, pidfd_open(pid, PidfdFlags::empty())?)));
        match opened {
            Ok((pid, ended)) => {
                lock(&LEADERS).push(pid);
                Ok(Self {
                    child,
                    pid,
                    ended,
                    is_reaped: false,
                })
            }
            Err(error) => {
                let _ = child.kill();
                let _ = child.wait();
                Err(error)
            }
        }
    }

    pub(super) fn child(&mut self) -> &mut Child {
        &mut self.child
    }

    /// Becomes readable when the process has ended.
    pub(super) fn ended(&self) -> BorrowedFd<'_> {
        self.ended.as_fd()
    }

    /// Asks the whole group to end, and waits until it has, for 2 s at most.
    pub(super) fn terminate(&self) {
        let _ = kill_process_group(self.pid, Signal::TERM);
        // A stopped process handles no other signal.
        let _ = kill_process_group(self.pid, Signal::CONT);
        let deadline = Instant::now() + GRACE;
        let mut pause = Duration::from_millis(1);
        while Instant::now() < deadline && self.group_lives() {
            thread::sleep(pause);
            pause = (pause * 2).min(Duration::from_millis(50));
        }
    }

    /// Whether a process of the group has not ended. Its leader is not reaped yet, so the id is the group's.
    fn group_lives(&self) -> bool {
        // Without /proc: until the time is up.
        let Ok(all) = all_processes() else {
            return true;
        };
        all.into_iter()
            .filter_map(Stat::of)
            .any(|stat| stat.group == Some(self.pid) && !stat.is_zombie)
    }

    /// Ends what is left of the group by SIGKILL. The kernel does it for all at once, so that none of them can fork
    /// any more.
    pub(super) fn kill_group(&self) {
        let _ = kill_process_group(self.pid, Signal::KILL);
    }

    /// Reaps the process after [`kill_group`](Self::kill_group).
    pub(super) fn reap(&mut self) -> io::Result<ExitStatus> {
        let status = self.child.wait();
        self.is_reaped = true;
        let mut leaders = lock(&LEADERS);
        if let Some(at) = leaders.iter().position(|leader| *leader == self.pid) {
            leaders.swap_remove(at);
        }
        status
    }
}

impl Drop for Leader {
    fn drop(&mut self) {
        if !self.is_reaped {
            self.kill_group();
            let _ = self.reap();
        }
    }
}

/// Reaps the orphans that have ended, of this computation or another. Cheap if there are none.
pub(super) fn reap_orphans() {
    handle_orphans(|stat, _| stat.is_zombie);
}

/// Ends and reaps the orphans that no running computation can have started.
pub(super) fn end_orphans() {
    handle_orphans(|stat, leaders| {
        stat.is_zombie || !leaders.iter().any(|leader| leader.may_have_started(stat))
    });
}

/// Kills and reaps those orphans that `is_due` names, and those that become orphans by that, for 10 s at most.
fn handle_orphans(is_due: impl Fn(&Stat, &[Stat]) -> bool) {
    if !ADOPTING.load(Ordering::Relaxed) || orphans().is_empty() {
        return;
    }
    let deadline = Instant::now() + MAX_DYING;
    let mut killed = HashSet::new();
    loop {
        let starting = write(&STARTING);
        let leaders: Vec<Stat> = lock(&LEADERS)
            .iter()
            .copied()
            .filter_map(Stat::of)
            .collect();
        let orphans = orphans();
        let stats = orphans.iter().copied().filter_map(Stat::of);
        let due: Vec<Stat> = stats.filter(|stat| is_due(stat, &leaders)).collect();
        for orphan in &due {
            kill(orphan);
            reap(orphan.pid);
        }
        drop(starting);
        if due.is_empty() {
            return;
        }
        if Instant::now() > deadline {
            warn!(
                processes = due.len(),
                "processes of a program do not end after SIGKILL; going on without them"
            );
            return;
        }
        killed = pause(&due, &killed);
    }
}

/// Waits a little if all of these have been killed before. New ones are killed without a pause: they may be forking as fast
/// as they can.
fn pause(now: &[Stat], before: &HashSet<Pid>) -> HashSet<Pid> {
    let now: HashSet<Pid> = now.iter().map(|stat| stat.pid).collect();
    if now.is_subset(before) {
        thread::sleep(Duration::from_millis(1));
    } else {
        thread::yield_now();
    }
    now
}

/// Kills a descendant, with its group if all of that are descendants, too.
fn kill(stat: &Stat) {
    if stat.is_zombie {
        return;
    }
    let own = Stat::of(getpid());
    if let Some(group) = own.and_then(|own| stat.own_group(&own)) {
        let _ = kill_process_group(group, Signal::KILL);
    }
    let _ = kill_process(stat.pid, Signal::KILL);
}

fn reap(child: Pid) {
    // One that is still ending is reaped in the next round.
    let _ = waitpid(Some(child), WaitOptions::NOHANG);
}

/// Children of this process that no computation has started.
fn orphans() -> Vec<Pid> {
    let children = children_of_main_thread().unwrap_or_default();
    let leaders = lock(&LEADERS);
    children
        .into_iter()
        .filter(|child| !leaders.contains(child))
        .collect()
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn write<T>(lock: &RwLock<T>) -> std::sync::RwLockWriteGuard<'_, T> {
    lock.write().unwrap_or_else(PoisonError::into_inner)
}
