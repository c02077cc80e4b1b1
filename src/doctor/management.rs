//! Asks RabbitMQ's management API about its cluster, see [`super::cluster`]: AMQP does not show it.

use std::future::poll_fn;
use std::pin::Pin;
use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use hyper::body::{Body as _, Incoming};
use hyper::client::conn::http1;
use hyper::{Request, StatusCode, header};
use hyper_util::rt::TokioIo;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde::de::DeserializeOwned;
use tokio::time::{Instant, timeout_at};

use super::cluster::{Cluster, MAX_QUEUES, NODE_COLUMNS, Node, QUEUE_COLUMNS, Queues};
use super::{Doctor, Found, Judged};
use crate::error::{Error, quote};
use crate::procedure::Procedure;
use crate::server_url::ManagementUrl;
use crate::transport;

/// Time limit for each request.
const DEADLINE: Duration = Duration::from_secs(5);

/// Limit of a response, in bytes.
const MAX_BODY: usize = 4 << 20;

impl<P: Procedure> Doctor<P> {
    pub(super) async fn amqp_cluster(&self) -> Judged {
        let Some(url) = &self.options.management else {
            return Judged::skipped(Found::Unknown(
                "AMQP does not show it, and no management API is given".to_owned(),
            ));
        };
        match url {
            Err(error) => Judged::failure(Found::NoAddress(error.clone())),
            Ok(url) => match self.cluster(url).await {
                Ok(cluster) => cluster.judge(&self.queue.to_string()),
                // Calls do not need it.
                Err(error) => Judged::warning(Found::Failed(error)),
            },
        }
    }

    async fn cluster(&self, url: &ManagementUrl) -> Result<Cluster, Error> {
        let Ok(amqp) = &self.options.amqp else {
            return Err(cannot_ask(url, "RabbitMQ's address is invalid".to_owned()));
        };
        let login = url.login(amqp);
        let vhost = encoded(amqp.vhost());
        let queue = encoded(&self.queue.to_string());
        let nodes: Option<Vec<Node>> =
            get(url, &login, &format!("/nodes?columns={NODE_COLUMNS}")).await?;
        let path = format!("/queues/{vhost}/{queue}?columns={QUEUE_COLUMNS}");
        let queue = get(url, &login, &path).await?;
        let path = format!("/queues/{vhost}?page=1&page_size={MAX_QUEUES}&columns={QUEUE_COLUMNS}");
        let queues: Option<Queues> = get(url, &login, &path).await?;
        Ok(Cluster {
            nodes: nodes.unwrap_or_default(),
            queue,
            queues: queues.map(|page| page.items).unwrap_or_default(),
        })
    }
}

fn encoded(part: &str) -> String {
    utf8_percent_encode(part, NON_ALPHANUMERIC).to_string()
}

fn cannot_ask(url: &ManagementUrl, reason: String) -> Error {
    Error::Unreachable {
        server: url.to_string(),
        reason,
    }
}

/// Gets a resource of the API; `None` if it does not exist.
async fn get<T: DeserializeOwned>(
    url: &ManagementUrl,
    login: &(String, String),
    path: &str,
) -> Result<Option<T>, Error> {
    let deadline = Instant::now() + DEADLINE;
    let (status, body) = match timeout_at(deadline, request(url, login, path, deadline)).await {
        Ok(answer) => answer?,
        Err(_elapsed) => {
            let reason = format!("no answer within {} s", DEADLINE.as_secs());
            return Err(cannot_ask(url, reason));
        }
    };
    match status {
        StatusCode::OK => match serde_json::from_slice(&body) {
            Ok(value) => Ok(Some(value)),
            Err(error) => {
                let reason = format!("not RabbitMQ's management API: {error}");
                Err(cannot_ask(url, quote(reason.as_bytes())))
            }
        },
        StatusCode::NOT_FOUND if is_json(&body) => Ok(None),
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Err(Error::Refused {
            server: url.to_string(),
            reason: quote(&body),
        }),
        _ => Err(cannot_ask(
            url,
            format!("it answers with the status {status}"),
        )),
    }
}

fn is_json(body: &[u8]) -> bool {
    serde_json::from_slice::<&serde_json::value::RawValue>(body).is_ok()
}

async fn request(
    url: &ManagementUrl,
    (user, password): &(String, String),
    path: &str,
    deadline: Instant,
) -> Result<(StatusCode, Vec<u8>), Error> {
    let stream = transport::connect(
        &url.endpoint,
        url.endpoint.host(),
        url.tls.as_ref(),
        deadline,
    )
    .await
    .map_err(|fault| fault.into_error(url.to_string(), DEADLINE))?;
    let http = |error: hyper::Error| cannot_ask(url, quote(error.to_string().as_bytes()));
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(http)?;
    let mut basic = header::HeaderValue::try_from(format!(
        "Basic {}",
        BASE64_STANDARD.encode(format!("{user}:{password}"))
    ))
    .map_err(|error| cannot_ask(url, error.to_string()))?;
    basic.set_sensitive(true);
    let request = Request::get(format!("{}/api{path}", url.prefix))
        .header(header::HOST, url.endpoint.to_string())
        .header(header::AUTHORIZATION, basic)
        .body(String::new())
        .map_err(|error| cannot_ask(url, error.to_string()))?;
    let exchange = async {
        let response = sender.send_request(request).await.map_err(http)?;
        let status = response.status();
        let body = read(response.into_body()).await.map_err(http)?;
        let body = body.ok_or_else(|| {
            cannot_ask(
                url,
                format!("its answer is longer than {} MB", MAX_BODY >> 20),
            )
        })?;
        Ok((status, body))
    };
    tokio::select! {
        answer = exchange => answer,
        // The connection ends with an error, or once the exchange has ended.
        Err(error) = connection => Err(http(error)),
    }
}

/// Reads a body; `None` if it is too long.
async fn read(mut body: Incoming) -> hyper::Result<Option<Vec<u8>>> {
    let mut bytes = Vec::new();
    while let Some(frame) = poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await {
        if let Ok(data) = frame?.into_data() {
            if bytes.len() + data.len() > MAX_BODY {
                return Ok(None);
            }
            bytes.extend_from_slice(&data);
        }
    }
    Ok(Some(bytes))
}
