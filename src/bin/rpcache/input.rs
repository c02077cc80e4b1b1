//! Reads the arguments of a command as a stream, from the command line and from lines of stdin.

use std::fmt;
use std::io;

use futures_util::future::Either;
use futures_util::{Stream, StreamExt as _, stream};
use rpcache::{ArgumentForm, Error, ErrorCode};
use tokio_util::bytes::BytesMut;
use tokio_util::codec::{Decoder, FramedRead, LinesCodec, LinesCodecError};

use crate::answer::escaped;
use crate::procedure::{self, Arguments, Called};

/// Limit of a line with an integer or a range, in bytes.
const MAX_INTEGER_LINE: usize = 1024;

/// Limit of any other line, in bytes; requests have the same.
const MAX_LINE: usize = 64 * 1024;

const BOM: char = '\u{feff}';

/// The arguments of a command, and their procedure.
#[derive(Debug)]
pub(crate) struct Inputs {
    pub(crate) called: Called,
    pub(crate) inputs: Vec<Input>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Input {
    Arguments(Arguments),
    /// `-`: the lines of stdin.
    Stdin,
}

impl Inputs {
    /// Whether there may be several answers. Then each is printed beside its argument.
    pub(crate) fn are_many(&self) -> bool {
        match &self.inputs[..] {
            [Input::Arguments(arguments)] => arguments.is_range(),
            _ => true,
        }
    }

    /// Number of arguments; `None` if stdin is among them.
    pub(crate) fn count(&self) -> Option<u64> {
        let each = |input: &Input| match input {
            Input::Arguments(arguments) => arguments.count(),
            Input::Stdin => None,
        };
        let mut counts = self.inputs.iter().map(each);
        counts.try_fold(0_u64, |sum, count| sum.checked_add(count?))
    }
}

/// Names the input that an answer or an error belongs to.
#[derive(Debug, Clone)]
pub(crate) enum Label {
    Argument(String),
    /// A line of stdin that is not an argument.
    Line(String),
}

impl Label {
    /// The argument's text, or the escaped line.
    pub(crate) fn to_argument(&self) -> String {
        match self {
            Self::Argument(argument) => argument.clone(),
            Self::Line(line) => line.escape_debug().to_string(),
        }
    }
}

/// Escaped, so that it fits one line.
impl fmt::Display for Label {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Argument(argument) => f.write_str(&escaped(argument)),
            Self::Line(line) => line.escape_debug().fmt(f),
        }
    }
}

/// One argument to call for, or why the input is not one.
pub(crate) type Parsed = (Label, Result<String, Error>);

/// Streams all arguments in the order of the command line. Lines of stdin are read when they are needed.
pub(crate) fn parsed(form: ArgumentForm, inputs: Vec<Input>) -> impl Stream<Item = Parsed> {
    stream::iter(inputs).flat_map(move |input| match input {
        Input::Arguments(arguments) => Either::Left(stream::iter(each(arguments))),
        Input::Stdin => Either::Right(lines(form)),
    })
}

fn each(arguments: Arguments) -> impl Iterator<Item = Parsed> {
    let label = |argument: String| (Label::Argument(argument.clone()), Ok(argument));
    arguments.into_iter().map(label)
}

fn lines(form: ArgumentForm) -> impl Stream<Item = Parsed> {
    let max_length = match form {
        ArgumentForm::Integer => MAX_INTEGER_LINE,
        _ => MAX_LINE,
    };
    let lines = Lines {
        codec: LinesCodec::new_with_max_length(max_length),
        max_length,
        is_at_start: true,
    };
    // In a text, white space is significant.
    let argument = move |line: &str| {
        let is_text = form == ArgumentForm::Text;
        let line = if is_text { line } else { line.trim() };
        line.to_owned()
    };
    FramedRead::new(tokio::io::stdin(), lines)
        .filter(move |line| {
            let blank = matches!(line, Ok(Ok(line)) if argument(line).is_empty());
            std::future::ready(!blank)
        })
        .flat_map(move |line| match line {
            Ok(Ok(line)) => match procedure::read(form, &argument(&line)) {
                Ok(arguments) => Either::Left(stream::iter(each(arguments))),
                Err(reason) => Either::Right(refused(line, reason)),
            },
            Ok(Err(reason)) => Either::Right(refused("a line of stdin".to_owned(), reason)),
            Err(error) => Either::Right(refused("stdin".to_owned(), error.to_string())),
        })
}

/// Splits stdin into lines. A line that is too long or not UTF-8 is an item; the next line is read after it.
struct Lines {
    codec: LinesCodec,
    max_length: usize,
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
            // Editors and shells on Windows write a byte order mark before UTF-8 text.
            Ok(line) if is_first => {
                Ok(line.map(|line| Ok(line.strip_prefix(BOM).unwrap_or(&line).to_owned())))
            }
            Ok(line) => Ok(line.map(Ok)),
            Err(LinesCodecError::MaxLineLengthExceeded) => {
                Ok(Some(Err(format!("longer than {} bytes", self.max_length))))
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

fn refused(line: String, message: String) -> impl Stream<Item = Parsed> {
    let error = Error::Failed {
        code: ErrorCode::BadArgument,
        message,
    };
    stream::iter([(Label::Line(line), Err(error))])
}
