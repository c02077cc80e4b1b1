//! Worker and client against the test vectors of docs/protocol.json, which implementations in other languages
//! use, too.

use crate::support::Setup;
use crate::support::amqp::headers;
use serde_json::{Map, Value};

fn vectors(of: &str) -> Vec<Value> {
    let text = std::fs::read_to_string("docs/protocol.json").unwrap();
    let mut vectors: Value = serde_json::from_str(&text).unwrap();
    serde_json::from_value(vectors[of].take()).unwrap()
}

fn pairs(headers: &Value) -> Vec<(&str, &str)> {
    let headers = headers.as_object().into_iter().flatten();
    headers
        .map(|(name, value)| (name.as_str(), value.as_str().unwrap()))
        .collect()
}

async fn assert_stored(setup: &Setup, vector: &Value) {
    for (key, value) in vector["stored"].as_object().unwrap_or(&Map::new()) {
        let stored = setup.redis.get(key).await;
        assert_eq!(stored.as_deref(), value.as_str(), "{vector}");
    }
}

#[tokio::test]
async fn worker_replies_as_the_vectors_say() {
    let setup = Setup::new().await;
    let _worker = setup.worker(&[]).await;
    let mut caller = setup.caller().await;
    for vector in vectors("worker") {
        let request = &vector["request"];
        let properties = caller
            .properties()
            .with_headers(headers(&pairs(&request["headers"])));
        let body = request["body"].as_str().unwrap();
        let reply = caller.ask_with(body.as_bytes(), properties).await;
        let expected = &vector["reply"];
        if let Some(body) = expected["body"].as_str() {
            assert_eq!(reply.body, body, "{vector}");
        } else {
            let beginning = expected["body_starts"].as_str().unwrap();
            assert!(
                reply.body.starts_with(beginning),
                "{vector}: {}",
                reply.body
            );
        }
        let replied = reply.headers.iter();
        let replied: Vec<_> = replied.map(|(name, value)| (&**name, &**value)).collect();
        let mut expected = pairs(&expected["headers"]);
        expected.sort_unstable();
        assert_eq!(replied, expected, "{vector}");
        assert_stored(&setup, &vector).await;
    }
}

#[tokio::test]
async fn call_takes_replies_as_the_vectors_say() {
    let setup = Setup::new().await;
    let mut worker = setup.raw_worker().await;
    for vector in vectors("client") {
        let argument = vector["argument"].as_str().unwrap();
        let call = setup.start_call(&["--json", argument]);
        for reply in vector["replies"].as_array().unwrap() {
            let request = worker.take_argument(argument).await;
            let properties =
                lapin::BasicProperties::default().with_headers(headers(&pairs(&reply["headers"])));
            worker
                .reply_with(&request, reply["body"].as_str().unwrap(), properties)
                .await;
        }
        let printed = call.finish().await.stdout;
        let printed: Value = serde_json::from_str(&printed).expect("one object");
        for (name, value) in vector["prints"].as_object().unwrap() {
            let name = if name == "error" {
                "/error/code".to_owned()
            } else {
                format!("/{name}")
            };
            assert_eq!(printed.pointer(&name), Some(value), "{vector}: {printed}");
        }
        assert_stored(&setup, &vector).await;
    }
}
