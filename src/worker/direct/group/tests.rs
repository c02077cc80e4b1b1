//! Tests of direct reply-to names: decoding, groups, and their status.

use super::*;

/// A name that RabbitMQ 3.10.8 with Erlang 25 gave out.
const GENUINE: &str = "amq.rabbitmq.reply-to.\
    g1h2AA5yZXBseUA2NjAzMTE4OAAAArEAAAAAawsXmA==.xZgdnKvjlw5Hqbl90J8oXA==";

/// Makes a name of this node with these numbers.
fn name(node: &str, numbers: [u32; 3]) -> String {
    let length = u16::try_from(node.len()).unwrap();
    let mut term = vec![131, 88, 118];
    term.extend(length.to_be_bytes());
    term.extend(node.as_bytes());
    term.extend(numbers.iter().flat_map(|number| number.to_be_bytes()));
    format!("{PREFIX}{}.a2V5", encode_base64(&term))
}

fn encode_base64(bytes: &[u8]) -> String {
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

const NODE: &str = "reply@66031188";
const OWN: [u32; 3] = [689, 0, 1_795_889_048];

#[test]
fn only_canonical_base64_is_decoded() {
    for length in 1..50 {
        let bytes: Vec<u8> = (0..length).map(|_| fastrand::u8(..)).collect();
        assert_eq!(decode_base64(&encode_base64(&bytes)), Some(bytes));
    }
    for wrong in [
        "", "A", "AAA", "AAAA=", "A===", "====", "AB==", "AAB=", "AA A", "AA-_", "AA==AAAA",
    ] {
        assert_eq!(decode_base64(wrong), None, "{wrong}");
    }
}

#[test]
fn channels_of_one_node_are_one_group() {
    assert_eq!(name(NODE, OWN)[..66], GENUINE[..66]);
    let own = Group::of(GENUINE).unwrap();
    for numbers in [OWN, [0, 0, OWN[2]], [0x7fff, 0x1fff, OWN[2]]] {
        assert_eq!(Group::of(&name(NODE, numbers)), Some(own.clone()));
    }
    let others = [
        name("reply@66031189", OWN),
        name("x@66031188", OWN),
        name(NODE, [0x8000, 0, OWN[2]]),
        name(NODE, [0, 0x2000, OWN[2]]),
        name(NODE, [u32::MAX, u32::MAX, OWN[2]]),
        name(NODE, [689, 0, 1]),
    ];
    for other in others {
        assert_ne!(Group::of(&other), Some(own.clone()), "{other}");
    }
}

#[test]
fn names_that_no_broker_gives_out_have_no_group() {
    let (pid, key) = GENUINE.rsplit_once('.').unwrap();
    let wrong = [
        "amq.gen-x".to_owned(),
        PREFIX.to_owned(),
        format!("{PREFIX}x"),
        format!("{PREFIX}AAAA.AAAA"),
        format!("{PREFIX}g1g=.AAAA"),
        pid.to_owned(),
        format!("{pid}."),
        format!("{pid}.\u{301}{key}"),
        format!("{GENUINE}.x"),
        format!("{pid}.\u{e9}"),
        GENUINE.replace("g1h2", "g1h 2"),
    ];
    for wrong in wrong {
        assert_eq!(Group::of(&wrong), None, "{wrong}");
    }
}

#[tokio::test(start_paused = true)]
async fn group_is_tried_once_and_refused_for_a_while() {
    let mut groups = Groups::default();
    groups.connected_as(Some(GENUINE));
    let is_proven = |groups: &mut Groups, name: &str| {
        matches!(groups.look_up(name, false).1, GroupStatus::Proven)
    };
    assert!(is_proven(&mut groups, &name(NODE, [1, 2, OWN[2]])));
    let other = name("reply@1", OWN);
    let (group, status) = groups.look_up(&other, false);
    assert!(matches!(status, GroupStatus::OnProbation(_)));
    groups.prove(&group);
    assert!(is_proven(&mut groups, &other));
    groups.doubt(&group);
    assert!(matches!(
        groups.look_up(&other, false).1,
        GroupStatus::OnProbation(_)
    ));
    groups.refuse(&group);
    assert!(matches!(
        groups.look_up(&other, false).1,
        GroupStatus::Undeliverable
    ));
    tokio::time::advance(REFUSED_FOR.0).await;
    assert!(matches!(
        groups.look_up(&other, false).1,
        GroupStatus::OnProbation(_)
    ));
    // Longer with each time, up to a limit.
    for _ in 0..10 {
        groups.refuse(&group);
        tokio::time::advance(REFUSED_FOR.0).await;
        assert!(matches!(
            groups.look_up(&other, false).1,
            GroupStatus::Undeliverable
        ));
        tokio::time::advance(REFUSED_FOR.1).await;
        assert!(matches!(
            groups.look_up(&other, false).1,
            GroupStatus::OnProbation(_)
        ));
    }
    assert!(matches!(
        groups.look_up("x", false).1,
        GroupStatus::Undeliverable
    ));
}

#[test]
fn own_group_is_never_doubted_but_one_of_its_names_can_be() {
    let mut groups = Groups::default();
    groups.connected_as(Some(GENUINE));
    let (own, _) = groups.look_up(GENUINE, false);
    groups.doubt(&own);
    assert!(matches!(
        groups.look_up(GENUINE, false).1,
        GroupStatus::Proven
    ));
    let (alone, status) = groups.look_up(GENUINE, true);
    assert!(matches!(status, GroupStatus::OnProbation(_)));
    groups.refuse(&alone);
    assert!(matches!(
        groups.look_up(GENUINE, false).1,
        GroupStatus::Undeliverable
    ));
    let neighbour = name(NODE, [690, 0, OWN[2]]);
    assert!(matches!(
        groups.look_up(&neighbour, false).1,
        GroupStatus::Proven
    ));
}

#[test]
fn names_of_another_form_are_proven_until_doubted() {
    for own in [None, Some("amq.rabbitmq.reply-to.of-another-form")] {
        let mut groups = Groups::default();
        groups.connected_as(own);
        let (group, status) = groups.look_up("amq.rabbitmq.reply-to.one", false);
        assert!(matches!(status, GroupStatus::Proven));
        groups.doubt(&group);
        let look = |groups: &mut Groups, name| groups.look_up(name, false).1;
        assert!(matches!(
            look(&mut groups, "amq.rabbitmq.reply-to.one"),
            GroupStatus::OnProbation(_)
        ));
        assert!(matches!(
            look(&mut groups, "amq.rabbitmq.reply-to.other"),
            GroupStatus::Proven
        ));
    }
}

#[test]
fn groups_are_bounded() {
    let mut groups = Groups::default();
    groups.connected_as(Some(GENUINE));
    for hash in 0..=MAX_GROUPS * 2 {
        groups.look_up(&name(&format!("reply@{hash}"), OWN), false);
    }
    assert!(groups.known.len() <= MAX_GROUPS);
    assert!(matches!(
        groups.look_up(GENUINE, false).1,
        GroupStatus::Proven
    ));
}
