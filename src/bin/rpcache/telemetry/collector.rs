//! The way to a collector: HTTP/1.1 on the exporting thread, which has nothing else to do than to wait.

use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use opentelemetry_http::{Bytes, HttpClient, HttpError, Request, Response};
use tracing::warn;
use ureq::Agent;

/// A collector that takes longer for a batch is not waited for.
const PATIENCE: Duration = Duration::from_secs(5);

/// It answers with a few bytes.
const LONGEST_ANSWER: u64 = 64 * 1024;

#[derive(Debug)]
pub(super) struct Collector {
    agent: Agent,
    /// It has been said that it cannot be reached, and it has not been since.
    is_down: AtomicBool,
}

impl Collector {
    pub(super) fn new() -> Self {
        let config = Agent::config_builder()
            .timeout_global(Some(PATIENCE))
            .http_status_as_error(false)
            .build();
        Self {
            agent: config.new_agent(),
            is_down: AtomicBool::new(false),
        }
    }

    fn send(&self, request: Request<Bytes>) -> Result<Response<Bytes>, ureq::Error> {
        let (parts, body) = request.into_parts();
        let answer = self.agent.run(Request::from_parts(parts, &body[..]))?;
        let (parts, mut body) = answer.into_parts();
        let body = body.with_config().limit(LONGEST_ANSWER).read_to_vec()?;
        Ok(Response::from_parts(parts, body.into()))
    }

    /// Says once that it does not work, until it has worked again.
    fn tell(&self, server: &str, sent: &Result<Response<Bytes>, ureq::Error>) {
        let refused = match sent {
            Ok(answer) if answer.status().is_success() => {
                return self.is_down.store(false, Ordering::Relaxed);
            }
            Ok(answer) => format!("it answers {}", answer.status()),
            Err(error) => error.to_string(),
        };
        if !self.is_down.swap(true, Ordering::Relaxed) {
            warn!("cannot send traces to {server}: {refused}; calls go on");
        }
    }
}

/// Its address alone: what else is in the URL, and the headers, may be secret.
fn server(request: &Request<Bytes>) -> String {
    let url = request.uri();
    match (url.host(), url.port()) {
        (Some(host), Some(port)) => format!("{host}:{port}"),
        (host, _) => host.unwrap_or_default().to_owned(),
    }
}

type Sending<'a> = Pin<Box<dyn Future<Output = Result<Response<Bytes>, HttpError>> + Send + 'a>>;

impl HttpClient for Collector {
    fn send_bytes<'this, 'sending>(&'this self, request: Request<Bytes>) -> Sending<'sending>
    where
        'this: 'sending,
        Self: 'sending,
    {
        let server = server(&request);
        let sent = self.send(request);
        self.tell(&server, &sent);
        Box::pin(std::future::ready(sent.map_err(HttpError::from)))
    }
}
