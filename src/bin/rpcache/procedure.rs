//! The procedure that a command calls: Fibonacci, or any other by its name. Parses arguments and ranges.

use std::ops::RangeInclusive;

use rpcache::fibonacci::{Decimal, Fibonacci, N};
use rpcache::{
    Answer, AnswerBytes, ArgumentForm, Cancel, ComputeError, Procedure, ProcedureName, Text,
};

/// The procedure that `--procedure` names. Everything special about Fibonacci is decided here.
#[derive(Debug)]
pub(crate) enum Called {
    Fibonacci(Fibonacci),
    Text(Text),
}

/// An answer: a number that can be verified for Fibonacci, otherwise bytes.
#[derive(Debug, Clone)]
pub(crate) enum CalledAnswer {
    Decimal(Decimal),
    Bytes(AnswerBytes),
}

/// The arguments in one word of the command line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Arguments {
    /// The canonical text of one argument.
    One(String),
    /// Whole numbers from the first to the last.
    Range(RangeInclusive<u64>),
}

const FIB: &str = "fib";

impl Called {
    /// Without a form, arguments are integers for Fibonacci and text for any other procedure.
    pub(crate) fn new(name: ProcedureName, form: Option<ArgumentForm>) -> Result<Self, String> {
        match (name.as_str(), form) {
            (FIB, None | Some(ArgumentForm::Integer)) => Ok(Self::Fibonacci(Fibonacci::default())),
            (FIB, Some(form)) => Err(format!("--argument {form}: fib takes an integer")),
            (_, form) => Ok(Self::Text(Text::new(name, form.unwrap_or_default()))),
        }
    }

    pub(crate) fn is_fibonacci(&self) -> bool {
        matches!(self, Self::Fibonacci(_))
    }

    /// The form of the arguments.
    pub(crate) fn form(&self) -> ArgumentForm {
        match self {
            Self::Fibonacci(_) => ArgumentForm::Integer,
            Self::Text(text) => text.form(),
        }
    }
}

/// Parses a word of the command line: an argument or, if arguments are integers, a range.
pub(crate) fn read(form: ArgumentForm, typed: &str) -> Result<Arguments, String> {
    match form {
        ArgumentForm::Integer => integers(typed),
        form => canonical(form, typed).map(Arguments::One),
    }
}

fn canonical(form: ArgumentForm, typed: &str) -> Result<String, String> {
    form.canonical(typed).map_err(|error| error.to_string())
}

/// Parses an integer, or an inclusive range such as `0..100`.
pub(crate) fn integers(typed: &str) -> Result<Arguments, String> {
    let Some((first, last)) = typed.split_once("..") else {
        return canonical(ArgumentForm::Integer, typed).map(Arguments::One);
    };
    let (Ok(N(first)), Ok(N(last))) = (first.parse(), last.parse()) else {
        return Err(format!(
            "{typed:?} is not a range of whole numbers such as 0..100"
        ));
    };
    if first > last {
        return Err(format!("{typed:?} is empty; did you mean {last}..{first}?"));
    }
    Ok(Arguments::Range(first..=last))
}

impl Arguments {
    pub(crate) fn is_range(&self) -> bool {
        matches!(self, Self::Range(_))
    }

    /// Number of arguments, if it fits.
    pub(crate) fn count(&self) -> Option<u64> {
        match self {
            Self::One(_) => Some(1),
            Self::Range(range) => (range.end() - range.start()).checked_add(1),
        }
    }
}

impl IntoIterator for Arguments {
    type Item = String;
    type IntoIter = Box<dyn Iterator<Item = String> + Send>;

    fn into_iter(self) -> Self::IntoIter {
        match self {
            Self::One(argument) => Box::new(std::iter::once(argument)),
            Self::Range(range) => Box::new(range.map(|n| n.to_string())),
        }
    }
}

impl Procedure for Called {
    type Argument = String;
    type Answer = CalledAnswer;

    fn name(&self) -> &ProcedureName {
        match self {
            Self::Fibonacci(fibonacci) => fibonacci.name(),
            Self::Text(text) => text.name(),
        }
    }

    fn parse_argument(&self, text: &str) -> Result<String, String> {
        canonical(self.form(), text)
    }

    fn parse_answer(&self, bytes: &[u8]) -> Option<CalledAnswer> {
        match self {
            Self::Fibonacci(_) => Decimal::from_bytes(bytes).map(CalledAnswer::Decimal),
            Self::Text(_) => CalledAnswer::from_bytes(bytes),
        }
    }

    fn compute(&self, argument: &String, cancel: &Cancel) -> Result<CalledAnswer, ComputeError> {
        match self {
            Self::Fibonacci(fibonacci) => {
                let n = fibonacci.parse_argument(argument);
                let n = n.map_err(ComputeError::BadArgument)?;
                fibonacci.compute(&n, cancel).map(CalledAnswer::Decimal)
            }
            Self::Text(text) => text.compute(argument, cancel).map(CalledAnswer::Bytes),
        }
    }

    fn verify(&self, argument: &String, answer: &CalledAnswer) -> bool {
        match (self, answer) {
            (Self::Fibonacci(fibonacci), CalledAnswer::Decimal(decimal)) => argument
                .parse()
                .is_ok_and(|n| fibonacci.verify(&n, decimal)),
            (Self::Fibonacci(_), CalledAnswer::Bytes(_)) => false,
            (Self::Text(_), _) => true,
        }
    }
}

impl CalledAnswer {
    /// The bytes as they are stored.
    pub(crate) fn as_bytes(&self) -> &[u8] {
        match self {
            Self::Decimal(decimal) => decimal.as_str().as_bytes(),
            Self::Bytes(bytes) => bytes.as_bytes(),
        }
    }

    /// The answer as text, if it is UTF-8.
    pub(crate) fn as_text(&self) -> Option<&str> {
        match self {
            Self::Decimal(decimal) => Some(decimal.as_str()),
            Self::Bytes(bytes) => bytes.as_text(),
        }
    }
}

impl Answer for CalledAnswer {
    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        AnswerBytes::from_bytes(bytes).map(Self::Bytes)
    }

    fn to_bytes(&self) -> Vec<u8> {
        self.as_bytes().to_vec()
    }

    fn byte_len(&self) -> usize {
        self.as_bytes().len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn called(name: &str, form: Option<ArgumentForm>) -> Result<Called, String> {
        Called::new(name.parse().expect("a name"), form)
    }

    fn read(name: &str, form: ArgumentForm, typed: &str) -> Result<Vec<String>, String> {
        let form = called(name, Some(form))?.form();
        let arguments = super::read(form, typed)?;
        Ok(arguments.into_iter().collect())
    }

    #[test]
    fn integers_have_ranges_and_others_do_not() {
        let (integer, text) = (ArgumentForm::Integer, ArgumentForm::Text);
        for name in ["fib", "factors"] {
            assert_eq!(read(name, integer, "030"), Ok(vec!["30".to_owned()]));
            let range = vec!["8".to_owned(), "9".to_owned(), "10".to_owned()];
            assert_eq!(read(name, integer, "8..10"), Ok(range));
            assert!(read(name, integer, "x").is_err());
        }
        assert_eq!(read("factors", text, "8..10"), Ok(vec!["8..10".to_owned()]));
        assert_eq!(
            read("resize", ArgumentForm::Json, "{\"b\": 1, \"a\": 2}"),
            Ok(vec![r#"{"a":2,"b":1}"#.to_owned()])
        );
    }

    #[test]
    fn an_error_says_what_to_type() {
        let message = |typed| integers(typed).expect_err("it is refused");
        assert_eq!(message("5..3"), r#""5..3" is empty; did you mean 3..5?"#);
        assert!(message("0..").ends_with("is not a range of whole numbers such as 0..100"));
        assert_eq!(
            called("fib", Some(ArgumentForm::Json)).expect_err("it is refused"),
            "--argument json: fib takes an integer"
        );
    }

    #[test]
    fn fibonacci_is_verified_and_others_are_not() {
        let fib = called("fib", None).expect("it is known");
        let verifies = |answer: &[u8]| {
            let answer = fib.parse_answer(answer)?;
            Some(fib.verify(&"30".to_owned(), &answer))
        };
        assert_eq!(verifies(b"832040"), Some(true));
        assert_eq!(verifies(b"832041"), Some(false));
        assert_eq!(verifies(b"\xff"), None);
        let other = called("thumb", None).expect("any name is");
        let answer = other.parse_answer(b"\xff").expect("any bytes are");
        assert!(other.verify(&"30".to_owned(), &answer));
    }
}
