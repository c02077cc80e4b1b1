//! Forged direct reply-to names: RabbitMQ 3.10 closes the connection that publishes to most of them.

use crate::support::Setup;
use crate::support::amqp::{Caller, QUEUE};
use crate::support::rabbitmq::{Vhost, broker};
use crate::support::wait::wait_until;
use std::time::{Duration, Instant};

const PREFIX: &str = "amq.rabbitmq.reply-to.";

fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for chunk in bytes.chunks(3) {
        let mut whole = [0; 4];
        whole[1..=chunk.len()].copy_from_slice(chunk);
        let bits = u32::from_be_bytes(whole);
        for place in 0..4 {
            let digit = DIGITS[(bits >> (18 - 6 * place) & 63) as usize];
            text.push(if place > chunk.len() {
                '='
            } else {
                digit.into()
            });
        }
    }
    text
}

/// A well-formed name with this hash of a node and these numbers of a process.
fn forged(hash: u32, numbers: [u32; 3]) -> String {
    let node = format!("reply@{hash}");
    let mut term = vec![131, 88, 118];
    term.extend(u16::try_from(node.len()).unwrap().to_be_bytes());
    term.extend(node.as_bytes());
    term.extend(numbers.iter().flat_map(|number| number.to_be_bytes()));
    format!("{PREFIX}{}.{}", base64(&term), base64(b"sixteen bytes..."))
}

/// Sends a request with this reply-to name.
async fn send_for(caller: &Caller, reply_to: &str) {
    let properties = caller.properties().with_reply_to(reply_to.into());
    caller.send(b"30", properties).await;
}

/// The 99th percentile of so many calls, one after another.
async fn p99(caller: &mut Caller, times: usize) -> Duration {
    let mut took = Vec::new();
    for _ in 0..times {
        let asked = Instant::now();
        caller.is_served().await;
        took.push(asked.elapsed());
    }
    took.sort();
    took[times - 1 - times / 100]
}

/// Names of each kind that closes a connection of RabbitMQ 3.10, and some that do not.
fn names() -> Vec<String> {
    let mut names: Vec<_> = ["", "x", "a.b.c", "AAAA.AAAA", "!!.AAAA", "g2dkAAB.gone=="]
        .iter()
        .map(|rest| format!("{PREFIX}{rest}"))
        .collect();
    names.extend([
        forged(12345, [689, 0, 1]),
        forged(12345, [u32::MAX, u32::MAX, u32::MAX]),
        forged(0, [0, 0, 0]),
    ]);
    names
}

#[tokio::test]
async fn forged_names_keep_the_session() {
    let setup = Setup::new().await;
    let worker = setup.worker(&[]).await;
    let mut caller = setup.caller().await;
    for name in names() {
        // Twice: the second time, the worker knows the name.
        send_for(&caller, &name).await;
        send_for(&caller, &name).await;
        caller.is_served().await;
    }
    let finished = setup.assert_settled(worker).await;
    assert!(!finished.stderr.contains("lost RabbitMQ"), "{finished:#?}");
}

/// A caller that knows the hash of its node can forge names of other callers.
#[tokio::test]
async fn forged_names_of_the_brokers_node_keep_the_session() {
    let setup = Setup::new().await;
    let worker = setup.worker(&[]).await;
    let mut caller = setup.caller().await;
    let own = own_name(&setup.vhost).await;
    let (pid, key) = own[PREFIX.len()..].split_once('.').unwrap();
    // The number of the process follows the name of the node; these names have one Base64 digit of it changed.
    for place in 28..pid.len() - 4 {
        for digit in ["A", "Z", "/"] {
            let mut pid = pid.to_owned();
            pid.replace_range(place..=place, digit);
            send_for(&caller, &format!("{PREFIX}{pid}.{key}")).await;
        }
    }
    caller.is_served().await;
    let finished = setup.assert_settled(worker).await;
    assert!(!finished.stderr.contains("lost RabbitMQ"), "{finished:#?}");
}

/// The direct reply-to name of a caller that has disconnected.
async fn own_name(vhost: &Vhost) -> String {
    let (caller, look) = (
        Caller::direct(&vhost.url()).await,
        Caller::direct(&vhost.url()).await,
    );
    let queue = "shows.the.name";
    let classic = crate::support::amqp::Declared::ClassicTransient;
    look.broker.declare(queue, classic).await.unwrap();
    caller.broker.publish(queue, b"", caller.properties()).await;
    let shown = look.broker.get(queue).await.expect("it was published");
    shown.properties.reply_to().clone().unwrap().to_string()
}

#[tokio::test]
async fn thousand_forged_names_do_not_delay_other_calls() {
    let setup = Setup::new().await;
    let worker = setup.worker(&[]).await;
    let (mut caller, attacker) = (setup.caller().await, setup.caller().await);
    let quiet = p99(&mut caller, 200).await;
    for hash in 0..1000 {
        send_for(&attacker, &forged(hash, [hash, 0, 1])).await;
    }
    let flooded = p99(&mut caller, 200).await;
    eprintln!("p99 {quiet:?} before, {flooded:?} behind a thousand forged names");
    // Other tests run at the same time; a call that is held up takes seconds.
    assert!(
        flooded < quiet * 2 + Duration::from_millis(500),
        "{flooded:?}"
    );
    for n in 30..34 {
        let call = setup.call(&[&n.to_string(), "--no-cache"]).await;
        assert_eq!(call.code, Some(0), "{call:#?}");
    }
    wait_until("every request is settled", async || {
        let look = setup.broker.look_at(QUEUE).await;
        look.is_some_and(|(waiting, _)| waiting == 0)
    })
    .await;
    let finished = setup.assert_settled(worker).await;
    assert!(!finished.stderr.contains("lost RabbitMQ"), "{finished:#?}");
    let dropped = finished.stderr.matches("cannot resolve").count();
    // RabbitMQ 4.0 closes no connection over them.
    let version = broker().evaluate("rabbit_misc:version().").unwrap();
    let expected = if version.starts_with("3.") {
        1..10
    } else {
        0..1
    };
    assert!(expected.contains(&dropped), "{version}: {finished:#?}");
}

/// The caller's channel is closed; the broker drops the reply silently.
#[tokio::test]
async fn request_of_a_disconnected_caller_is_settled() {
    let setup = Setup::new().await;
    let worker = setup.worker(&[]).await;
    let gone = own_name(&setup.vhost).await;
    let mut caller = setup.caller().await;
    send_for(&caller, &gone).await;
    caller.is_served().await;
    setup.assert_settled(worker).await;
}
