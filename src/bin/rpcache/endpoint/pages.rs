//! The pages of the endpoint: a pure function from method, path and Accept header to a response.

use hyper::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use hyper::{Method, Response, StatusCode};
use rpcache::{Metrics, MetricsFormat, Procedure, Readiness, Worker, WorkerHealth};

const PLAIN: &str = "text/plain; charset=utf-8";

/// The pages of a worker:
///
/// - `/metrics`: its metrics, in the format that the scraper accepts;
/// - `/healthz`: 200 while the process is alive; without a response, it hangs;
/// - `/readyz`: 200 while it takes requests, otherwise 503 and the reason.
pub(crate) struct Pages {
    metrics: Metrics,
    health: WorkerHealth,
}

impl Pages {
    pub(crate) fn of<P: Procedure>(worker: &Worker<P>) -> Self {
        Self {
            metrics: worker.metrics(),
            health: worker.health(),
        }
    }

    pub(super) fn answer(&self, method: &Method, path: &str, accept: &str) -> Response<String> {
        match path {
            "/metrics" | "/healthz" | "/readyz" if !is_read(method) => {
                let allowed = HeaderValue::from_static("GET, HEAD");
                let why = "only GET and HEAD are allowed".to_owned();
                let mut refused = plain(StatusCode::METHOD_NOT_ALLOWED, why);
                refused.headers_mut().insert(ALLOW, allowed);
                refused
            }
            "/metrics" => {
                let format = MetricsFormat::accepted_by(accept);
                let body = self.metrics.encode(format);
                page(StatusCode::OK, format.content_type(), body)
            }
            "/healthz" => plain(StatusCode::OK, "alive".to_owned()),
            "/readyz" => self.readiness(),
            _ => {
                let pages = "not found; the pages are /metrics, /healthz and /readyz".to_owned();
                plain(StatusCode::NOT_FOUND, pages)
            }
        }
    }

    fn readiness(&self) -> Response<String> {
        match self.health.readiness() {
            Readiness::Ready => plain(StatusCode::OK, "ready".to_owned()),
            Readiness::Degraded(how) => plain(StatusCode::OK, format!("ready, degraded: {how}")),
            Readiness::NotReady(why) => {
                plain(StatusCode::SERVICE_UNAVAILABLE, format!("not ready: {why}"))
            }
            // The enum is non-exhaustive: an unknown state counts as not ready.
            other => plain(StatusCode::SERVICE_UNAVAILABLE, format!("{other:?}")),
        }
    }
}

fn is_read(method: &Method) -> bool {
    matches!(*method, Method::GET | Method::HEAD)
}

/// A response of one line of text.
fn plain(status: StatusCode, line: String) -> Response<String> {
    page(status, PLAIN, line + "\n")
}

fn page(status: StatusCode, content_type: &'static str, body: String) -> Response<String> {
    let mut page = Response::new(body);
    *page.status_mut() = status;
    let headers = page.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    // The state of this moment must not be cached.
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    page
}

#[cfg(test)]
mod tests {
    use super::*;
    use rpcache::fibonacci::Fibonacci;
    use rpcache::{CacheOptions, WorkerOptions};

    fn pages() -> Pages {
        let cache = CacheOptions::new("redis://localhost".parse().unwrap());
        let options = WorkerOptions::new("amqp://localhost".parse().unwrap(), cache);
        Pages::of(&Worker::new(Fibonacci::default(), options))
    }

    fn get(path: &str) -> (u16, String) {
        let page = pages().answer(&Method::GET, path, "");
        (page.status().as_u16(), page.into_body())
    }

    #[test]
    fn a_worker_that_has_not_started_is_alive_and_not_ready() {
        assert_eq!(get("/healthz"), (200, "alive\n".to_owned()));
        let not_yet = "not ready: not connected to RabbitMQ yet\n";
        assert_eq!(get("/readyz"), (503, not_yet.to_owned()));
        let (status, body) = get("/metrics");
        assert_eq!(status, 200);
        assert!(body.contains("rpcache_broker_up{procedure=\"fib\",role=\"worker\"} 0\n"));
    }

    #[test]
    fn metrics_come_in_the_format_that_is_asked_for() {
        let content_type = |accept| {
            let page = pages().answer(&Method::GET, "/metrics", accept);
            page.headers()[CONTENT_TYPE].to_str().unwrap().to_owned()
        };
        assert!(content_type("*/*").starts_with("text/plain; version=0.0.4"));
        let open = "application/openmetrics-text; version=1.0.0";
        assert!(content_type(open).starts_with(open));
    }

    #[test]
    fn other_pages_and_methods_are_refused() {
        for path in ["/", "", "/metrics/", "/metrics2", "*"] {
            assert_eq!(get(path).0, 404, "{path}");
        }
        for path in ["/metrics", "/healthz", "/readyz"] {
            for method in [Method::POST, Method::DELETE, Method::OPTIONS] {
                let page = pages().answer(&method, path, "");
                assert_eq!(page.status().as_u16(), 405, "{method} {path}");
                assert_eq!(page.headers()[ALLOW], "GET, HEAD");
            }
            assert_ne!(pages().answer(&Method::HEAD, path, "").status(), 405);
        }
    }
}
