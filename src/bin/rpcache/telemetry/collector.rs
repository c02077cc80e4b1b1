//! The HTTP/1.1 client for a collector. It blocks: the exporting thread has nothing else to do.

use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use opentelemetry_http::{Bytes, HttpClient, HttpError, Request, Response};
use tracing::warn;
use ureq::Agent;

/// Time limit for one batch.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Limit of a response, in bytes; collectors send a few.
const MAX_RESPONSE: u64 = 64 * 1024;

#[derive(Debug)]
pub(super) struct Collector {
    agent: Agent,
    /// Set by the warning that the collector fails, until a batch succeeds.
    is_down: AtomicBool,
}

impl Collector {
    pub(super) fn new() -> Self {
        let config = Agent::config_builder()
            .timeout_global(Some(TIMEOUT))
            .http_status_as_error(false)
            .build();
        Self {
            agent: config.new_agent(),
            is_down: AtomicBool::new(false),
        }
    }

    fn send(&self, request: Request<Bytes>) -> Result<Response<Bytes>, ureq::Error> {
        let (parts, body) = request.into_parts();
        let response = self.agent.run(Request::from_parts(parts, &body[..]))?;
        let (parts, mut body) = response.into_parts();
        let body = body.with_config().limit(MAX_RESPONSE).read_to_vec()?;
        Ok(Response::from_parts(parts, body.into()))
    }

    /// Warns of the first failure after a success.
    fn report(&self, server: &str, sent: &Result<Response<Bytes>, ureq::Error>) {
        let refused = match sent {
            Ok(response) if response.status().is_success() => {
                return self.is_down.store(false, Ordering::Relaxed);
            }
            Ok(response) => format!("it answers {}", response.status()),
            Err(error) => error.to_string(),
        };
        if !self.is_down.swap(true, Ordering::Relaxed) {
            warn!("cannot send traces to {server}: {refused}; calls go on");
        }
    }
}

/// Host and port of a request. The rest of the URL and the headers may hold secrets.
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
        self.report(&server, &sent);
        Box::pin(std::future::ready(sent.map_err(HttpError::from)))
    }
}
