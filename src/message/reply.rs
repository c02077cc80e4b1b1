//! Replies: what a worker writes and a client reads.

use std::sync::Arc;

use lapin::BasicProperties;
use lapin::message::Delivery;
use uuid::Uuid;

use super::{
    CorrelationId, ERROR_HEADER, FILLED_HEADER, Failure, SOURCE_HEADER, TRACE_HEADER,
    correlation_id, header, headers, insert, oversized,
};
use crate::broker::{CORRELATION_BYTES, MAX_BODY};
use crate::error::ErrorCode;
use crate::procedure_name::ProcedureName;
use crate::source::Source;
use crate::text::quote;
use crate::trace::steps::Steps;

/// The beginning of a failure's body: a program that does not know the headers must not take it for an answer.
const FAILURE_PREFIX: &str = "error: ";

/// A reply, as a worker writes it and a client reads it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Reply {
    /// The answer, or why there is none. Shared by all requests of one flight.
    pub(crate) outcome: Result<Arc<Vec<u8>>, Failure>,
    /// Where the answer came from; unknown if the worker is not rpcache's.
    pub(crate) source: Option<Source>,
    /// Whether the answer is stored; unknown if the worker is not rpcache's.
    pub(crate) filled: Option<bool>,
    /// How long the worker's steps took, if the request asked.
    pub(crate) steps: Option<Box<Steps>>,
}

impl Reply {
    pub(crate) fn failure(failure: Failure) -> Self {
        Self {
            outcome: Err(failure),
            source: None,
            filled: None,
            steps: None,
        }
    }

    /// Whether it comes from a program other than rpcache.
    pub(crate) fn is_foreign(&self) -> bool {
        self.source.is_none() && self.filled.is_none()
    }

    /// Whether the request expired before it was computed.
    pub(crate) fn is_expired(&self) -> bool {
        matches!(&self.outcome, Err(failure) if failure.code == ErrorCode::Expired)
    }

    /// Body and properties. `id` is the request's correlation id, the only property that is copied.
    pub(crate) fn write(self, id: Option<&CorrelationId>) -> (Arc<Vec<u8>>, BasicProperties) {
        let (body, mut headers) = match self.outcome {
            Ok(body) => {
                let source = self.source.unwrap_or(Source::Computed).as_str();
                let filled = if self.filled == Some(true) {
                    "true"
                } else {
                    "false"
                };
                (
                    body,
                    headers([(SOURCE_HEADER, source), (FILLED_HEADER, filled)]),
                )
            }
            Err(failure) => (
                Arc::new(
                    format!("{FAILURE_PREFIX}{}", quote(failure.message.as_bytes())).into_bytes(),
                ),
                headers([(ERROR_HEADER, failure.code.as_str())]),
            ),
        };
        if let Some(steps) = self.steps {
            insert(&mut headers, TRACE_HEADER, steps.to_string());
        }
        let mut properties = BasicProperties::default();
        match id {
            Some(CorrelationId::Text(id)) => {
                properties = properties.with_correlation_id(id.clone());
            }
            Some(CorrelationId::Bytes(id)) => {
                insert(&mut headers, CORRELATION_BYTES, id.as_slice());
            }
            None => {}
        }
        (body, properties.with_headers(headers))
    }

    /// The correlation id and the reply. `None` if the id cannot be one of this process.
    pub(crate) fn read(delivery: Delivery) -> Option<(Uuid, Self)> {
        let id = correlation_id(&delivery.properties)?;
        let properties = &delivery.properties;
        let oversized = oversized(properties).map(|size| Failure {
            code: ErrorCode::TooLarge,
            message: format!("the reply has {size} bytes, this client takes {MAX_BODY} at most"),
        });
        let failure = header(properties, ERROR_HEADER).map(|code| Failure {
            // A later version may have added a code: it is a failure nevertheless.
            code: std::str::from_utf8(code)
                .ok()
                .and_then(|code| code.parse().ok())
                .unwrap_or(ErrorCode::Failed),
            message: failure_message(&delivery.data),
        });
        let reply = Self {
            source: match header(properties, SOURCE_HEADER) {
                Some(b"cache") => Some(Source::Cache),
                Some(b"shared") => Some(Source::Shared),
                Some(b"computed") => Some(Source::Computed),
                _ => None,
            },
            filled: header(properties, FILLED_HEADER).map(|filled| filled == b"true"),
            steps: header(properties, TRACE_HEADER)
                .and_then(Steps::read)
                .map(Box::new),
            outcome: match oversized.or(failure) {
                Some(failure) => Err(failure),
                None => Ok(Arc::new(delivery.data)),
            },
        };
        Some((id, reply))
    }
}

impl Failure {
    /// The procedure panicked. The panic's message has gone to stderr; the caller is sent no internals.
    pub(crate) fn panicked(procedure: &ProcedureName) -> Self {
        Self {
            code: ErrorCode::Failed,
            message: format!("{procedure} panicked"),
        }
    }
}

/// The message of a failure, from the reply's body.
fn failure_message(body: &[u8]) -> String {
    match body.strip_prefix(FAILURE_PREFIX.as_bytes()).unwrap_or(body) {
        [] => "the worker gives no reason".to_owned(),
        message => quote(message),
    }
}
