//! `scripts/provision`: the rights of its users, its policies, and its password files.

use crate::support::amqp::{Broker, Caller, Declared, QUEUE, Worker};
use crate::support::process::{Finished, Program};
use crate::support::rabbitmq::{Vhost, broker, find, node_name};
use crate::support::redis::Redis;
use crate::support::wait::wait_until;
use crate::support::{EXPENSIVE, fibonacci, lifetime};
use lapin::options::BasicConsumeOptions;
use std::path::PathBuf;

/// A vhost of the shared broker and a Redis, both made ready by the script.
pub(crate) struct Provisioned {
    name: &'static str,
    pub(crate) vhost: Vhost,
    pub(crate) redis: Redis,
    passwords: PathBuf,
}

/// Applies the output of the script, as its first lines explain.
const APPLY: &str = r#"
    scripts/provision rabbitmq "$PASSWORDS" --name "$NAME" >"$PASSWORDS.json" &&
    "$RABBITMQCTL" import_definitions "$PASSWORDS.json" >&2 &&
    scripts/provision redis "$PASSWORDS" --name "$NAME" >"$PASSWORDS.acl" &&
    redis-cli -p "$REDIS_PORT" <"$PASSWORDS.acl""#;

impl Provisioned {
    pub(crate) async fn new(name: &'static str) -> Self {
        let this = Self {
            name,
            vhost: Vhost::made(name),
            redis: Redis::start(),
            passwords: lifetime::folder("provision").join("passwords"),
        };
        this.apply().await.answers("OK\nOK\n");
        this
    }

    async fn apply(&self) -> Finished {
        let rabbitmqctl = find("lib/rabbitmq/bin/rabbitmqctl", "sbin/rabbitmqctl").unwrap();
        let (node, path) = (broker(), |path: &PathBuf| path.display().to_string());
        let applied = Program::shell(APPLY)
            .env("PASSWORDS", &path(&self.passwords))
            .env("NAME", self.name)
            .env("REDIS_PORT", &self.redis.port().to_string())
            .env("RABBITMQCTL", &path(&rabbitmqctl))
            .env("ERL_EPMD_PORT", &node.epmd.to_string())
            // The Erlang cookie is in this folder.
            .env("HOME", &path(&node.folder))
            .env("RABBITMQ_NODENAME", &node_name())
            .env("RABBITMQ_CONF_ENV_FILE", "/dev/null");
        applied.run().await
    }

    pub(crate) fn password_of(&self, role: &str) -> String {
        let password = std::fs::read_to_string(self.passwords.join(role)).unwrap();
        password.trim_end().to_owned()
    }

    pub(crate) fn amqp_url(&self, role: &str) -> String {
        let user = format!("{}-{role}", self.name);
        self.vhost.url_with(&user, &self.password_of(role))
    }

    fn redis_credentials(&self, role: &str) -> String {
        format!("{}-{role}:{}@", self.name, self.password_of(role))
    }

    /// `rpcache` as this user.
    pub(crate) fn rpcache(&self, role: &str, arguments: &[&str]) -> Program {
        let redis_url = self.redis.url_with(&self.redis_credentials(role));
        Program::rpcache(arguments)
            .env("AMQP_URL", &self.amqp_url(role))
            .env("REDIS_URL", &redis_url)
    }

    async fn look_at(&self, queue: &str) -> Option<(u32, u32)> {
        let broker = Broker::connect(&self.amqp_url("worker")).await;
        broker.look_at(queue).await
    }
}

/// Workers and clients of every kind work, and Redis refuses none of their commands.
#[tokio::test]
async fn provisioned_users_do_what_workers_and_clients_do() {
    let setup = Provisioned::new("provisioned").await;
    let worker = setup.rpcache("worker", &["worker"]).start();
    worker.says("serving fib").await;
    let client = |arguments: &[&str]| setup.rpcache("client", arguments).run();

    for n in [30, EXPENSIVE] {
        let answer = format!("{}\n", fibonacci(n));
        client(&["call", &n.to_string()]).await.answers(&answer);
        assert_eq!(
            setup.redis.get(&format!("fib:{n}")).await.as_deref(),
            Some(answer.trim_end())
        );
    }
    // A long-lived client, with a callback queue and a near cache.
    let lines: Vec<String> = (0..50)
        .map(|n| format!("{n}\t{}\n", fibonacci(n)))
        .collect();
    let many = ["call", "0..49", "--local-cache", "1MB"];
    client(&many).await.answers(&lines.concat());
    let bench = client(&["bench", "--json", "--calls", "500", "--no-cache"]).await;
    assert_eq!(bench.code, Some(0), "{bench:#?}");

    // A foreign worker's answer is stored by the client.
    let ended = worker.terminate().await;
    assert_eq!(ended.code, Some(0), "{ended:#?}");
    for complaint in ["WARN", "declared otherwise", "refuse"] {
        assert!(!ended.stderr.contains(complaint), "{ended:#?}");
    }
    let broker = Broker::connect(&setup.amqp_url("worker")).await;
    let mut foreign = Worker::consuming(broker).await;
    let call = setup.rpcache("client", &["call", "77"]).start();
    let request = foreign.take_argument("77").await;
    foreign.reply(&request, &fibonacci(77)).await;
    call.finish().await.answers(&format!("{}\n", fibonacci(77)));
    assert_eq!(setup.redis.get("fib:77").await, Some(fibonacci(77)));

    let refused: Vec<redis::Value> = setup.redis.run(&["ACL", "LOG"]).await;
    assert!(refused.is_empty(), "{refused:?}");
}

/// Requests that expire in the queue are answered, which needs the policies.
#[tokio::test]
async fn provisioned_policies_dead_letter_expired_requests() {
    let setup = Provisioned::new("provisioned-policies").await;
    let mut caller = Caller::direct(&setup.amqp_url("client")).await;
    let properties = caller.properties().with_expiration("1".into());
    caller.send(b"30", properties).await;
    wait_until("the request is dead-lettered", async || {
        setup
            .look_at("rpc_queue.dead")
            .await
            .is_some_and(|(dead, _)| dead == 1)
    })
    .await;
    let _worker = setup.rpcache("worker", &["worker"]).start();
    caller.next_reply().await.fails_as("expired");
}

#[tokio::test]
async fn provisioned_users_have_no_other_rights() {
    let setup = Provisioned::new("provisioned-least").await;
    for role in ["worker", "client"] {
        let broker = Broker::connect(&setup.amqp_url(role)).await;
        let declared = broker.declare("rpc_queue.mine", Declared::DurableQuorum);
        assert!(declared.await.is_err(), "{role}");
    }
    // Requests are read by workers alone.
    let client = Broker::connect(&setup.amqp_url("client")).await;
    let options = BasicConsumeOptions::default();
    let consumed = client.channel.basic_consume(
        QUEUE.into(),
        "".into(),
        options,
        lapin::types::FieldTable::default(),
    );
    assert!(consumed.await.is_err());

    setup.redis.set("fib:30", "832040").await;
    setup.redis.set("other:30", "832040").await;
    for (role, command) in [
        ("client", &["DEL", "fib:30"][..]),
        ("client", &["GET", "other:30"]),
        ("client", &["SET", "rpcache:worker:0", "x"]),
        ("client", &["PUBLISH", "rpcache:removed", "fib:*"]),
        ("worker", &["GET", "other:30"]),
        ("worker", &["FLUSHALL"]),
        ("worker", &["KEYS", "*"]),
        ("worker", &["CONFIG", "GET", "*"]),
    ] {
        let said = setup
            .redis
            .refusal(&setup.redis_credentials(role), command)
            .await;
        assert!(said.starts_with("NoPerm"), "{role} {command:?}: {said}");
    }
}

/// The script may be applied again; it keeps the passwords and does not print them.
#[tokio::test]
async fn provisioning_again_changes_nothing_and_prints_no_password() {
    let setup = Provisioned::new("provisioned-again").await;
    let before = setup.password_of("worker");
    let again = setup.apply().await;
    again.answers("OK\nOK\n");
    assert_eq!(setup.password_of("worker"), before);
    let printed = |kind| std::fs::read_to_string(setup.passwords.with_extension(kind)).unwrap();
    let printed = again.stderr + &printed("json") + &printed("acl");
    for role in ["worker", "client"] {
        assert!(!printed.contains(&setup.password_of(role)), "{printed}");
    }
    Broker::connect(&setup.amqp_url("worker")).await;
}

#[tokio::test]
async fn provisioning_refuses_wrong_options() {
    for (arguments, reason) in [
        ("", "rabbitmq or redis"),
        ("redis", "FOLDER is missing"),
        ("redis passwords --namespace 'a b'", "letters, digits"),
        ("rabbitmq passwords --name 'a\"b'", "letters, digits"),
        ("rabbitmq passwords --procedure", "needs a name"),
        ("rabbitmq passwords --user me", "unknown option --user"),
    ] {
        let finished = Program::shell(&format!("scripts/provision {arguments}"))
            .run()
            .await;
        assert_eq!(finished.code, Some(2), "{finished:#?}");
        assert_eq!(finished.stdout, "");
        assert!(finished.stderr.contains(reason), "{finished:#?}");
    }
}

/// A user with write access to the file or its folder could choose the password.
#[tokio::test]
async fn provisioning_refuses_passwords_that_others_may_write() {
    for (prepare, reason) in [
        ("ln -s ../elsewhere p/worker", "symbolic link to nothing"),
        (
            "echo secret >p/client; chmod 666 p/client",
            "may write p/client",
        ),
        ("echo secret >p/worker; chmod 777 p", "may write p:"),
        ("chmod 1777 p", "may write p:"),
        ("mkdir p/worker", "not a file"),
        ("rmdir p && touch p", "p is not a folder"),
    ] {
        for what in ["rabbitmq", "redis"] {
            let folder = lifetime::folder("provision");
            let line = format!("cd \"$FOLDER\" && mkdir p && {prepare} && \"$PROVISION\" {what} p");
            let provision = concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/provision");
            let program = Program::shell(&line).env("PROVISION", provision);
            let refused = program
                .env("FOLDER", &folder.display().to_string())
                .run()
                .await;
            assert_eq!(refused.code, Some(1), "{prepare}: {refused:#?}");
            assert_eq!(refused.stdout, "", "{prepare}");
            assert!(refused.stderr.contains(reason), "{prepare}: {refused:#?}");
            assert!(!folder.join("elsewhere").exists(), "{prepare}");
        }
    }
}

/// The limits are those of the Compose set-up.
#[tokio::test]
async fn provisioned_policies_are_those_of_compose() {
    let folder = lifetime::folder("provision");
    let line = format!("scripts/provision rabbitmq {}/p", folder.display());
    let printed = Program::shell(&line).run().await;
    let definitions = |text: &str| -> Vec<serde_json::Value> {
        let all: serde_json::Value = serde_json::from_str(text).unwrap();
        let policies = all["policies"].as_array().unwrap();
        policies
            .iter()
            .map(|policy| policy["definition"].clone())
            .collect()
    };
    let compose = std::fs::read_to_string("docker/rabbitmq/definitions.json").unwrap();
    assert_eq!(definitions(&printed.stdout), definitions(&compose));
}
