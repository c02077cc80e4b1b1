//! The spans of a call: a client's in the order in which they come, then a worker's.
//!
//! Kinds are OpenTelemetry's: `client` for what waits for another program, `producer` and `consumer` for a
//! request that is sent and taken, `internal` for the rest.

use std::fmt::Display;

use tracing::field::Empty;
use tracing::{Span, trace_span};

use super::context::TraceContext;
use super::{TARGET, set_parent};
use crate::procedure_name::ProcedureName;
use crate::queue::QueueName;
use crate::text::quote;

/// A whole call, as its caller sees it. The root, unless the caller is within a span of its own.
pub(crate) fn call(procedure: &ProcedureName, key: &impl Display) -> Span {
    trace_span!(
        target: TARGET,
        "call",
        otel.name = format!("call {procedure}"),
        otel.kind = "internal",
        rpcache.key = %key,
        rpcache.source = Empty,
        "error.type" = Empty,
        otel.status_code = Empty,
    )
}

/// The wait for the first connection to Redis.
pub(crate) fn connect_to_redis() -> Span {
    trace_span!(
        target: TARGET,
        "connect-redis",
        otel.name = "connect to Redis",
        otel.kind = "client",
        db.system.name = "redis",
    )
}

/// A command, or several in one round trip, by Redis' conventions.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Operation {
    Get,
    /// Of so many keys.
    Mget(usize),
    Set,
    Pipeline,
}

impl Operation {
    fn name(self) -> &'static str {
        match self {
            Self::Get => "GET",
            Self::Mget(_) => "MGET",
            Self::Set => "SET",
            Self::Pipeline => "PIPELINE",
        }
    }

    fn keys(self) -> Option<u64> {
        match self {
            // Conventions: a batch of one is none.
            Self::Mget(keys) => u64::try_from(keys).ok(),
            Self::Get | Self::Set | Self::Pipeline => None,
        }
    }
}

/// A look into Redis, and the check of what is there.
pub(crate) fn lookup(operation: Operation) -> Span {
    let name = operation.name();
    trace_span!(
        target: TARGET,
        "lookup",
        otel.name = name,
        otel.kind = "client",
        db.system.name = "redis",
        db.operation.name = name,
        db.operation.batch.size = operation.keys(),
        rpcache.step = "lookup",
        rpcache.result = Empty,
    )
}

/// The storing of an answer.
pub(crate) fn store(operation: Operation) -> Span {
    let name = operation.name();
    trace_span!(
        target: TARGET,
        "fill",
        otel.name = name,
        otel.kind = "client",
        db.system.name = "redis",
        db.operation.name = name,
        rpcache.step = "fill",
        rpcache.result = Empty,
    )
}

/// The wait for what is asked or computed for somebody else in the same process.
pub(crate) fn join() -> Span {
    trace_span!(
        target: TARGET,
        "shared-flight",
        otel.name = "wait for another call",
        otel.kind = "internal",
    )
}

/// From a request to its reply, with whatever has to be tried again.
pub(crate) fn request(conversation: &str) -> Span {
    trace_span!(
        target: TARGET,
        "request",
        otel.kind = "internal",
        messaging.system = "rabbitmq",
        messaging.message.conversation_id = conversation,
        rpcache.replied = Empty,
        "error.type" = Empty,
        otel.status_code = Empty,
    )
}

/// The wait for a session with the broker.
pub(crate) fn connect_to_rabbitmq() -> Span {
    trace_span!(
        target: TARGET,
        "connect-rabbitmq",
        otel.name = "connect to RabbitMQ",
        otel.kind = "client",
        messaging.system = "rabbitmq",
    )
}

/// From the publishing of a request until the broker confirms it; the parent of what its worker does.
pub(crate) fn send(queue: &str, conversation: &str, size: usize) -> Span {
    trace_span!(
        target: TARGET,
        "send",
        otel.name = format!("send {queue}"),
        otel.kind = "producer",
        messaging.system = "rabbitmq",
        messaging.operation.name = "send",
        messaging.operation.r#type = "send",
        messaging.destination.name = queue,
        messaging.message.conversation_id = conversation,
        messaging.message.body.size = size,
    )
}

/// A worker's share in a call: from the taking of a request until it is settled. What lies between its
/// parent's begin and its own is the wait in the queue, as far as the clocks of the two machines agree.
pub(crate) fn process(
    queue: &QueueName,
    correlation_id: Option<&[u8]>,
    body_size: usize,
    redelivered: bool,
    parent: Option<&TraceContext>,
) -> Span {
    let span = trace_span!(
        target: TARGET,
        "process",
        otel.name = format!("process {queue}"),
        otel.kind = "consumer",
        messaging.system = "rabbitmq",
        messaging.operation.name = "process",
        messaging.operation.r#type = "process",
        messaging.destination.name = %queue,
        messaging.message.conversation_id = correlation_id.map(quote),
        messaging.message.body.size = body_size,
        rpcache.redelivered = redelivered,
        rpcache.source = Empty,
        "error.type" = Empty,
        otel.status_code = Empty,
    );
    if let Some(parent) = parent {
        set_parent(&span, parent);
    }
    span
}

/// What a worker does for a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Work {
    /// The look into Redis, where need be together with the attempt to take the lease.
    Lookup,
    /// For another worker's answer.
    LeaseWait,
    /// For another request's flight in this worker.
    FlightWait,
    /// For a place to compute in; a suspect also for its turn.
    SlotWait,
    Compute,
    Fill,
}

impl Work {
    /// As it is told to callers.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Lookup => "lookup",
            Self::LeaseWait => "lease-wait",
            Self::FlightWait => "shared-flight",
            Self::SlotWait => "slot-wait",
            Self::Compute => "compute",
            Self::Fill => "fill",
        }
    }

    pub(super) fn span(self) -> Span {
        match self {
            // The cache has its own.
            Self::Lookup | Self::Fill => Span::none(),
            Self::LeaseWait => trace_span!(
                target: TARGET,
                "lease-wait",
                otel.name = "wait for another worker",
                otel.kind = "internal",
            ),
            Self::FlightWait => join(),
            Self::SlotWait => trace_span!(
                target: TARGET,
                "slot-wait",
                otel.name = "wait for a slot",
                otel.kind = "internal",
            ),
            Self::Compute => trace_span!(target: TARGET, "compute", otel.kind = "internal"),
        }
    }
}

/// The publishing of a reply until the broker confirms it. Nothing of the trace travels with it: so it is
/// no producer's. A callback queue's name is made up for one client, and says nothing.
pub(crate) fn reply() -> Span {
    trace_span!(
        target: TARGET,
        "reply",
        otel.name = "send (temporary)",
        otel.kind = "client",
        messaging.system = "rabbitmq",
        messaging.operation.name = "send",
        messaging.operation.r#type = "send",
        messaging.destination.temporary = true,
        messaging.destination.anonymous = true,
        rpcache.step = "reply",
    )
}
