//! What is read of an address, what is shown of it, and what goes along.

use super::*;

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
fn tls_is_shown_and_has_a_port_of_its_own() {
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
fn a_password_beside_the_url_is_put_into_it() {
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
        error.contains("leave one away") && !error.contains("cret"),
        "{error}"
    );
    let url: RedisUrl = "redis://:s3cret@h".parse().unwrap();
    assert!(url.clone().with_password("s3cret").is_ok());
    let error = url.with_password("s4cret").unwrap_err().to_string();
    assert!(
        error.contains("leave one away") && !error.contains("cret"),
        "{error}"
    );
}
