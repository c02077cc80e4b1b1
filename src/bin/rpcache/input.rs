//! What is asked for, as a stream: numbers from the command line and from stdin, one after another.

use std::fmt;

use futures_util::future::Either;
use futures_util::{Stream, StreamExt as _, stream};
use rpcache::fibonacci::N;
use rpcache::{Error, ErrorCode};
use tokio_util::codec::{FramedRead, LinesCodec, LinesCodecError};

use crate::values::{Asked, Input};

/// No number or range is longer.
const LONGEST_LINE: usize = 1024;

/// What one answer is for.
#[derive(Debug, Clone)]
pub(crate) enum Label {
    Number(N),
    /// A line of stdin that is no number.
    Line(String),
}

impl fmt::Display for Label {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(n) => n.fmt(f),
            Self::Line(line) => line.escape_debug().fmt(f),
        }
    }
}

pub(crate) type Wanted = (Label, Result<N, Error>);

/// All that is asked for, in the order in which it was typed. Lines of stdin are read as they are
/// needed.
pub(crate) fn wanted(inputs: Vec<Input>) -> impl Stream<Item = Wanted> {
    stream::iter(inputs).flat_map(|input| match input {
        Input::Asked(asked) => Either::Left(stream::iter(numbers(asked))),
        Input::Stdin => Either::Right(lines()),
    })
}

fn numbers(asked: Asked) -> impl Iterator<Item = Wanted> {
    asked.numbers().map(|n| (Label::Number(n), Ok(n)))
}

fn lines() -> impl Stream<Item = Wanted> {
    let codec = LinesCodec::new_with_max_length(LONGEST_LINE);
    FramedRead::new(tokio::io::stdin(), codec)
        .filter(|line| {
            let blank = matches!(line, Ok(line) if line.trim().is_empty());
            std::future::ready(!blank)
        })
        .flat_map(|line| match line {
            Ok(line) => match line.trim().parse::<Asked>() {
                Ok(asked) => Either::Left(stream::iter(numbers(asked))),
                Err(reason) => Either::Right(refused(line, reason)),
            },
            Err(LinesCodecError::MaxLineLengthExceeded) => Either::Right(refused(
                "a line of stdin".to_owned(),
                format!("longer than {LONGEST_LINE} bytes"),
            )),
            Err(LinesCodecError::Io(error)) => {
                Either::Right(refused("stdin".to_owned(), error.to_string()))
            }
        })
}

fn refused(line: String, message: String) -> impl Stream<Item = Wanted> {
    let error = Error::Failed {
        code: ErrorCode::BadArgument,
        message,
    };
    stream::iter([(Label::Line(line), Err(error))])
}
