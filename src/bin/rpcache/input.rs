//! What is asked for, as a stream: numbers from the command line and from stdin, one after another.

use std::fmt;
use std::io;

use futures_util::future::Either;
use futures_util::{Stream, StreamExt as _, stream};
use rpcache::fibonacci::N;
use rpcache::{Error, ErrorCode};
use tokio_util::bytes::BytesMut;
use tokio_util::codec::{Decoder, FramedRead, LinesCodec, LinesCodecError};

use crate::values::{Asked, Input};

/// No number or range is longer.
const LONGEST_LINE: usize = 1024;

const BOM: char = '\u{feff}';

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
    let lines = Lines {
        codec: LinesCodec::new_with_max_length(LONGEST_LINE),
        is_at_start: true,
    };
    FramedRead::new(tokio::io::stdin(), lines)
        .filter(|line| {
            let blank = matches!(line, Ok(Ok(line)) if line.trim().is_empty());
            std::future::ready(!blank)
        })
        .flat_map(|line| match line {
            Ok(Ok(line)) => match line.trim().parse::<Asked>() {
                Ok(asked) => Either::Left(stream::iter(numbers(asked))),
                Err(reason) => Either::Right(refused(line, reason)),
            },
            Ok(Err(reason)) => Either::Right(refused("a line of stdin".to_owned(), reason)),
            Err(error) => Either::Right(refused("stdin".to_owned(), error.to_string())),
        })
}

/// Lines, where one that cannot be read is an item and not the end.
struct Lines {
    codec: LinesCodec,
    is_at_start: bool,
}

impl Lines {
    fn item(
        &mut self,
        line: Result<Option<String>, LinesCodecError>,
    ) -> io::Result<Option<Result<String, String>>> {
        if matches!(line, Ok(None)) {
            return Ok(None);
        }
        let is_first = std::mem::take(&mut self.is_at_start);
        match line {
            // Editors and shells of Windows put a byte order mark before UTF-8 text.
            Ok(line) if is_first => {
                Ok(line.map(|line| Ok(line.strip_prefix(BOM).unwrap_or(&line).to_owned())))
            }
            Ok(line) => Ok(line.map(Ok)),
            Err(LinesCodecError::MaxLineLengthExceeded) => {
                Ok(Some(Err(format!("longer than {LONGEST_LINE} bytes"))))
            }
            Err(LinesCodecError::Io(error)) if error.kind() == io::ErrorKind::InvalidData => {
                Ok(Some(Err("not UTF-8 text".to_owned())))
            }
            Err(LinesCodecError::Io(error)) => Err(error),
        }
    }
}

impl Decoder for Lines {
    type Item = Result<String, String>;
    type Error = io::Error;

    fn decode(&mut self, text: &mut BytesMut) -> io::Result<Option<Self::Item>> {
        let line = self.codec.decode(text);
        self.item(line)
    }

    fn decode_eof(&mut self, text: &mut BytesMut) -> io::Result<Option<Self::Item>> {
        let line = self.codec.decode_eof(text);
        self.item(line)
    }
}

fn refused(line: String, message: String) -> impl Stream<Item = Wanted> {
    let error = Error::Failed {
        code: ErrorCode::BadArgument,
        message,
    };
    stream::iter([(Label::Line(line), Err(error))])
}
