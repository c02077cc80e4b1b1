//! The minimal program for one answer from Redis: connect, GET, print. A limit for
//! `scripts/bench hit-command`.

use std::error::Error;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut args = std::env::args().skip(1).filter(|arg| arg != "--bench");
    let (Some(url), Some(key)) = (args.next(), args.next()) else {
        return Ok(()); // cargo's own look
    };
    let mut connection = redis::Client::open(url)?
        .get_multiplexed_async_connection()
        .await?;
    let answer: String = redis::cmd("GET")
        .arg(key)
        .query_async(&mut connection)
        .await?;
    println!("{answer}");
    std::process::exit(0)
}
