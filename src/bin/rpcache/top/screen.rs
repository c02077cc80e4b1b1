//! The live screen: redraws after every poll and key press, and restores the terminal on every way out.

use std::io;
use std::time::{Duration, Instant};

use crossterm::event::{Event, EventStream, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use futures_util::StreamExt as _;
use ratatui::DefaultTerminal;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;

use super::history::History;
use super::snapshot::Snapshot;
use super::sources::{Polled, Sources, poll_redis, watch};
use super::view::View;
use crate::output::{Failure, is_coloured};

/// Time between two redraws without news, which update ages.
const REDRAW_EVERY: Duration = Duration::from_secs(1);

/// Number of workers that a page key scrolls by.
const PAGE: usize = 10;

/// Limit of results that wait for the screen: one of each server.
const MAX_RESULTS: usize = 2;

pub(super) async fn run(
    sources: Sources,
    history: History,
    interval: Duration,
) -> Result<(), Failure> {
    let mut signals = Signals::listen()?;
    let (sender, results) = mpsc::channel(MAX_RESULTS);
    let Sources { cache, mut queues } = sources;
    let ended = {
        let poll = async || Polled::Redis(Box::new(poll_redis(&cache).await));
        let redis = watch(interval, sender.clone(), poll);
        let broker = watch(interval, sender, async || {
            Polled::Queues(queues.look().await)
        });
        let mut screen = Screen::open(history)?;
        tokio::select! {
            ended = screen.show(results) => ended,
            signal = signals.next() => Err(signal),
            // Never ends before the screen, which holds the receiver.
            _ = async { tokio::join!(redis, broker) } => Ok(()),
        }
        // Dropping the screen restores the terminal.
    };
    queues.leave().await;
    ended
}

/// The terminal in raw mode. Dropping it restores the terminal.
struct Screen {
    terminal: DefaultTerminal,
    history: History,
    view: View,
    /// The snapshot that is shown while paused.
    paused: Option<Snapshot>,
}

impl Screen {
    fn open(history: History) -> Result<Self, Failure> {
        // This also installs a hook that restores the terminal before a panic is printed.
        let terminal = ratatui::try_init().map_err(|error| {
            ratatui::restore();
            Failure::new(
                1,
                format!("cannot use this terminal: {error}; --once works without one"),
            )
        })?;
        let view = View {
            coloured: is_coloured(),
            ..View::default()
        };
        Ok(Self {
            terminal,
            history,
            view,
            paused: None,
        })
    }

    async fn show(&mut self, mut results: mpsc::Receiver<Polled>) -> Result<(), Failure> {
        let mut keys = EventStream::new();
        let mut has_keys = true;
        loop {
            self.draw()?;
            tokio::select! {
                Some(polled) = results.recv() => self.history.add(polled),
                key = keys.next(), if has_keys => match key {
                    Some(Ok(Event::Key(key))) if key.kind != KeyEventKind::Release => {
                        if self.press(key)? {
                            return Ok(());
                        }
                    }
                    // Such as a new size: the loop redraws.
                    Some(Ok(_)) => {}
                    // No more key presses, as when stdin is not a terminal. Signals still end the command.
                    Some(Err(_)) | None => has_keys = false,
                },
                () = tokio::time::sleep(REDRAW_EVERY) => {}
            }
        }
    }

    /// Handles a key press. Returns whether it ends the command.
    fn press(&mut self, key: KeyEvent) -> Result<bool, Failure> {
        let view = &mut self.view;
        let workers = self.history.workers_shown();
        match key.code {
            KeyCode::Char('c') if key.modifiers.contains(KeyModifiers::CONTROL) => {
                return Err(Failure::interrupted());
            }
            KeyCode::Char('q' | 'Q') | KeyCode::Esc => return Ok(true),
            KeyCode::Char('s') => view.sort = view.sort.next(),
            KeyCode::Char('p' | ' ') => {
                view.paused = !view.paused;
                self.paused = view.paused.then(|| self.history.snapshot(Instant::now()));
            }
            KeyCode::Down | KeyCode::Char('j') => view.skipped += 1,
            KeyCode::Up | KeyCode::Char('k') => view.skipped = view.skipped.saturating_sub(1),
            KeyCode::PageDown => view.skipped += PAGE,
            KeyCode::PageUp => view.skipped = view.skipped.saturating_sub(PAGE),
            KeyCode::Home => view.skipped = 0,
            KeyCode::End => view.skipped = workers,
            _ => {}
        }
        view.skipped = view.skipped.min(workers.saturating_sub(1));
        Ok(false)
    }

    fn draw(&mut self) -> io::Result<()> {
        let now;
        let snapshot = if let Some(paused) = &self.paused {
            paused
        } else {
            now = self.history.snapshot(Instant::now());
            &now
        };
        let view = self.view;
        self.terminal
            .draw(|frame| view.draw(snapshot, frame.buffer_mut()))?;
        Ok(())
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        // These fail if the terminal is closed; then nothing has to be restored.
        let _ = self.terminal.show_cursor();
        let _ = ratatui::try_restore();
    }
}

/// The signals that end the command.
struct Signals {
    interrupt: Signal,
    terminate: Signal,
    hangup: Signal,
}

impl Signals {
    fn listen() -> Result<Self, Failure> {
        let listen = |kind| {
            let signal = signal(kind);
            signal.map_err(|error| Failure::new(1, format!("cannot listen for signals: {error}")))
        };
        Ok(Self {
            interrupt: listen(SignalKind::interrupt())?,
            terminate: listen(SignalKind::terminate())?,
            hangup: listen(SignalKind::hangup())?,
        })
    }

    /// Waits for a signal. The exit codes are those of a shell: 128 and the number of the signal.
    async fn next(&mut self) -> Failure {
        tokio::select! {
            _ = self.interrupt.recv() => Failure::interrupted(),
            _ = self.terminate.recv() => Failure::new(143, ""),
            _ = self.hangup.recv() => Failure::new(129, ""),
        }
    }
}
