//! Addresses that only Redis has: sockets, Sentinels, clusters, Valkey's.

use super::*;

#[test]
fn a_unix_socket_is_an_address_of_redis() {
    for (text, shown, path) in [
        (
            "unix:///run/redis.sock",
            "unix:///run/redis.sock?db=0",
            "/run/redis.sock",
        ),
        (
            "redis+unix:///run/my%20redis.sock?db=3",
            "redis+unix:///run/my%20redis.sock?db=3",
            "/run/my redis.sock",
        ),
        (
            "unix://u:s3cret@/run/redis.sock",
            "unix://u@/run/redis.sock?db=0",
            "/run/redis.sock",
        ),
    ] {
        let url: RedisUrl = text.parse().unwrap();
        assert_eq!(
            (url.to_string().as_str(), format!("{url:?}").as_str()),
            (shown, shown)
        );
        assert_eq!(*url.endpoint(), Endpoint::Unix(path.into()));
        assert!(url.tls().is_none());
    }
    let url: RedisUrl = "unix://u:s3cret@/run/redis.sock".parse().unwrap();
    let info = url.info();
    let login = info.redis_settings();
    assert_eq!(
        (login.username(), login.password()),
        (Some("u"), Some("s3cret"))
    );
}

#[test]
fn valkey_is_a_synonym_of_redis() {
    let url: RedisUrl = "valkey://u:s3cret@h".parse().unwrap();
    assert_eq!(
        (url.to_string().as_str(), url.tls().is_some()),
        ("valkey://u@h:6379/0", false)
    );
    let url: Result<RedisUrl, _> = "valkeys://h".parse();
    assert_eq!(
        url.is_ok_and(|url| url.tls().is_some()),
        cfg!(feature = "tls")
    );
}

#[test]
fn several_hosts_are_those_of_sentinels_or_of_a_cluster() {
    let endpoints = |url: &RedisUrl| {
        let endpoints = url.endpoints().iter().map(Endpoint::to_string);
        endpoints.collect::<Vec<_>>().join(" ")
    };
    for (text, shown, all) in [
        (
            "redis+cluster://u:s3cret@h1,h2:7,[::1]:8",
            "redis+cluster://u@h1:6379,h2:7,[::1]:8",
            "h1:6379 h2:7 [::1]:8",
        ),
        ("valkey+cluster://h/0", "valkey+cluster://h:6379", "h:6379"),
        (
            "redis+sentinel://:s3cret@h1,h2:7/fleet/3",
            "redis+sentinel://h1:26379,h2:7/fleet/3",
            "h1:26379 h2:7",
        ),
        (
            "valkey+sentinel://h/a%20b?db=2&sentinel-user=w&sentinel-password=s+3cret",
            "valkey+sentinel://h:26379/a b/2?sentinel-user=w",
            "h:26379",
        ),
    ] {
        let url: RedisUrl = text.parse().unwrap();
        assert_eq!(
            (url.to_string().as_str(), format!("{url:?}").as_str()),
            (shown, shown)
        );
        assert_eq!(endpoints(&url), all);
        assert_eq!(url.is_cluster(), text.contains("cluster"));
        assert_eq!(url.sentinels().is_some(), text.contains("sentinel"));
    }
}

#[test]
fn servers_and_sentinels_have_a_login_each() {
    let text = "redis+sentinel://u:s3cret@h1,h2/fleet/3?sentinel-user=w&sentinel-password=s+4cret";
    let url: RedisUrl = text.parse().unwrap();
    let (sentinels, primary) = url.sentinels().unwrap();
    assert_eq!((sentinels.len(), primary), (2, "fleet"));
    let login = |url: &RedisUrl| {
        let info = url.info();
        let login = info.redis_settings();
        let text = |text: Option<&str>| text.unwrap_or_default().to_owned();
        (text(login.username()), text(login.password()), login.db())
    };
    let (w, u) = ("w".to_owned(), "u".to_owned());
    assert_eq!(login(&sentinels[1]), (w, "s+4cret".to_owned(), 0));
    assert_eq!(sentinels[1].to_string(), "Sentinel h2:26379");
    let node = Endpoint::Tcp {
        host: "::1".to_owned(),
        port: 7,
    };
    let node = url.node(node, None);
    assert_eq!(login(&node), (u.clone(), "s3cret".to_owned(), 3));
    assert_eq!(node.to_string(), "redis://u@[::1]:7/3");
    let other = url.clone().with_password("s5cret").unwrap_err().to_string();
    assert!(!other.contains("cret") && other.contains("redis+sentinel://"));
    assert!(!format!("{url:?}{url}{:?}{node:?}", sentinels[0]).contains("cret"));
    // Passwords of their own: none of Redis' reaches a Sentinel.
    let url: RedisUrl = "redis+sentinel://h/fleet".parse().unwrap();
    let url = url.with_password("s3cret").unwrap();
    assert_eq!(login(&url.sentinels().unwrap().0[0]).1, "");
}

#[cfg(feature = "tls")]
#[test]
fn sentinels_are_encrypted_as_the_servers_are_by_default() {
    for (text, of_redis, of_sentinels) in [
        ("redis+sentinel://h/x", false, false),
        ("rediss+sentinel://h/x", true, true),
        ("valkeys+sentinel://h/x?sentinel-tls=yes", true, true),
        ("rediss+sentinel://h/x?sentinel-tls=no", true, false),
        ("redis+sentinel://h/x?sentinel-tls=yes", false, true),
    ] {
        let url: RedisUrl = text.parse().unwrap();
        let url = url.with_tls(Tls::default());
        let sentinels = url.sentinels().unwrap().0;
        let tls = (url.tls().is_some(), sentinels[0].tls().is_some());
        assert_eq!(tls, (of_redis, of_sentinels), "{text}");
    }
    let url: RedisUrl = "rediss+cluster://h".parse().unwrap();
    assert!(url.tls().is_some());
}
