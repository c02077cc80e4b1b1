//! `rpcache top`: snapshots of real servers and workers as JSON and text, and the screen in a terminal.

use serde_json::{Value, json};

use crate::support::amqp::QUEUE;
use crate::support::ports::ClosedPort;
use crate::support::process::{Process, Program, signal};
use crate::support::{ONE_AT_A_TIME, Setup, VERY_SLOW, lifetime, wait};

const SECRET: &str = "s3cret";

/// Arguments for one quick snapshot.
const ONCE: [&str; 4] = ["top", "--json", "--interval", "200ms"];

async fn snapshot(program: Program) -> Value {
    let finished = program.run().await;
    assert_eq!(
        (finished.code, finished.stderr.as_str()),
        (Some(0), ""),
        "{finished:#?}"
    );
    assert_eq!(finished.stdout.lines().count(), 1);
    serde_json::from_str(&finished.stdout).expect("JSON")
}

fn closed(closed: &ClosedPort) -> [String; 2] {
    ["amqp", "redis"].map(|scheme| format!("{scheme}://user:{SECRET}@127.0.0.1:{}", closed.port()))
}

#[tokio::test]
async fn busy_worker_is_shown_with_its_computations() {
    let setup = Setup::new().await;
    let worker = setup.worker(&ONE_AT_A_TIME).await;
    let mut caller = setup.caller().await;
    for n in ["30", "30", "30", "31", "100001"] {
        caller.ask(n).await;
    }
    caller.ask("1000000000000").await.fails_as("too-large");
    caller.ask("no number").await.fails_as("bad-argument");
    // One after another, for longer than the interval of announcements.
    let _call = setup.start_call(&[&format!("{VERY_SLOW}..{}", VERY_SLOW + 20)]);
    let slow = &VERY_SLOW.to_string()[..4];
    let mut seen = Value::Null;
    wait::wait_until("the worker has announced that it computes", async || {
        seen = snapshot(setup.rpcache(&ONCE)).await;
        seen["computing"] != json!([])
    })
    .await;
    let starts = |value: &Value, text: &str| value.as_str().unwrap().starts_with(text);
    assert!(starts(&seen["computing"][0]["key"], &format!("fib:{slow}")));
    let requests = &seen["broker"]["requests"];
    assert_eq!(
        (&requests["state"], &requests["ready"]),
        (&json!("ok"), &json!(0))
    );
    assert_eq!(requests["consumers"], 1);
    assert_eq!(seen["broker"]["dead_letters"]["state"], "missing");
    let fleet = &seen["fleet"];
    assert_eq!((&fleet["workers"], &fleet["slots"]), (&json!(1), &json!(1)));
    assert_eq!(fleet["under_way"], 1);
    assert!(fleet["held"].as_u64() >= Some(1), "{fleet}");
    assert!(fleet["per_second"]["answered"].is_f64(), "{fleet}");
    assert_eq!(seen["hottest"][0]["key"], "fib:30");
    let [at_least, at_most] =
        ["per_second", "at_most"].map(|name| seen["hottest"][0][name].as_f64());
    assert!(at_least > Some(0.0) && at_least <= at_most, "{seen}");
    let slowest = seen["slowest"].as_array().unwrap();
    let known = slowest.iter().find(|slow| slow["key"] == "fib:100001");
    assert!(known.unwrap()["ms"].as_f64() > Some(0.0));
    let failed = |code: &str| {
        let all = seen["failed"].as_array().unwrap();
        all.iter().find(|failed| failed["code"] == code).cloned()
    };
    assert_eq!(failed("too-large").unwrap()["key"], "fib:1000000000000");
    assert_eq!(failed("bad-argument").unwrap()["key"], Value::Null);
    assert_eq!(seen["redis"]["state"], "ok");
    assert!(seen["redis"]["per_second"]["commands"].as_f64() > Some(0.0));
    assert_eq!(seen["workers"][0]["id"], seen["computing"][0]["worker"]);

    let text = setup.rpcache(&["top"]).run().await;
    assert_eq!((text.code, text.stderr.as_str()), (Some(0), ""));
    for expected in [
        "rpcache top  rpc_queue",
        "0 waiting, 1 consumer ",
        "workers   1, computing ",
        &format!("fib:{slow}"),
        "HOTTEST",
        "too-large",
    ] {
        assert!(
            text.stdout.contains(expected),
            "{expected}: {}",
            text.stdout
        );
    }
    assert!(!text.stdout.contains('\u{1b}'), "no terminal: {text:#?}");
    drop(worker);
}

/// Requests that no worker takes are counted as waiting.
#[tokio::test]
async fn queue_depth_is_that_of_the_queue_asked_for() {
    let setup = Setup::new().await;
    let nothing = snapshot(setup.rpcache(&ONCE)).await;
    assert_eq!(nothing["broker"]["requests"], json!({"state": "missing"}));
    assert_eq!(nothing["fleet"]["workers"], 0);
    assert_eq!(nothing["fleet"]["per_second"]["answered"], 0.0);
    let raw = setup.raw_worker().await;
    drop(raw);
    wait::wait_until("the queue has no consumer", async || {
        setup.consumers(QUEUE).await == 0
    })
    .await;
    let caller = setup.caller().await;
    for _ in 0..3 {
        caller.send(b"30", caller.properties()).await;
    }
    let mut requests = Value::Null;
    wait::wait_until("three requests wait", async || {
        let mut seen = snapshot(setup.rpcache(&ONCE)).await;
        requests = seen["broker"]["requests"].take();
        requests["ready"] == 3
    })
    .await;
    assert_eq!(requests["consumers"], 0);
    let other = [&ONCE[..], &["--queue", "another"]].concat();
    let other = snapshot(setup.rpcache(&other)).await;
    assert_eq!(
        (&other["queue"], &other["broker"]["requests"]["state"]),
        (&json!("another"), &json!("missing"))
    );
}

#[tokio::test]
async fn server_that_is_down_is_reported_in_its_part() {
    let setup = Setup::new().await;
    let closed_port = ClosedPort::reserve();
    let [amqp, redis] = closed(&closed_port);
    let seen = snapshot(setup.rpcache(&ONCE).env("AMQP_URL", &amqp)).await;
    assert_eq!(seen["broker"]["state"], "down");
    assert_eq!(seen["redis"]["state"], "ok");
    let error = seen["broker"]["error"].as_str().unwrap();
    assert!(error.contains("nothing is listening") && !error.contains(SECRET));
    let seen = snapshot(setup.rpcache(&ONCE).env("REDIS_URL", &redis)).await;
    assert_eq!(seen["broker"]["state"], "ok");
    for part in ["redis", "fleet"] {
        assert_eq!(seen[part]["state"], "down", "{seen}");
        assert!(!seen[part]["error"].as_str().unwrap().contains(SECRET));
    }
    assert_eq!(seen["workers"], json!([]));

    let neither = setup.rpcache(&["top"]).env("AMQP_URL", &amqp);
    let neither = neither.env("REDIS_URL", &redis).run().await;
    neither.refuses(3, "scripts/services up");
    assert!(!neither.stderr.contains(SECRET), "{neither:#?}");
}

/// A login with the right to read keys only.
#[tokio::test]
async fn missing_rights_are_reported_in_their_part() {
    let setup = Setup::new().await;
    let rules = ["on", ">pw", "~fib:*", "+ping"];
    let looker = [&["ACL", "SETUSER", "looker"], &rules[..]].concat();
    setup.redis.run::<()>(&looker).await;
    let looker = setup.redis.url_with("looker:pw@");
    let seen = snapshot(setup.rpcache(&ONCE).env("REDIS_URL", &looker)).await;
    assert_eq!(seen["redis"], json!({"state": "not-permitted"}));
    assert_eq!(seen["fleet"], json!({"state": "not-permitted"}));
    let text = setup
        .rpcache(&["top"])
        .env("REDIS_URL", &looker)
        .run()
        .await;
    assert_eq!(text.code, Some(0));
    assert!(text.stdout.contains("redis     not permitted"), "{text:#?}");
}

/// Another program writes under the keys of workers' announcements.
#[tokio::test]
async fn hostile_announcements_are_shown_escaped_or_not_at_all() {
    let setup = Setup::new().await;
    let evil = "\u{1b}]0;owned\u{7}\u{1b}[2J\u{202e}";
    let announcement = json!({
        "id": evil, "host": evil, "pid": 1, "version": evil, "procedure": evil, "queue": QUEUE,
        "concurrency": 2, "started": u64::MAX, "announced": 0,
        "counts": {
            "answered": u64::MAX, "computed": 0, "cache": 0, "shared": 0, "failed": u64::MAX,
            "poison": 0, "filled": 0, "compute_millis": 0
        },
        "computing": vec![json!({"key": evil, "millis": u64::MAX}); 1000],
        "hottest": [{"key": evil, "per_minute": u64::MAX, "at_most": 0}],
        "failures": [{"key": evil, "code": evil, "times": u64::MAX, "ago_millis": u64::MAX}],
        "request_times": vec![u64::MAX; 1000],
    });
    setup
        .redis
        .set("rpcache:worker:0", &announcement.to_string())
        .await;
    setup.redis.set("rpcache:worker:1", "\u{1b}no JSON").await;
    let huge = format!("{{\"id\": \"{}\"}}", "x".repeat(1 << 20));
    setup.redis.set("rpcache:worker:2", &huge).await;
    let text = setup.rpcache(&["top", "--interval", "200ms"]).run().await;
    assert_eq!(text.code, Some(0), "{text:#?}");
    let is_fit = |c: char| c == '\n' || (!c.is_control() && c != '\u{202e}');
    assert!(text.stdout.chars().all(is_fit), "{text:#?}");
    // Announcements that are left out are logged now and then.
    text.has_one_clear_line("ignoring it key=\"rpcache:worker:1\"");
    assert!(text.stdout.contains("\\u{1b}]0;owned"), "{text:#?}");
    assert!(text.stdout.contains("workers   1, "), "{text:#?}");
}

#[tokio::test]
async fn invalid_intervals_are_refused() {
    let setup = Setup::new().await;
    for interval in ["1ms", "2h", "x"] {
        let refused = setup.rpcache(&["top", "--interval", interval]).run().await;
        refused.refuses(2, "--interval");
    }
}

/// `top` in a terminal of 24 lines; its process id is in a file. Prints the terminal's settings at the end.
struct Terminal {
    process: Process,
    pid: std::path::PathBuf,
}

impl Terminal {
    fn start(setup: &Setup, environment: &[(&str, &str)]) -> Self {
        let pid = lifetime::folder("top").join("pid");
        // `script` gives its command a terminal.
        let line = r#"exec script -qec '
            stty rows 24 cols 80
            sh -c "echo \$\$ >\"$PID\"; exec \"$RPCACHE\" top --interval 200ms"
            echo "ended with $?"; stty -a' /dev/null"#;
        let mut program = setup.knowing(Program::shell(line)).env("TERM", "xterm");
        for (name, value) in environment {
            program = program.env(name, value);
        }
        let program = program.env("PID", &pid.to_string_lossy()).fed();
        Self {
            process: program.start(),
            pid,
        }
    }

    async fn shows(&self, text: &str) {
        wait::wait_until(&format!("it shows {text:?}"), async || {
            self.process.stdout().contains(text)
        })
        .await;
    }

    fn signal(&self, name: &str) {
        let pid = std::fs::read_to_string(&self.pid).expect("it was started");
        signal(name, pid.trim().parse().expect("a number"));
    }

    /// Fails unless it ends with this code and restores the terminal.
    async fn ends_with(self, code: u8) {
        let finished = self.process.finish().await;
        let shown = &finished.stdout;
        assert!(
            shown.contains(&format!("ended with {code}")),
            "{finished:#?}"
        );
        let (during, after) = shown
            .rsplit_once("\u{1b}[?1049l")
            .expect("it leaves the screen");
        assert!(during.contains("\u{1b}[?1049h") && during.contains("\u{1b}[?25h"));
        for mode in ["icanon", "echo", "isig", "opost"] {
            let is_on = after.split_whitespace().any(|word| word == mode);
            assert!(is_on, "{mode}: {after}");
        }
    }
}

#[tokio::test]
async fn terminal_shows_the_fleet_and_ends_with_q() {
    let setup = Setup::new().await;
    let _worker = setup.worker(&[]).await;
    let mut terminal = Terminal::start(&setup, &[]);
    for word in [
        "rpc_queue",
        "consumer",
        "WORKER",
        "HOTTEST",
        "\u{1b}[38;5;6",
    ] {
        terminal.shows(word).await;
    }
    terminal.process.feed("p").await;
    terminal.shows("PAUSED").await;
    terminal.process.feed("q").await;
    terminal.ends_with(0).await;
}

#[tokio::test]
async fn signals_and_ctrl_c_restore_the_terminal() {
    let setup = Setup::new().await;
    for (name, code) in [("TERM", 143), ("INT", 130), ("HUP", 129)] {
        let terminal = Terminal::start(&setup, &[]);
        terminal.shows("HOTTEST").await;
        terminal.signal(name);
        terminal.ends_with(code).await;
    }
    let mut terminal = Terminal::start(&setup, &[]);
    terminal.shows("HOTTEST").await;
    terminal.process.feed("\u{3}").await;
    terminal.ends_with(130).await;
}

/// Servers go down and come back; colours are not used with `NO_COLOR`.
#[tokio::test]
async fn servers_come_and_go_while_it_runs() {
    let setup = Setup::new().await;
    let closed_port = ClosedPort::reserve();
    let [amqp, redis] = closed(&closed_port);
    let environment = [
        ("AMQP_URL", amqp.as_str()),
        ("REDIS_URL", redis.as_str()),
        ("NO_COLOR", "1"),
    ];
    let mut terminal = Terminal::start(&setup, &environment);
    terminal.shows("DOWN").await;
    terminal.shows("HOTTEST").await;
    terminal.process.feed("q").await;
    let shown = terminal.process.stdout();
    assert!(!shown.contains("\u{1b}[38;5"), "{shown:?}");
    assert!(!shown.contains(SECRET), "{shown:?}");
    terminal.ends_with(0).await;

    let _worker = setup.worker(&[]).await;
    let mut terminal = Terminal::start(&setup, &[]);
    terminal.shows("COMPUTING").await;
    setup.redis.freeze();
    terminal.shows("DOWN").await;
    setup.redis.thaw();
    // Only changes are drawn, and the workers' part was blank.
    wait::wait_until("the worker is shown again", async || {
        let shown = terminal.process.stdout();
        shown
            .split_once("DOWN")
            .is_some_and(|(_, after)| after.contains("COMPUTING"))
    })
    .await;
    terminal.process.feed("q").await;
    terminal.ends_with(0).await;
}
