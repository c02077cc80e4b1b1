//! Tests of the drawn screen: its text at several sizes, cut and escaped.

use std::time::Duration;

use ratatui::Terminal;
use ratatui::backend::TestBackend;
use rpcache::Error;

use super::super::snapshot::{
    Computing, Failed, Fleet, Hot, Latency, Rates, Redis, RedisRates, Seen, Silence, Slow, Worker,
};
use super::*;

/// Hostile text as the library escapes it, with letters of two columns and of none.
const HOSTILE: &str = "\\u{1b}[2J宽字符键宽字符键宽字符键é\u{1f469}\u{1f3fd}\\u{202e}";

fn rates() -> Rates {
    Rates {
        answered: 1234.5,
        computed: 1000.0,
        cache: 200.0,
        shared: 34.5,
        failed: 0.5,
        poison: 0.0,
    }
}

fn worker(n: usize) -> Worker {
    #[expect(clippy::cast_precision_loss, reason = "a few")]
    let answered = 1000.0 - n as f64;
    Worker {
        id: format!("{n:08x}"),
        host: "box".to_owned(),
        pid: 4711,
        version: "1".to_owned(),
        uptime_s: 3700,
        slots: 8,
        under_way: 3,
        held: 66,
        per_second: Some(Rates {
            answered,
            ..Rates::default()
        }),
        request_ms: Latency {
            p50: Some(1.0),
            p99: Some(20.0),
        },
        computing: vec![
            Computing {
                key: "fib:990000".to_owned(),
                ms: 3210,
                worker: format!("{n:08x}"),
            },
            Computing {
                key: "fib:99".to_owned(),
                ms: 10,
                worker: format!("{n:08x}"),
            },
        ],
        silent_s: 0,
    }
}

pub(in super::super) fn snapshot(workers: usize) -> Snapshot {
    Snapshot {
        queue: "rpc_queue".to_owned(),
        namespace: Some("prod".to_owned()),
        interval_ms: 2000,
        broker: Seen::Waiting,
        redis: Seen::Ok(Redis {
            version: "7.0.15".to_owned(),
            memory: 12_345_678,
            memory_limit: Some(268_435_456),
            clients: 45,
            per_second: Some(RedisRates {
                commands: 12_345.0,
                hits: 930.0,
                misses: 70.0,
                evicted: 0.0,
                expired: 0.0,
            }),
            hit_share: Some(0.93),
        }),
        fleet: Seen::Ok(Fleet {
            workers,
            other_workers: 0,
            slots: 16,
            under_way: 6,
            held: 132,
            per_second: Some(rates()),
            request_ms: Latency {
                p50: Some(1.2),
                p99: Some(20.0),
            },
            compute_ms: Latency::default(),
        }),
        standstill: None,
        workers: (0..workers).map(worker).collect(),
        computing: Vec::new(),
        hottest: vec![Hot {
            key: "fib:1000".to_owned(),
            per_second: 123.4,
            at_most: 125.0,
        }],
        slowest: vec![Slow {
            key: "fib:990000".to_owned(),
            ms: 3210.0,
            ago_s: 12,
            worker: "00000000".to_owned(),
        }],
        failed: vec![Failed {
            key: None,
            code: "bad-argument".to_owned(),
            times: 3,
            ago_s: 7,
            worker: "00000000".to_owned(),
        }],
        silence: Silence::default(),
    }
}

fn hostile() -> Snapshot {
    let mut snapshot = snapshot(3);
    let text = || HOSTILE.repeat(5);
    for worker in &mut snapshot.workers {
        (worker.id, worker.host, worker.version) = (text(), text(), text());
        worker.computing[0].key = text();
        (worker.pid, worker.slots) = (u32::MAX, u16::MAX);
        (worker.under_way, worker.held, worker.uptime_s) = (u64::MAX, u64::MAX, u64::MAX);
        worker.computing[0].ms = u64::MAX;
        worker.per_second = Some(Rates {
            answered: f64::MAX,
            failed: f64::MAX,
            ..rates()
        });
    }
    snapshot.queue = text();
    snapshot.hottest[0].key = text();
    snapshot.slowest[0].key = text();
    (snapshot.failed[0].key, snapshot.failed[0].code) = (Some(text()), text());
    snapshot.failed[0].ago_s = u64::MAX;
    snapshot.redis = Seen::Down {
        error: Error::Unreachable {
            server: text(),
            reason: text(),
        },
    };
    snapshot
}

/// The lines that a terminal of this size shows.
fn shown(view: View, snapshot: &Snapshot, columns: u16, lines: u16) -> Vec<String> {
    let mut terminal = Terminal::new(TestBackend::new(columns, lines)).unwrap();
    terminal
        .draw(|frame| view.draw(snapshot, frame.buffer_mut()))
        .unwrap();
    let buffer = terminal.backend().buffer();
    let text = text(buffer);
    text.lines().map(str::to_owned).collect()
}

#[test]
fn eighty_columns_show_the_essentials() {
    let lines = shown(View::default(), &snapshot(2), 80, 24);
    let expected = [
        "rpcache top  rpc_queue  namespace prod  every 2.0s",
        "queue     no answer yet",
        "redis     12.3 MB of 268.4 MB   hits 93.0 % of 1,000/s   12,345 commands/s",
        "workers   2, computing 6 of 16 at once, 132 requests held",
        "answered  1,235/s: computed 1,000, cache 200, shared 34.5, failed 0.5",
        "latency   requests p50 1.2ms p99 20.0ms   computing p50 - p99 -",
        "",
        "WORKER   HOST           PID  BUSY  HELD   REQ/S FAIL/S COMPUTING",
        "00000000 box           4711   3/8    66   1,000      0 fib:990000 3.2s +2",
        "00000001 box           4711   3/8    66     999      0 fib:990000 3.2s +2",
    ];
    assert_eq!(lines[..expected.len()], expected);
    let keys = lines
        .iter()
        .position(|line| line.contains("HOTTEST"))
        .unwrap();
    assert_eq!(
        lines[keys].split_whitespace().collect::<Vec<_>>().join(" "),
        "/S HOTTEST TOOK SLOWEST AGO FAILED"
    );
    let words = [
        "123",
        "fib:1000",
        "3.2s",
        "fib:990000",
        "7s -",
        "bad-argument",
    ];
    for word in words {
        assert!(
            lines[keys + 1].contains(word),
            "{word}: {}",
            lines[keys + 1]
        );
    }
    assert_eq!(lines.len(), 24);
    assert!(lines[23].starts_with("q quit"), "{}", lines[23]);
}

#[test]
fn wider_screens_show_more_of_each_worker() {
    let lines = shown(View::default(), &snapshot(2), 120, 40);
    let row = lines
        .iter()
        .find(|line| line.starts_with("00000000"))
        .unwrap();
    assert!(
        row.ends_with("1h 1m fib:990000 3.2s, fib:99 10.0ms +1"),
        "{row}"
    );
}

#[test]
fn hundreds_of_workers_are_cut_off_and_scrolled_through() {
    let many = snapshot(300);
    let mut view = View::default();
    let rows = |view: View| {
        let lines = shown(view, &many, 80, 24);
        let rows = lines.into_iter().filter(|line| line.starts_with("000"));
        rows.collect::<Vec<_>>()
    };
    let first = rows(view);
    assert!(first[0].starts_with("00000000"), "{first:?}");
    let all = shown(view, &many, 80, 24).join("\n");
    let more = format!("and {} more", 300 - first.len());
    assert!(all.contains(&more), "{more}: {all}");
    view.skipped = 5;
    assert!(rows(view)[0].starts_with("00000005"));
    view.skipped = usize::MAX;
    let last = rows(view);
    assert!(last.last().unwrap().starts_with("0000012b"), "{last:?}");
    let whole = view.text(&many, 120);
    let workers = whole.lines().filter(|line| line.starts_with("000"));
    assert_eq!(workers.count(), 300, "text has room for all");
}

#[test]
fn workers_are_sorted_as_chosen() {
    let mut snapshot = snapshot(3);
    snapshot.workers[1].computing[0].ms = 1_000_000;
    snapshot.workers[2].per_second = Some(rates());
    snapshot.workers[0].host = "a".to_owned();
    let mut view = View::default();
    let mut firsts = Vec::new();
    for _ in 0..4 {
        let lines = shown(view, &snapshot, 80, 24);
        let first = lines.iter().find(|line| line.starts_with("000")).unwrap();
        firsts.push(first[..8].to_owned());
        view.sort = view.sort.next();
    }
    assert_eq!(firsts, ["00000002", "00000001", "00000002", "00000000"]);
    assert_eq!(view.sort, Sort::default());
}

#[test]
fn no_size_and_no_text_breaks_it() {
    let (usual, hostile) = (snapshot(30), hostile());
    for columns in [1, 7, 8, 20, 79, 80, 100, 200] {
        for lines in [1, 7, 8, 9, 23, 24, 60] {
            for snapshot in [&usual, &hostile] {
                let all = shown(View::default(), snapshot, columns, lines).join("\n");
                assert!(
                    !all.contains(|c: char| c.is_control() && c != '\n'),
                    "{all:?}"
                );
            }
        }
    }
    let lines = shown(View::default(), &hostile, 80, 24);
    assert!(
        lines
            .iter()
            .all(|line| Span::raw(line.as_str()).width() <= 80)
    );
    assert!(lines.iter().any(|line| line.contains("DOWN")));
}

#[test]
fn texts_are_cut_by_columns() {
    assert_eq!(fitted("fib:30", 6), "fib:30");
    assert_eq!(fitted("fib:300", 6), "fib:..");
    assert_eq!(fitted("宽宽宽", 6), "宽宽宽");
    assert_eq!(fitted("宽宽宽", 5), "宽..");
    assert_eq!([fitted("abc", 0), fitted("abc", 1)], ["", "."]);
}

#[test]
fn workers_are_unknown_without_redis() {
    let mut snapshot = hostile();
    let Seen::Down { error } = snapshot.redis.clone() else {
        panic!("it is down")
    };
    snapshot.fleet = Seen::Down { error };
    let lines = shown(View::default(), &snapshot, 80, 24);
    assert_eq!(
        lines[3],
        "workers   unknown: workers announce themselves in Redis"
    );
}

#[test]
fn colours_are_used_only_if_wanted() {
    let snapshot = hostile();
    for coloured in [false, true] {
        let view = View {
            coloured,
            ..View::default()
        };
        let mut buffer = Buffer::empty(Rect::new(0, 0, 80, 24));
        view.draw(&snapshot, &mut buffer);
        let has_some = buffer.content.iter().any(|cell| cell.fg != Color::Reset);
        assert_eq!(has_some, coloured);
    }
}

#[test]
fn a_server_that_is_late_is_marked() {
    let mut snapshot = snapshot(1);
    snapshot.silence.redis = Duration::from_secs(7);
    let lines = shown(View::default(), &snapshot, 80, 24);
    assert!(lines[2].contains("no answer for 7 s"), "{}", lines[2]);
    let paused = View {
        paused: true,
        ..View::default()
    };
    let lines = shown(paused, &snapshot, 80, 24);
    assert!(lines[0].contains("PAUSED") && !lines[2].contains("no answer"));
}

#[test]
fn standstill_is_shown_above_the_workers() {
    let mut stopped = snapshot(2);
    stopped.standstill = Some("every slot is computing, the longest for 3 s".to_owned());
    let lines = shown(View::default(), &stopped, 80, 24);
    assert_eq!(
        lines[6],
        "stopped   every slot is computing, the longest for 3 s"
    );
    assert!(lines[7].starts_with("WORKER"), "{}", lines[7]);
}
