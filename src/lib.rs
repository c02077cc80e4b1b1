//! rpcache
#![warn(missing_docs)]

mod broker;
mod cache;
mod client;
mod error;
pub mod fibonacci;
mod message;
mod procedure;
mod queue;
mod requester;
mod server_url;
mod single_flight;
mod worker;

pub use broker::Declare;
pub use cache::{Cache, CacheOptions, Namespace, NamespaceError, Stored};
pub use client::{Answered, CallOptions, Client, ClientOptions};
pub use error::{Error, ErrorCode};
pub use message::{CacheUse, ReplyPattern, ReplyPatternError, Source};
pub use procedure::{Cancel, ComputeError, Procedure};
pub use queue::{QueueName, QueueNameError};
pub use server_url::{AmqpUrl, RedisUrl, UrlError};
pub use worker::{Stopped, Worker, WorkerOptions};
