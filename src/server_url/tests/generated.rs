//! Generated addresses show no password.

use super::*;

#[test]
fn no_address_of_ten_thousand_shows_a_password() {
    const STARTS: &[&str] = &[
        "redis://u:s3cret@",
        "redis+cluster://u:s3cret@",
        "redis+sentinel://u:s3cret@",
        "redis+sentinel://u:s3cret@h/x",
        "redis+sentinel://h/x?sentinel-password=s3cret",
    ];
    const PIECES: &[&str] = &[
        "redis",
        "://",
        ":",
        "@",
        "/",
        ",",
        "?",
        "&",
        "=",
        "h",
        "[::1]",
        "6379",
        "0",
        "#",
        "%",
        "%40",
        "sentinel-user",
        "sentinel-password",
        "sentinel-tls",
        "yes",
        "db",
    ];
    let mut read = 0;
    for seed in 0..10_000 {
        let mut rng = fastrand::Rng::with_seed(seed);
        let mut text = STARTS[rng.usize(..STARTS.len())].to_owned();
        for _ in 0..rng.usize(..8) {
            text += PIECES[rng.usize(..PIECES.len())];
        }
        let shown = match text.parse::<RedisUrl>() {
            Ok(url) => {
                read += 1;
                let sentinels = url.sentinels().map(|(sentinels, _)| sentinels);
                format!("{url} {url:?} {sentinels:?}")
            }
            Err(error) => error.to_string(),
        };
        assert!(!shown.contains("s3cret"), "{text}: {shown}");
    }
    assert!(read > 500, "{read}");
}
