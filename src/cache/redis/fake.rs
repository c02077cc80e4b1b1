//! A fake Redis in this process, for tests of which commands it is sent and when: time can be paused.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::io::{BufReader, DuplexStream};
use tokio_util::task::AbortOnDropHandle;

use super::RedisStore;
use super::connection::Connection;
use super::nodes::{Node, Nodes};
use crate::cache::store::Store;
use crate::cache::{Cache, CacheOptions};
use crate::counts::CacheCounts;

/// Of the cache in front of it. Long, so that other waits do not hide it.
pub(crate) const BUDGET: Duration = Duration::from_secs(2);

/// Remembers each command. Holds nothing.
pub(crate) struct FakeRedis {
    commands: Commands,
    _serves: AbortOnDropHandle<()>,
}

type Commands = Arc<Mutex<Vec<String>>>;

impl FakeRedis {
    /// One that answers at once, and the cache in front of it.
    pub(crate) async fn answering() -> (Self, Cache) {
        Self::start(true).await
    }

    /// One that takes everything and never answers.
    pub(crate) async fn silent() -> (Self, Cache) {
        Self::start(false).await
    }

    async fn start(answers: bool) -> (Self, Cache) {
        let (ours, theirs) = tokio::io::duplex(1 << 16);
        let commands = Commands::default();
        let serves = tokio::spawn(serve(theirs, Arc::clone(&commands), answers));
        let redis = Self {
            commands,
            _serves: AbortOnDropHandle::new(serves),
        };
        let options = CacheOptions {
            budget: BUDGET,
            ..CacheOptions::new("redis://localhost".parse().unwrap())
        };
        let connection = Connection::over(ours, options.budget).await;
        let counts = Arc::<CacheCounts>::default();
        counts.redis.up();
        let endpoint = options.url.endpoint().clone();
        let node = Node::new(endpoint, connection, Arc::default(), options.budget);
        let nodes = Nodes::One(Arc::new(node));
        let store = RedisStore::over(&options, nodes, Arc::clone(&counts));
        (redis, Cache::over(options, Store::Redis(store), counts))
    }

    /// How many commands with all these words it was sent.
    pub(crate) fn heard(&self, words: &[&str]) -> usize {
        let commands = self.commands.lock().unwrap();
        let heard = |command: &&String| words.iter().all(|word| command.contains(word));
        commands.iter().filter(heard).count()
    }
}

async fn serve(stream: DuplexStream, commands: Commands, answers: bool) {
    let mut stream = BufReader::new(stream);
    while let Some(command) = command(&mut stream).await {
        let answer = match command.split_once(' ').map_or("", |(name, _)| name) {
            "GET" | "SET" => "$-1\r\n",
            _ => ":1\r\n",
        };
        commands.lock().unwrap().push(command);
        if answers && stream.write_all(answer.as_bytes()).await.is_err() {
            return;
        }
    }
}

/// Its words, with spaces between them; `None` when there are no more.
pub(super) async fn command(stream: &mut BufReader<DuplexStream>) -> Option<String> {
    let mut words = Vec::new();
    for _ in 0..number(stream, '*').await? {
        let length = usize::try_from(number(stream, '$').await?).unwrap();
        let mut word = vec![0; length + 2];
        stream.read_exact(&mut word).await.ok()?;
        words.push(String::from_utf8_lossy(&word[..length]).into_owned());
    }
    Some(words.join(" "))
}

async fn number(stream: &mut BufReader<DuplexStream>, mark: char) -> Option<u64> {
    let mut line = String::new();
    stream.read_line(&mut line).await.ok()?;
    line.trim_end().strip_prefix(mark)?.parse().ok()
}
