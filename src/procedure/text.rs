//! `Text`: a procedure that is known by name only, whose arguments and answers are not interpreted.

use super::{AnswerBytes, ArgumentForm, Cancel, ComputeError, Procedure};
use crate::procedure_name::ProcedureName;

/// Any procedure that other programs serve, known by its name alone: rpcache interprets neither its
/// arguments, beyond their [`ArgumentForm`], nor its answers, which are any bytes.
///
/// Answers are **not checked**: [`verify`](Procedure::verify) accepts every answer that has the
/// argument's key, so a peer that can write to the store or to the callback queue can falsify one. Where an
/// answer can be checked, implement [`Procedure`] for a type of your own.
///
/// It calls, and looks into the cache; it does not compute: a [`Worker`](crate::Worker) that serves it
/// answers every request as `failed`, unless it has a program that computes (`Worker::with_program`).
///
/// ```no_run
/// use rpcache::{ArgumentForm, CacheOptions, Client, ClientOptions, Procedure as _, Text};
///
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// let resize = Text::new("resize".parse()?, ArgumentForm::Json);
/// let argument = resize.parse_argument(r#"{ "width": 64, "image": "cat.png" }"#)?;
/// assert_eq!(argument, r#"{"image":"cat.png","width":64}"#);
///
/// let cache = CacheOptions::new("redis://localhost".parse()?);
/// let client = Client::new(resize, ClientOptions::new("amqp://localhost".parse()?, cache));
/// let found = client.call(argument).await?;
/// println!("{} bytes from {}", found.answer.as_bytes().len(), found.source);
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct Text {
    name: ProcedureName,
    form: ArgumentForm,
}

impl Text {
    /// The procedure of this name.
    #[must_use]
    pub fn new(name: ProcedureName, form: ArgumentForm) -> Self {
        Self { name, form }
    }

    /// How its arguments become canonical.
    #[must_use]
    pub fn form(&self) -> ArgumentForm {
        self.form
    }
}

impl Procedure for Text {
    /// The canonical text: make it by [`parse_argument`](Procedure::parse_argument).
    type Argument = String;
    type Answer = AnswerBytes;

    fn name(&self) -> &ProcedureName {
        &self.name
    }

    fn parse_argument(&self, text: &str) -> Result<String, String> {
        self.form.canonical(text).map_err(|error| error.to_string())
    }

    fn compute(&self, _: &String, _: &Cancel) -> Result<AnswerBytes, ComputeError> {
        Err(ComputeError::Failed(format!(
            "{} is not computed by this worker",
            self.name
        )))
    }

    fn verify(&self, _: &String, _: &AnswerBytes) -> bool {
        true
    }
}
