//! The arguments of a command as a stream: typed ones, and lines of stdin.

use std::fmt;
use std::io;

use futures_util::future::Either;
use futures_util::{Stream, StreamExt as _, stream};
use rpcache::{ArgumentForm, Error, ErrorCode};
use tokio_util::bytes::BytesMut;
use tokio_util::codec::{Decoder, FramedRead, LinesCodec, LinesCodecError};

use crate::answer::escaped;
use crate::procedure::{self, Arguments, Called};

/// No integer or range is longer.
const MAX_INTEGER_LINE: usize = 1024;

/// No request is longer.
const MAX_LINE: usize = 64 * 1024;

const BOM: char = '\u{feff}';

/// What a command was given, and the procedure that it is for.
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
    /// Whether the answers need their arguments beside them: there are several, or could be.
    pub(crate) fn are_many(&self) -> bool {
        match &self.inputs[..] {
            [Input::Arguments(arguments)] => arguments.is_range(),
            _ => true,
        }
    }

    /// How many arguments, if that is known.
    pub(crate) fn count(&self) -> Option<u64> {
        let each = |input: &Input| match input {
            Input::Arguments(arguments) => arguments.count(),
            Input::Stdin => None,
        };
        let mut counts = self.inputs.iter().map(each);
        counts.try_fold(0_u64, |sum, count| sum.checked_add(count?))
    }
}

/// What one answer is for.
#[derive(Debug, Clone)]
pub(crate) enum Label {
    Argument(String),
    /// A line of stdin that is no argument.
    Line(String),
}

impl Label {
    /// The argument's own text; of a line that is none, the line escaped.
    pub(crate) fn to_argument(&self) -> String {
        match self {
            Self::Argument(argument) => argument.clone(),
            Self::Line(line) => line.escape_debug().to_string(),
        }
    }
}

/// In one line, whatever it is.
impl fmt::Display for Label {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Argument(argument) => f.write_str(&escaped(argument)),
            Self::Line(line) => line.escape_debug().fmt(f),
        }
    }
}

pub(crate) type Wanted = (Label, Result<String, Error>);

/// All arguments in the order in which they were typed. Lines of stdin are read as they are needed.
pub(crate) fn wanted(form: ArgumentForm, inputs: Vec<Input>) -> impl Stream<Item = Wanted> {
    stream::iter(inputs).flat_map(move |input| match input {
        Input::Arguments(arguments) => Either::Left(stream::iter(each(arguments))),
        Input::Stdin => Either::Right(lines(form)),
    })
}

fn each(arguments: Arguments) -> impl Iterator<Item = Wanted> {
    let label = |argument: String| (Label::Argument(argument.clone()), Ok(argument));
    arguments.into_iter().map(label)
}

fn lines(form: ArgumentForm) -> impl Stream<Item = Wanted> {
    let longest = match form {
        ArgumentForm::Integer => MAX_INTEGER_LINE,
        _ => MAX_LINE,
    };
    let lines = Lines {
        codec: LinesCodec::new_with_max_length(longest),
        longest,
        is_at_start: true,
    };
    // White space may be part of a text.
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

/// Lines, where one that cannot be read is an item and not the end.
struct Lines {
    codec: LinesCodec,
    longest: usize,
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
                Ok(Some(Err(format!("longer than {} bytes", self.longest))))
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
