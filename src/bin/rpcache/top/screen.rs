//! The screen: drawn anew with all that comes, and the terminal given back as it was on every way out.

use std::io;
use std::time::{Duration, Instant};

use crossterm::event::{Event, EventStream, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use futures_util::StreamExt as _;
use ratatui::DefaultTerminal;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;

use super::history::History;
use super::snapshot::Snapshot;
use super::sources::{News, Sources, look_at_redis, watch};
use super::view::View;
use crate::output::{Failure, is_coloured};

/// How old things are is told anew so often.
const AGES: Duration = Duration::from_secs(1);

/// Workers that are scrolled past by a page.
const PAGE: usize = 10;

/// Looks that wait for the screen: one of each server.
const WAITING_NEWS: usize = 2;

pub(super) async fn run(
    sources: Sources,
    history: History,
    interval: Duration,
) -> Result<(), Failure> {
    let mut signals = Signals::listen()?;
    let (tell, news) = mpsc::channel(WAITING_NEWS);
    let Sources { cache, mut queues } = sources;
    let ended = {
        let look = async || News::Redis(Box::new(look_at_redis(&cache).await));
        let redis = watch(interval, tell.clone(), look);
        let broker = watch(interval, tell, async || News::Queues(queues.look().await));
        let mut screen = Screen::open(history)?;
        tokio::select! {
            ended = screen.show(news) => ended,
            signal = signals.next() => Err(signal),
            // Not before the screen: it listens.
            _ = async { tokio::join!(redis, broker) } => Ok(()),
        }
        // The terminal is given back here.
    };
    queues.leave().await;
    ended
}

/// The terminal, until it is dropped.
struct Screen {
    terminal: DefaultTerminal,
    history: History,
    view: View,
    /// What is shown while it is paused.
    paused: Option<Snapshot>,
}

impl Screen {
    fn open(history: History) -> Result<Self, Failure> {
        // With a hook that gives it back before a panic is told.
        let terminal = ratatui::try_init().map_err(|error| {
            ratatui::restore();
            Failure::new(
                1,
                format!("cannot use this terminal: {error}; --once needs none"),
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

    async fn show(&mut self, mut news: mpsc::Receiver<News>) -> Result<(), Failure> {
        let mut keys = EventStream::new();
        let mut are_there_keys = true;
        loop {
            self.draw()?;
            tokio::select! {
                Some(news) = news.recv() => self.history.news(news),
                key = keys.next(), if are_there_keys => match key {
                    Some(Ok(Event::Key(key))) if key.kind != KeyEventKind::Release => {
                        if self.press(key)? {
                            return Ok(());
                        }
                    }
                    // A new size: drawn anew in any case.
                    Some(Ok(_)) => {}
                    // Nobody can press one, as when stdin is no terminal; signals still end it.
                    Some(Err(_)) | None => are_there_keys = false,
                },
                () = tokio::time::sleep(AGES) => {}
            }
        }
    }

    /// Whether that was the key to end it.
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
        // If it is gone there is nothing to give back.
        let _ = self.terminal.show_cursor();
        let _ = ratatui::try_restore();
    }
}

/// What ends it from outside.
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

    /// Codes as a shell has them for whoever is ended by a signal.
    async fn next(&mut self) -> Failure {
        tokio::select! {
            _ = self.interrupt.recv() => Failure::interrupted(),
            _ = self.terminate.recv() => Failure::new(143, ""),
            _ = self.hangup.recv() => Failure::new(129, ""),
        }
    }
}
