//! `rpcache doctor`: a healthy set-up, and broken ones, each told by name and with its remedy.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use lapin::types::{AMQPValue, FieldTable};
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use crate::support::amqp::{Declared, QUEUE};
use crate::support::ports::{ClosedPort, SilentPeer};
use crate::support::process::{Process, Program};
use crate::support::redis::Redis;
use crate::support::wait::wait_until;
use crate::support::{ONE_AT_A_TIME, SLOW, Setup};

const SECRET: &str = "s3cret";
const DEAD: &str = "rpc_queue.dead";

/// Bounded memory, a dead-letter queue, and a worker that reads both queues.
async fn healthy() -> (Setup, Process) {
    let setup = prepared().await;
    let worker = serving(&setup, setup.rpcache(&["worker"])).await;
    (setup, worker)
}

/// The same without a worker.
async fn prepared() -> Setup {
    let setup = Setup::new().await;
    bound(&setup.redis).await;
    for queue in [QUEUE, DEAD] {
        let declared = setup.broker.declare(queue, Declared::DurableQuorum);
        declared.await.unwrap();
    }
    setup
}

async fn bound(redis: &Redis) {
    let settings = [("maxmemory", "100mb"), ("maxmemory-policy", "allkeys-lfu")];
    for (name, value) in settings {
        redis.run::<()>(&["CONFIG", "SET", name, value]).await;
    }
}

async fn serving(setup: &Setup, worker: Program) -> Process {
    let worker = setup.serving(worker).await;
    wait_until("it reads dead letters", async || {
        setup.consumers(DEAD).await == 1
    })
    .await;
    worker
}

/// What is not well, and what is skipped for it.
struct Told {
    troubles: String,
    /// The checks, by what is in their way.
    skipped: BTreeMap<String, Vec<String>>,
}

/// Runs it, for a program and for a person: both are told the same, and the person in 80 columns.
async fn examine(setup: &Setup, doctor: impl Fn(Program) -> Program, code: i32) -> Told {
    let run = async |arguments: &[&str]| {
        let finished = doctor(setup.rpcache(arguments)).run().await;
        let ended = (finished.code, finished.stderr.as_str());
        assert_eq!(ended, (Some(code), ""), "{finished:#?}");
        assert!(!finished.stdout.contains(SECRET), "{finished:#?}");
        finished.stdout
    };
    let told = told(&scrubbed(setup, &run(&["doctor", "--json"]).await));
    let text = run(&["doctor"]).await;
    for line in text.lines() {
        assert!(
            line.chars().count() <= 80 && !line.contains(char::is_control),
            "{text}"
        );
    }
    for (word, state) in [("WARNING  ", "warning "), ("FAILURE  ", "failure ")] {
        let [lines, expected] = [&text, &told.troubles];
        let lines = lines.lines().filter(|line| line.starts_with(word)).count();
        let expected = expected
            .lines()
            .filter(|line| line.starts_with(state))
            .count();
        assert_eq!(lines, expected, "{text}");
    }
    told
}

/// Without what is another in each run.
fn scrubbed(setup: &Setup, text: &str) -> String {
    let (amqp, redis) = (setup.vhost.url(), setup.redis.url());
    let (_, vhost) = amqp.rsplit_once('/').unwrap();
    let port = |url: &str| {
        format!(
            ":{}",
            url.rsplit(':').next().unwrap().split('/').next().unwrap()
        )
    };
    let mut text = text
        .replace(&port(&amqp), ":AMQP")
        .replace(&port(&redis), ":REDIS")
        .replace(&format!("/{vhost}"), "/VHOST")
        .replace(&format!("'{vhost}'"), "'VHOST'")
        .replace(&format!(" {vhost}"), " VHOST");
    for end in [" ms\n", " ms\""] {
        let parts: Vec<_> = text.split(end).map(str::to_owned).collect();
        let last = parts.len() - 1;
        let cut = |(at, part): (usize, &String)| {
            let number = part.trim_end_matches(|c: char| c.is_ascii_digit() || c == '.');
            if at < last {
                format!("{number}N{end}")
            } else {
                part.clone()
            }
        };
        text = parts.iter().enumerate().map(cut).collect();
    }
    text
}

fn told(stdout: &str) -> Told {
    let (mut troubles, mut skipped) = (String::new(), BTreeMap::<_, Vec<_>>::new());
    let mut checks = 0;
    for line in stdout.lines() {
        checks += 1;
        let line: Value = serde_json::from_str(line).expect("JSON");
        let [check, state, message] =
            ["check", "state", "message"].map(|field| line[field].as_str().unwrap().to_owned());
        match state.as_str() {
            "ok" => assert_eq!(line["remedy"], Value::Null),
            "skipped" => {
                let why = message.strip_prefix("because of ").unwrap_or(&message);
                skipped.entry(why.to_owned()).or_default().push(check);
            }
            state => {
                writeln!(troubles, "{state} {check}: {message}").unwrap();
                for step in line["remedy"].as_str().expect("a remedy").lines() {
                    writeln!(troubles, "-> {step}").unwrap();
                }
            }
        }
    }
    assert_eq!(checks, 22);
    Told { troubles, skipped }
}

impl Told {
    #[track_caller]
    fn is(&self, troubles: &str, skipped: &[(&str, &[&str])]) {
        assert_eq!(self.troubles, troubles);
        let ours = self.skipped.iter();
        let ours: Vec<_> = ours
            .map(|(why, checks)| {
                (
                    why.as_str(),
                    checks.iter().map(String::as_str).collect::<Vec<_>>(),
                )
            })
            .collect();
        let expected: Vec<_> = skipped
            .iter()
            .map(|(why, checks)| (*why, checks.to_vec()))
            .collect();
        assert_eq!(ours, expected);
    }
}

const AFTER_AMQP_PORT: [&str; 10] = [
    "amqp-encryption",
    "amqp-protocol",
    "amqp-login",
    "amqp-vhost",
    "amqp-rights",
    "queue",
    "consumers",
    "dead-letters",
    "call",
    "hit",
];
const AFTER_AMQP_LOGIN: [&str; 7] = [
    "amqp-vhost",
    "amqp-rights",
    "queue",
    "consumers",
    "dead-letters",
    "call",
    "hit",
];
const AFTER_REDIS_PORT: [&str; 7] = [
    "redis-encryption",
    "redis-protocol",
    "redis-login",
    "redis-version",
    "redis-rights",
    "redis-memory",
    "hit",
];

#[tokio::test]
async fn healthy_set_up_is_told_as_such() {
    let (setup, _worker) = healthy().await;
    let finished = setup.rpcache(&["doctor"]).run().await;
    assert_eq!((finished.code, finished.stderr.as_str()), (Some(0), ""));
    let mut text = scrubbed(&setup, &finished.stdout);
    for name in ["RabbitMQ ", "redis-version     "] {
        let at = text.find(name).unwrap() + name.len();
        let end = at + text[at..].find('\n').unwrap();
        text.replace_range(at..end, "VERSION");
    }
    let expected = "\
ok       amqp-url          amqp://guest@127.0.0.1:AMQP/VHOST
ok       amqp-name         127.0.0.1 is an address
ok       amqp-port         127.0.0.1:AMQP is open
ok       amqp-encryption   not needed: it is this machine
ok       amqp-protocol     RabbitMQ VERSION
ok       amqp-login        as guest
ok       amqp-vhost        VHOST
ok       amqp-rights       requests can be published
ok       queue             quorum, durable
ok       consumers         rpc_queue: 1 consumer, 0 waiting
ok       dead-letters      rpc_queue.dead: 1 consumer, 0 waiting
ok       redis-url         redis://127.0.0.1:REDIS/0
ok       redis-name        127.0.0.1 is an address
ok       redis-port        127.0.0.1:REDIS is open
ok       redis-encryption  not needed: it is this machine
ok       redis-protocol    Redis
ok       redis-login       as default
ok       redis-version     VERSION
ok       redis-rights      all that a client and a worker need
ok       redis-memory      bounded to 104 MB, allkeys-lfu
ok       call              a worker answered in N ms
ok       hit               stored by the call, then found in N ms
22 ok, 0 warnings, 0 failures, 0 skipped
";
    assert_eq!(text, expected);
    // Past the caches nothing is stored, and the other call stores its answer as any does.
    assert_eq!(setup.redis.keys().await, ["fib:30"]);
    assert_eq!(setup.redis.get("fib:30").await.as_deref(), Some("832040"));
    let queues = [QUEUE, DEAD].map(|queue| setup.broker.look_at(queue));
    for queue in queues {
        assert_eq!(queue.await, Some((0, 1)));
    }
}

#[tokio::test]
async fn least_rights_are_enough() {
    let (setup, _worker) = healthy().await;
    let least = ["least", "on", ">least", "~fib:*", "+get", "+mget", "+set"];
    setup
        .redis
        .run::<()>(&[&["ACL", "SETUSER"], &least[..]].concat())
        .await;
    let by_least = |doctor: Program| {
        doctor
            .env("AMQP_URL", &setup.vhost.url_of("client"))
            .env("REDIS_URL", &setup.redis.url_with("least:least@"))
    };
    examine(&setup, by_least, 0).await.is(
        "warning redis-rights: enough for clients; workers lack ~{fib:* +eval +unlink +incrby \
         +pexpire ~rpcache:worker:*\n\
         -> redis-cli ACL SETUSER least ~{fib:* +eval +unlink +incrby +pexpire ~rpcache:worker:*\n\
         -> nothing, if no worker has this login\n",
        &[("unknown, this login is not told: INFO", &["redis-memory"])],
    );
}

#[tokio::test]
async fn all_keys_that_are_tried_may_be_stored_already() {
    let (setup, _worker) = healthy().await;
    setup.call(&["0..30"]).await;
    examine(&setup, |doctor| doctor, 0).await.is("", &[]);
}

#[tokio::test]
async fn addresses_that_cannot_be_read_are_told_and_the_rest_is_looked_at() {
    let (setup, _worker) = healthy().await;
    let url = format!("amqps://user:{SECRET}@localhost");
    let mut after_url = vec!["amqp-name", "amqp-port"];
    after_url.extend(AFTER_AMQP_PORT);
    let told = examine(&setup, |doctor| doctor.env("AMQP_URL", &url), 3).await;
    told.is(
        "failure amqp-url: amqps:// (TLS) is not supported yet; expected something like \
         amqp://user:password@host:5672/vhost\n\
         -> use amqp:// in --amqp-url (AMQP_URL), within a private network or through a tunnel \
         such as ssh -L\n",
        &[("amqp-url", &after_url)],
    );
    let url = format!("redis://:{SECRET}@localhost/x");
    let told = examine(&setup, |doctor| doctor.env("REDIS_URL", &url), 3).await;
    let first = "failure redis-url: the part after the host is the database, a number; expected \
                 something like redis://user:password@host:6379/0\n\
                 -> correct --redis-url (REDIS_URL)\n";
    assert_eq!(told.troubles, first);
}

#[tokio::test]
async fn name_without_an_address_is_told() {
    let (setup, _worker) = healthy().await;
    let url = format!("amqp://user:{SECRET}@nobody.invalid");
    let told = examine(&setup, |doctor| doctor.env("AMQP_URL", &url), 3).await;
    let (trouble, remedy) = told.troubles.split_once('\n').unwrap();
    // What the system says of it differs.
    assert!(
        trouble.starts_with("failure amqp-name: nobody.invalid: no address ("),
        "{trouble}"
    );
    let expected =
        "-> correct the host in --amqp-url (AMQP_URL), or this machine's name resolution\n";
    assert_eq!(remedy, expected);
    let skipped: Vec<_> = ["amqp-port"].into_iter().chain(AFTER_AMQP_PORT).collect();
    assert_eq!(told.skipped["amqp-name"], skipped);
    // Another node is enough.
    let both = format!("{},amqp://nobody.invalid", setup.vhost.url());
    let told = examine(&setup, |doctor| doctor.env("AMQP_URL", &both), 0).await;
    assert!(
        told.troubles
            .starts_with("warning amqp-name: nobody.invalid: no address")
    );
}

#[tokio::test]
async fn ports_where_nothing_listens_are_told() {
    let (setup, _worker) = healthy().await;
    let closed = ClosedPort::reserve();
    let url = format!("amqp://user:{SECRET}@127.0.0.1:{}", closed.port());
    let told = examine(&setup, |doctor| doctor.env("AMQP_URL", &url), 3).await;
    let expected = |check: &str, option: &str| {
        format!(
            "failure {check}: 127.0.0.1:{}: nothing is listening there\n\
             -> is it running? `scripts/services up` or `docker compose up -d` starts the servers\n\
             -> or correct the port in {option}\n",
            closed.port()
        )
    };
    told.is(
        &expected("amqp-port", "--amqp-url (AMQP_URL)"),
        &[("amqp-port", &AFTER_AMQP_PORT)],
    );
    let url = format!("redis://user:{SECRET}@127.0.0.1:{}", closed.port());
    let told = examine(&setup, |doctor| doctor.env("REDIS_URL", &url), 3).await;
    let expected = expected("redis-port", "--redis-url (REDIS_URL)");
    told.is(&expected, &[("redis-port", &AFTER_REDIS_PORT)]);
}

#[tokio::test]
async fn strangers_are_told() {
    let (setup, _worker) = healthy().await;
    let swapped = |doctor: Program| {
        doctor
            .env(
                "AMQP_URL",
                &setup.redis.url().replace("redis://", "amqp://"),
            )
            .env(
                "REDIS_URL",
                &format!("redis://127.0.0.1:{}", setup.vhost.port()),
            )
    };
    let told = examine(&setup, swapped, 3).await;
    // For Redis, AMQP's hello is a line without an end.
    assert!(
        told.troubles.starts_with(
            "failure amqp-protocol: 127.0.0.1:REDIS: it takes connections, and does not answer as \
             RabbitMQ does\n\
             -> correct host and port in --amqp-url (AMQP_URL); RabbitMQ's own port is 5672\n\
             failure redis-protocol: 127.0.0.1:AMQP: what answers there is not Redis: \"AMQP"
        ),
        "{}",
        told.troubles
    );
    assert!(told.troubles.ends_with(
        "-> correct host and port in --redis-url (REDIS_URL); Redis' own port is 6379\n"
    ));
    assert_eq!(
        told.skipped["amqp-protocol"],
        [&["amqp-login"], &AFTER_AMQP_LOGIN[..]].concat()
    );
    let web = web_server().await;
    let url = format!("amqp://127.0.0.1:{web}");
    let told = examine(&setup, |doctor| doctor.env("AMQP_URL", &url), 3).await;
    let expected = format!(
        "failure amqp-protocol: 127.0.0.1:{web}: what answers there is not RabbitMQ: \"HTTP/1.1 400 \
         Bad Request\\r\\n\\r\\n\"\n"
    );
    assert!(told.troubles.starts_with(&expected), "{}", told.troubles);
}

/// A port where every line is answered as a web server answers nonsense.
async fn web_server() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((mut peer, _)) = listener.accept().await {
            let mut said = Vec::new();
            while !said.ends_with(b"\r\n\r\n")
                && peer.read_buf(&mut said).await.is_ok_and(|n| n > 0)
            {}
            let _ = peer.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await;
        }
    });
    port
}

#[tokio::test]
async fn refused_logins_and_vhosts_are_told() {
    let (setup, _worker) = healthy().await;
    let url = setup.vhost.url_with("guest", SECRET);
    let told = examine(&setup, |doctor| doctor.env("AMQP_URL", &url), 3).await;
    told.is(
        "failure amqp-login: amqp://guest@127.0.0.1:AMQP/VHOST refuses: ACCESS_REFUSED - Login was \
         refused using authentication mechanism PLAIN. For details see the broker logfile.\n\
         -> correct user and password in --amqp-url (AMQP_URL), or on the broker:\n\
         -> rabbitmqctl change_password USER PASSWORD\n\
         -> (guest may log in from the broker's own machine only)\n",
        &[("amqp-login", &AFTER_AMQP_LOGIN)],
    );
    let url = format!(
        "amqp://guest:guest@127.0.0.1:{}/nowhere",
        setup.vhost.port()
    );
    let told = examine(&setup, |doctor| doctor.env("AMQP_URL", &url), 3).await;
    told.is(
        "failure amqp-vhost: amqp://guest@127.0.0.1:AMQP/nowhere refuses: NOT_ALLOWED - vhost \
         nowhere not found\n\
         -> correct the vhost in --amqp-url (AMQP_URL) (the vhost / is written %2f), or create it:\n\
         -> rabbitmqctl add_vhost VHOST\n\
         -> rabbitmqctl set_permissions -p VHOST USER '.*' '.*' '.*'\n",
        &[("amqp-vhost", &AFTER_AMQP_LOGIN[1..])],
    );
    setup
        .redis
        .run::<()>(&["CONFIG", "SET", "requirepass", "right"])
        .await;
    let url = setup.redis.url_with(&format!(":{SECRET}@"));
    let told = examine(&setup, |doctor| doctor.env("REDIS_URL", &url), 3).await;
    assert!(
        told.troubles.starts_with("failure redis-login: "),
        "{}",
        told.troubles
    );
    assert!(
        told.troubles
            .ends_with("-> correct user and password in --redis-url (REDIS_URL)\n")
    );
    let none = examine(&setup, |doctor| doctor, 3).await;
    assert!(
        none.troubles.contains("failure redis-login: "),
        "{}",
        none.troubles
    );
    assert_eq!(
        none.skipped["redis-login"],
        ["redis-version", "redis-rights", "redis-memory", "hit"]
    );
}

#[tokio::test]
async fn missing_right_to_publish_is_told() {
    let (setup, _worker) = healthy().await;
    let url = setup.vhost.url_of("mute");
    let told = examine(&setup, |doctor| doctor.env("AMQP_URL", &url), 3).await;
    told.is(
        "failure amqp-rights: requests cannot be published: ACCESS_REFUSED - access to exchange \
         'amq.default' in vhost 'VHOST' refused for user 'mute'\n\
         -> rabbitmqctl set_permissions -p VHOST mute \\\n\
         ->  '^amq\\.gen-.*$' '^amq\\.default$' '^amq\\.gen-.*$'\n",
        &[("amqp-rights", &["call", "hit"])],
    );
}

#[tokio::test]
async fn missing_queue_is_told_and_not_created() {
    let setup = Setup::new().await;
    bound(&setup.redis).await;
    let told = examine(&setup, |doctor| doctor, 3).await;
    told.is(
        "failure queue: there is no queue rpc_queue\n\
         -> start a worker, which creates it: rpcache worker\n\
         warning dead-letters: there is no queue rpc_queue.dead\n\
         -> declare rpc_queue.dead, and set a policy that sends there what rpc_queue gives up, as \
         docker/rabbitmq/definitions.json does; then workers answer for that\n",
        &[("queue", &["consumers", "call", "hit"])],
    );
    for queue in [QUEUE, DEAD] {
        assert_eq!(setup.broker.look_at(queue).await, None);
    }
}

/// What it declares to see how a queue is declared: where there is none, the broker refuses that.
#[tokio::test]
async fn declaration_that_compares_creates_nothing() {
    let setup = Setup::new().await;
    let mut arguments = FieldTable::default();
    for (name, value) in [("x-queue-type", "quorum"), ("x-max-age", "none")] {
        arguments.insert(name.into(), AMQPValue::LongString(value.into()));
    }
    let durable = lapin::options::QueueDeclareOptions::durable();
    let channel = &setup.broker.channel;
    let declared = channel.queue_declare(QUEUE.into(), durable, arguments);
    let error = declared.await.unwrap_err().to_string();
    assert!(error.contains("invalid arg 'x-max-age'"), "{error}");
    assert_eq!(setup.broker.look_at(QUEUE).await, None);
}

#[tokio::test]
async fn queue_without_a_consumer_is_told() {
    let setup = prepared().await;
    let told = examine(&setup, |doctor| doctor, 3).await;
    told.is(
        "failure consumers: rpc_queue: 0 consumers, 0 waiting\n\
         -> start a worker: rpcache worker\n\
         warning dead-letters: rpc_queue.dead: 0 consumers, 0 waiting\n\
         -> restart the workers: they look for rpc_queue.dead when they connect, and need the right \
         to read it\n",
        &[("consumers", &["call", "hit"])],
    );
}

#[tokio::test]
async fn backlog_is_told() {
    let (setup, worker) = healthy().await;
    worker.terminate().await;
    let caller = setup.caller().await;
    let options = [&["worker", "--prefetch", "1"], &ONE_AT_A_TIME[..]].concat();
    let _worker = serving(&setup, setup.rpcache(&options)).await;
    for n in SLOW - 1010..SLOW {
        caller
            .send(n.to_string().as_bytes(), caller.properties())
            .await;
    }
    let doctor = setup
        .rpcache(&["doctor", "--json", "--timeout", "100ms"])
        .run()
        .await;
    assert_eq!(doctor.code, Some(3), "{doctor:#?}");
    let troubles = told(&scrubbed(&setup, &doctor.stdout)).troubles;
    let (backlog, call) = troubles.split_once("failure call: ").unwrap();
    assert!(
        backlog.starts_with("warning consumers: rpc_queue: 1 consumer, 100"),
        "{backlog}"
    );
    assert!(
        backlog.ends_with("-> start more workers: rpcache worker\n"),
        "{backlog}"
    );
    let expected =
        "no answer within N ms\n-> see the log of the workers; --timeout gives them longer\n";
    assert_eq!(call, expected);
}

#[tokio::test]
async fn declarations_are_told() {
    let setup = prepared().await;
    let durable = lapin::options::QueueDeclareOptions::durable();
    let channel = &setup.broker.channel;
    setup.broker.delete(QUEUE).await;
    let declared = channel.queue_declare(QUEUE.into(), durable, FieldTable::default());
    declared.await.unwrap();
    let worker = serving(&setup, setup.rpcache(&["worker"])).await;
    let doctor = setup.rpcache(&["doctor"]).run().await;
    assert!(
        doctor
            .stdout
            .contains("ok       queue             classic, durable\n"),
        "{doctor:#?}"
    );
    worker.terminate().await;
    setup.broker.delete(QUEUE).await;
    setup
        .broker
        .declare(QUEUE, Declared::ClassicTransient)
        .await
        .unwrap();
    let _worker = serving(&setup, setup.rpcache(&["worker"])).await;
    examine(&setup, |doctor| doctor, 0).await.is(
        "warning queue: classic, not durable: it ends with the broker, requests included\n\
         -> if no tutorial program needs it like this, stop the workers, and\n\
         -> rabbitmqctl delete_queue rpc_queue --if-empty (-p VHOST); then\n\
         -> rpcache worker\n",
        &[],
    );
}

#[tokio::test]
async fn missing_rights_in_redis_are_told() {
    let (setup, _worker) = healthy().await;
    // One user may use DRYRUN, the other has to be tried.
    for dryrun in ["+acl", "-acl"] {
        let user = [
            "ACL", "SETUSER", "u", "reset", "on", ">s3cret", "+@all", "allkeys", "-get", dryrun,
        ];
        setup.redis.run::<()>(&user).await;
        let url = setup.redis.url_with(&format!("u:{SECRET}@"));
        let told = examine(&setup, |doctor| doctor.env("REDIS_URL", &url), 3).await;
        told.is(
            "failure redis-rights: clients lack +get\n-> redis-cli ACL SETUSER u +get\n",
            &[("redis-rights", &["hit"])],
        );
        let user = [
            "ACL", "SETUSER", "u", "reset", "on", ">s3cret", "+@all", "~other:*", dryrun,
        ];
        setup.redis.run::<()>(&user).await;
        let told = examine(&setup, |doctor| doctor.env("REDIS_URL", &url), 3).await;
        told.is(
            "failure redis-rights: clients lack ~fib:*\n\
             -> redis-cli ACL SETUSER u ~fib:* ~{fib:* ~rpcache:worker:*\n",
            &[("redis-rights", &["hit"])],
        );
    }
    assert!(setup.redis.keys().await.is_empty());
}

#[tokio::test]
async fn unbounded_memory_and_no_eviction_are_told() {
    let (setup, _worker) = healthy().await;
    let set = async |name: &str, value: &str| {
        setup.redis.run::<()>(&["CONFIG", "SET", name, value]).await;
    };
    let policy = "-> redis-cli CONFIG SET maxmemory-policy allkeys-lfu\n";
    let bound = "-> redis-cli CONFIG SET maxmemory 1gb\n";
    set("maxmemory-policy", "noeviction").await;
    let message =
        "warning redis-memory: bounded to 104 MB, noeviction: it refuses to store when full\n";
    examine(&setup, |doctor| doctor, 0)
        .await
        .is(&format!("{message}{policy}"), &[]);
    set("maxmemory", "0").await;
    let message = "warning redis-memory: unbounded: all that is stored within a TTL must fit\n";
    examine(&setup, |doctor| doctor, 0)
        .await
        .is(&format!("{message}{bound}{policy}"), &[]);
    let message = "warning redis-memory: unbounded, and answers are stored for ever\n";
    let ttl = "-> or let answers expire: --ttl 1d (RPCACHE_TTL)\n";
    let for_ever = |doctor: Program| doctor.env("RPCACHE_TTL", "none");
    let expected = format!("{message}{bound}{policy}{ttl}");
    examine(&setup, for_ever, 0).await.is(&expected, &[]);
}

#[tokio::test]
async fn what_stands_wrongly_under_the_key_is_told() {
    let (setup, _worker) = healthy().await;
    setup.redis.run::<()>(&["LPUSH", "fib:30", "x"]).await;
    let doctor = setup.rpcache(&["doctor", "--json"]).run().await;
    assert_eq!(doctor.code, Some(0), "{doctor:#?}");
    told(&doctor.stdout).is(
        "warning hit: fib:30 held \"a value that is no string\", no answer; the call has replaced \
         it\n\
         -> see who else writes there; are there more?\n\
         -> rpcache cache verify --repair\n",
        &[],
    );
    assert_eq!(setup.redis.get("fib:30").await.as_deref(), Some("832040"));
}

#[tokio::test]
async fn worker_with_another_cache_is_told() {
    let setup = prepared().await;
    let other = Redis::start();
    let elsewhere = "-> give workers and callers the same --redis-url (REDIS_URL) and the same \
                     --namespace (RPCACHE_NAMESPACE)\n";
    let by_redis = setup.rpcache(&["worker"]).env("REDIS_URL", &other.url());
    let by_name = setup.rpcache(&["worker"]).env("RPCACHE_NAMESPACE", "other");
    for worker in [by_redis, by_name] {
        let worker = serving(&setup, worker).await;
        let doctor = setup.rpcache(&["doctor", "--json"]);
        let told = told(&doctor.run().await.stdout);
        let message = "failure hit: fib:30 is in the worker's cache, and not in this one\n";
        told.is(&format!("{message}{elsewhere}"), &[]);
        // Now that worker has it already.
        let again = setup.rpcache(&["doctor", "--json"]).run().await;
        assert_eq!(again.code, Some(3), "{again:#?}");
        worker.terminate().await;
        setup.redis.run::<()>(&["FLUSHALL"]).await;
    }
}

#[tokio::test]
async fn worker_that_cannot_store_is_told() {
    let setup = prepared().await;
    let closed = ClosedPort::reserve();
    let nowhere = format!("redis://127.0.0.1:{}", closed.port());
    let worker = setup.rpcache(&["worker"]).env("REDIS_URL", &nowhere);
    let _worker = serving(&setup, worker).await;
    examine(&setup, |doctor| doctor, 3).await.is(
        "failure hit: the answer was not stored under fib:30\n\
         -> see what the workers say of their Redis: is it this one, has it room, may they write \
         there? Set their --redis-url (REDIS_URL)\n",
        &[],
    );
}

#[tokio::test]
async fn worker_that_answers_wrongly_is_told() {
    let setup = Setup::new().await;
    bound(&setup.redis).await;
    setup
        .broker
        .declare(DEAD, Declared::DurableQuorum)
        .await
        .unwrap();
    let mut worker = setup.raw_worker().await;
    let doctor = setup.rpcache(&["doctor", "--json"]).start();
    for _ in 0..2 {
        let request = worker.take().await;
        worker.reply(&request, "7").await;
    }
    let finished = doctor.finish().await;
    assert_eq!(finished.code, Some(3), "{finished:#?}");
    let troubles = told(&finished.stdout).troubles;
    let (_, call) = troubles.split_once("failure call: ").unwrap();
    let expected = "a worker answered \"7\", which is not the answer\n\
        -> stop what answers on rpc_queue (rabbitmqctl list_consumers -p VHOST names it), or give \
        ours another --queue (RPCACHE_QUEUE)\n";
    assert_eq!(call, expected);
}

/// After the tutorial: it knows nothing of Redis, so this client stores.
#[tokio::test]
async fn worker_after_the_tutorial_is_well() {
    let setup = Setup::new().await;
    let mut worker = setup.raw_worker().await;
    let doctor = setup.rpcache(&["doctor", "--json"]).start();
    for _ in 0..2 {
        let request = worker.take().await;
        worker.reply(&request, "832040").await;
    }
    let finished = doctor.finish().await;
    assert_eq!(finished.code, Some(0), "{finished:#?}");
    assert!(
        finished.stdout.contains("stored by the call"),
        "{finished:#?}"
    );
}

#[tokio::test]
async fn servers_that_hang_hold_nothing_up_for_long() {
    let (setup, _worker) = healthy().await;
    let silent = SilentPeer::start();
    let url = format!("amqp://user:{SECRET}@127.0.0.1:{}", silent.port());
    setup.redis.freeze();
    let told = examine(&setup, |doctor| doctor.env("AMQP_URL", &url), 3).await;
    setup.redis.thaw();
    for (check, server) in [("amqp-protocol", "RabbitMQ"), ("redis-protocol", "Redis")] {
        let start = format!("failure {check}: 127.0.0.1:");
        let line = told.troubles.lines().find(|line| line.starts_with(&start));
        let line = line.unwrap_or_else(|| panic!("{}", told.troubles));
        assert!(
            line.ends_with(&format!("and does not answer as {server} does")),
            "{line}"
        );
    }
}

#[tokio::test]
async fn checks_are_told_at_once_and_an_interrupt_ends_it() {
    let setup = Setup::new().await;
    let silent = SilentPeer::start();
    let url = format!("amqp://127.0.0.1:{}", silent.port());
    let doctor = setup.rpcache(&["doctor"]).env("AMQP_URL", &url).start();
    wait_until("the first checks are told", async || {
        doctor.stdout().contains("is open\n")
    })
    .await;
    doctor.signal("INT");
    let finished = doctor.finish().await;
    assert_eq!(finished.code, Some(130), "{finished:#?}");
    assert!(!finished.stdout.contains("skipped"), "{finished:#?}");
    finished.has_one_clear_line("interrupted");
}
