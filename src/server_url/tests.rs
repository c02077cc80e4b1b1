//! What is read of an address, what is shown of it, and what goes along.

mod generated;
mod redis;

use super::*;
use crate::transport::Endpoint;

#[test]
fn an_amqp_url_shows_everything_but_its_password() {
    for (text, shown, host, vhost) in [
        ("amqp://h", "amqp://guest@h:5672/%2f", "h", "/"),
        ("amqp://h/", "amqp://guest@h:5672/%2f", "h", "/"),
        ("amqp://u:s3cret@h:1/%2f", "amqp://u@h:1/%2f", "h", "/"),
        ("amqp://u:s3cret@h:1/v", "amqp://u@h:1/v", "h", "v"),
        (
            "amqp://u:s3cret@[::1]/v%2fw",
            "amqp://u@[::1]:5672/v%2fw",
            "::1",
            "v/w",
        ),
    ] {
        let url: AmqpUrl = text.parse().unwrap();
        assert_eq!(
            (url.to_string().as_str(), format!("{url:?}").as_str()),
            (shown, shown)
        );
        assert_eq!(
            (
                url.nodes()[0].authority.host.as_str(),
                url.nodes()[0].vhost.as_str()
            ),
            (host, vhost)
        );
    }
}

#[test]
fn several_nodes_are_separated_by_commas() {
    let url: AmqpUrl = "amqp://u:s3cret@a,amqp://b:1/v".parse().unwrap();
    assert_eq!(url.to_string(), "amqp://u@a:5672/%2f,amqp://guest@b:1/v");
    assert_eq!(url.nodes().len(), 2);
}

#[test]
fn a_malformed_url_is_refused_without_being_repeated() {
    for text in [
        "",
        "h",
        "localhost:5672",
        "http://u:s3cret@h",
        "amqp://",
        "amqp:u:s3cret@h",
        "amqp://u:s3cret@h:99999",
        "amqp://u:s3cret@h/?hartbeat=1",
        "amqp://u:s3cret@h,amqps://u:s3cret@h",
        "amqps://u:s3cret@h/#insecure",
        "amqp://u:s3cret@h/?heartbeat=x",
        "amqp://u:s3cret@h/a/b",
        "amqp://u:s3%ff@h",
        "amqp://u:s3cret@h,",
        "amqp://u:s3cret@h,b",
    ] {
        let error = text.parse::<AmqpUrl>().unwrap_err().to_string();
        assert!(!error.contains("s3"), "{text}: {error}");
    }
    for text in [
        "",
        "h",
        "redis://",
        "redis://:s3cret@h/x",
        "http://:s3cret@h",
        "rediss://:s3cret@h/#insecure",
        "redis://:s3cret@h/#",
    ] {
        let error = text.parse::<RedisUrl>().unwrap_err().to_string();
        assert!(!error.contains("s3"), "{text}: {error}");
    }
}

#[test]
fn a_redis_url_shows_everything_but_its_password() {
    for (text, shown) in [
        ("redis://h", "redis://h:6379/0"),
        ("redis://:s3cret@h:1/2", "redis://h:1/2"),
        ("redis://u:s3cret@[::1]:1", "redis://u@[::1]:1/0"),
    ] {
        let url: RedisUrl = text.parse().unwrap();
        assert_eq!(
            (url.to_string().as_str(), format!("{url:?}").as_str()),
            (shown, shown)
        );
    }
}

#[test]
fn tls_is_shown_and_has_its_own_default_port() {
    for (text, shown) in [
        ("amqps://h", "amqps://guest@h:5671/%2f"),
        ("amqps://u:s3cret@h:1/v", "amqps://u@h:1/v"),
    ] {
        let url: Result<AmqpUrl, _> = text.parse();
        if cfg!(feature = "tls") {
            let url = url.unwrap();
            assert_eq!(url.to_string(), shown);
            assert!(url.tls().is_some());
        } else {
            assert!(url.unwrap_err().to_string().contains("without"));
        }
    }
    let url: Result<RedisUrl, _> = "rediss://u:s3cret@h/1".parse();
    if let Ok(url) = &url {
        assert_eq!(url.to_string(), "rediss://u@h:6379/1");
        assert!(url.tls().is_some());
    }
    assert_eq!(url.is_ok(), cfg!(feature = "tls"));
}

#[test]
fn a_separate_password_is_added_to_the_url() {
    let url: AmqpUrl = "amqp://u@a,amqp://u@b".parse().unwrap();
    let url = url.with_password("s3cret").unwrap();
    for node in url.nodes() {
        assert_eq!(node.authority.userinfo.password, "s3cret");
    }
    assert!(!format!("{url:?}{url}").contains("s3cret"));
    let url: RedisUrl = "redis://u@h".parse().unwrap();
    let url = url.with_password("s3cret").unwrap();
    assert_eq!(url.info().redis_settings().password(), Some("s3cret"));
    assert!(!format!("{url:?}{url}").contains("s3cret"));
}

#[test]
fn two_passwords_are_refused_without_being_shown() {
    let url: AmqpUrl = "amqp://u:s3cret@a,amqp://u@b".parse().unwrap();
    let error = url.with_password("s4cret").unwrap_err().to_string();
    assert!(
        error.contains("leave one out") && !error.contains("cret"),
        "{error}"
    );
    let url: RedisUrl = "redis://:s3cret@h".parse().unwrap();
    assert!(url.clone().with_password("s3cret").is_ok());
    let error = url.with_password("s4cret").unwrap_err().to_string();
    assert!(
        error.contains("leave one out") && !error.contains("cret"),
        "{error}"
    );
}

fn amqp_error(text: &str) -> String {
    text.parse::<AmqpUrl>().unwrap_err().to_string()
}

fn redis_error(text: &str) -> String {
    text.parse::<RedisUrl>().unwrap_err().to_string()
}

#[test]
fn unknown_or_malformed_parts_are_named_in_the_error() {
    for (text, named) in [
        ("redis://h?database=5", "?database="),
        ("redis://h/0?db=1", "two databases"),
        ("redis://h?db=1&db=1", "?db= is given twice"),
        ("redis://h?db=x", "the value of ?db="),
        ("redis://h?db=", "the value of ?db="),
        ("redis://h?protocol=resp3", "?protocol="),
        (
            "redis://h/1/2",
            "the part after the host must be the number of a database",
        ),
        ("redis://h1,h2:6379", "several hosts"),
        ("redis://h/0\n/1", "control character"),
        ("redis://h1,h2:6379", "write redis+cluster://HOST1,HOST2"),
        ("redis-sentinel://h/x", "write redis+sentinel://"),
        ("redis+sentinel://h1,h2", "the name of the primary"),
        ("redis+sentinel://h1,h2/", "the name of the primary"),
        ("redis+sentinel://h/x/y", "the number of a database"),
        ("redis+sentinel://h/x/1/2", "the number of a database"),
        ("redis+sentinel://h/x/1?db=2", "two databases"),
        (
            "redis+sentinel://h/x?sentinel=y",
            "known: ?db=, ?sentinel-user=",
        ),
        ("redis+sentinel://h/x?sentinel-tls=maybe", "as yes or no"),
        ("redis+sentinel://h,/x", "it has no host"),
        (
            "redis+cluster://u:s3@h1,u:s3@h2",
            "the login is written once",
        ),
        ("redis+cluster://h1,,h2", "it has no host"),
        ("redis+cluster://h1/1", "database 0 only"),
        ("redis+cluster://h1?db=1", "database 0 only"),
        ("redis+cluster://h1:x", "invalid port"),
        ("redis+cluster://h?sentinel-user=u", "?sentinel-user="),
        ("redis+replica://h", "redis+cluster://"),
        ("redis://h?sentinel-user=u", "?sentinel-user="),
        ("http://h", "redis://, rediss://, unix://"),
        ("unix://", "it has no path of a socket"),
        ("unix:///", "it has no path of a socket"),
        ("unix://run/redis.sock", "unix:///PATH"),
        ("unix:///run/redis.sock?database=5", "?database="),
        ("unix:///run/redis%00.sock", "cannot be a socket's path"),
        ("unix:run/redis.sock", "redis://, rediss://, unix://"),
    ] {
        let error = redis_error(text);
        assert!(error.contains(named), "{text}: {error}");
    }
    let too_long = format!("unix:///{}", "x".repeat(200));
    assert!(redis_error(&too_long).contains("cannot be a socket's path"));
    for (text, named) in [
        ("amqp://h?hartbeat=1", "?hartbeat="),
        ("amqp://h?connection_timeout=1", "?connection_timeout="),
        ("amqp://h?auth_mechanism=plain", "?auth_mechanism="),
        (
            "amqp://h?heartbeat=1&heartbeat=2",
            "?heartbeat= is given twice",
        ),
        ("amqp://h?heartbeat=70000", "the value of ?heartbeat="),
        ("amqp://h/a/b", "%2f"),
        ("amqp://h/v#x", "%23"),
        ("http://h", "amqp:// or amqps://"),
        ("h:5672", "amqp:// or amqps://"),
    ] {
        let error = amqp_error(text);
        assert!(error.contains(named), "{text}: {error}");
    }
}

#[test]
fn known_parameters_are_applied() {
    let url: AmqpUrl = "amqp://h?heartbeat=9&frame_max=8192&channel_max=7"
        .parse()
        .unwrap();
    let query = &url.nodes()[0].query;
    assert_eq!(
        (query.heartbeat, query.frame_max, query.channel_max),
        (Some(9), Some(8192), Some(7))
    );
    for (text, database) in [
        ("redis://h", 0),
        ("redis://h?db=5", 5),
        ("redis://h/?db=5", 5),
        ("redis://h/5?db=5", 5),
        ("valkey://h/5", 5),
        ("unix:///run/redis.sock?db=5", 5),
    ] {
        let url: RedisUrl = text.parse().unwrap();
        assert_eq!(url.info().redis_settings().db(), database, "{text}");
    }
}

#[test]
fn values_beyond_amqps_limits_are_refused() {
    let refused = |text: &str| text.parse::<AmqpUrl>().unwrap_err().to_string();
    let vhost = |length| format!("amqp://h/{}", "v".repeat(length));
    assert!(vhost(255).parse::<AmqpUrl>().is_ok());
    let message = refused(&vhost(256));
    assert!(
        message.contains("the vhost has 256 bytes; at most 255"),
        "{message}"
    );
    for (max, is_ok) in [(0, true), (1, false), (4095, false), (4096, true)] {
        let url = format!("amqp://h?frame_max={max}");
        assert_eq!(url.parse::<AmqpUrl>().is_ok(), is_ok, "{max}");
    }
    let message = refused("amqp://h?frame_max=100");
    assert!(message.contains("at least 4096"), "{message}");
}

#[test]
fn a_raw_special_character_in_a_password_is_named_without_the_password() {
    for (password, code) in [
        ("s3#cret", "# must be written %23"),
        ("s3/cret", "/ must be written %2f"),
        ("s3?cret", "? must be written %3f"),
        ("12/s3cret", "/ must be written %2f"),
        ("12?s3cret", "? must be written %3f"),
        ("s3/cr?et", "/ must be written %2f, ? must be written %3f"),
        ("s3%ffcret", "% in a user or password must be written %25"),
    ] {
        for error in [
            amqp_error(&format!("amqp://u:{password}@h/v")),
            amqp_error(&format!(
                "amqp://u:{password}@h1/v,amqp://u:{password}@h2/v"
            )),
            redis_error(&format!("redis://:{password}@h")),
            redis_error(&format!("unix://:{password}@/run/redis.sock")),
        ] {
            assert!(error.contains(code), "{password}: {error}");
            assert!(!error.contains("s3") && !error.contains("cret"), "{error}");
        }
    }
    for text in [
        "amqp://u:s3,cret@h/v",
        "amqp://u:s3@h1,h2/v",
        "amqp://u:s3@h,",
    ] {
        let error = amqp_error(text);
        assert!(
            error.contains("amqp://HOST1/VHOST,amqp://HOST2/VHOST"),
            "{error}"
        );
        assert!(error.contains("%2c") && !error.contains("s3"), "{error}");
    }
}

#[test]
fn characters_without_a_special_meaning_are_kept() {
    for (text, password) in [
        ("amqp://u:p@ss@h", "p@ss"),
        ("amqp://u:p%ss@h", "p%ss"),
        ("amqp://u:p%23%2f%3F%40%2c%25s@h", "p#/?@,%s"),
        ("amqp://u:p:s s@h", "p:s s"),
    ] {
        let url: AmqpUrl = text.parse().unwrap();
        let node = &url.nodes()[0];
        assert_eq!(node.authority.userinfo.password, password);
        assert_eq!(
            (url.to_string().as_str(), node.authority.host.as_str()),
            ("amqp://u@h:5672/%2f", "h")
        );
        let url: RedisUrl = text.replacen("amqp", "redis", 1).parse().unwrap();
        assert_eq!(url.info().redis_settings().password(), Some(password));
        assert_eq!(url.to_string(), "redis://u@h:6379/0");
    }
    let url: RedisUrl = "redis://:p,ss@h".parse().unwrap();
    assert_eq!(url.info().redis_settings().password(), Some("p,ss"));
}
