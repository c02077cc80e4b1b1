use super::*;

/// As RabbitMQ 3.10.8 with Erlang 25 made it.
const GENUINE: &str = "amq.rabbitmq.reply-to.\
    g1h2AA5yZXBseUA2NjAzMTE4OAAAArEAAAAAawsXmA==.xZgdnKvjlw5Hqbl90J8oXA==";

/// A name with this node and these numbers.
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
fn base64_is_read_as_it_was_written_and_nothing_else_is() {
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
fn what_no_broker_gives_out_has_no_group() {
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
    let is_proven =
        |groups: &mut Groups, name: &str| matches!(groups.look_up(name, false).1, Standing::Proven);
    assert!(is_proven(&mut groups, &name(NODE, [1, 2, OWN[2]])));
    let other = name("reply@1", OWN);
    let (group, standing) = groups.look_up(&other, false);
    assert!(matches!(standing, Standing::OnProbation(_)));
    groups.prove(&group);
    assert!(is_proven(&mut groups, &other));
    groups.doubt(&group);
    assert!(matches!(
        groups.look_up(&other, false).1,
        Standing::OnProbation(_)
    ));
    groups.refuse(&group);
    assert!(matches!(
        groups.look_up(&other, false).1,
        Standing::Undeliverable
    ));
    tokio::time::advance(REFUSED_FOR).await;
    assert!(matches!(
        groups.look_up(&other, false).1,
        Standing::OnProbation(_)
    ));
    assert!(matches!(
        groups.look_up("x", false).1,
        Standing::Undeliverable
    ));
}

#[test]
fn own_group_is_never_doubted_but_one_of_its_names_may_be() {
    let mut groups = Groups::default();
    groups.connected_as(Some(GENUINE));
    let (own, _) = groups.look_up(GENUINE, false);
    groups.doubt(&own);
    assert!(matches!(groups.look_up(GENUINE, false).1, Standing::Proven));
    let (alone, standing) = groups.look_up(GENUINE, true);
    assert!(matches!(standing, Standing::OnProbation(_)));
    groups.refuse(&alone);
    assert!(matches!(
        groups.look_up(GENUINE, false).1,
        Standing::Undeliverable
    ));
    let neighbour = name(NODE, [690, 0, OWN[2]]);
    assert!(matches!(
        groups.look_up(&neighbour, false).1,
        Standing::Proven
    ));
}

#[test]
fn where_names_have_another_form_each_is_proven_until_it_is_doubted() {
    for own in [None, Some("amq.rabbitmq.reply-to.of-another-form")] {
        let mut groups = Groups::default();
        groups.connected_as(own);
        let (group, standing) = groups.look_up("amq.rabbitmq.reply-to.one", false);
        assert!(matches!(standing, Standing::Proven));
        groups.doubt(&group);
        let look = |groups: &mut Groups, name| groups.look_up(name, false).1;
        assert!(matches!(
            look(&mut groups, "amq.rabbitmq.reply-to.one"),
            Standing::OnProbation(_)
        ));
        assert!(matches!(
            look(&mut groups, "amq.rabbitmq.reply-to.other"),
            Standing::Proven
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
    assert!(matches!(groups.look_up(GENUINE, false).1, Standing::Proven));
}
