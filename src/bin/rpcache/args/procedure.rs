//! The arguments of a command, and the options for their procedure and their form.

use clap::{Args as Group, ValueEnum};
use rpcache::{ArgumentForm, ProcedureName};

use crate::input::{Input, Inputs};
use crate::output::{Failure, misuse};
use crate::procedure::{self, Arguments, Called};

// Groups have no doc comments here: that of a flattened group would replace the command's description.

// Arguments from the command line alone.
#[derive(Debug, Group)]
pub(crate) struct ArgumentList {
    /// Arguments; for fib, and with --argument integer: numbers and ranges
    #[arg(
        required = true,
        value_name = "ARGUMENT",
        allow_negative_numbers = true
    )]
    arguments: Vec<String>,

    #[command(flatten)]
    target: Target,
}

// Arguments from the command line and from stdin.
#[derive(Debug, Group)]
pub(crate) struct ArgumentStream {
    /// The arguments. For fib, and with --argument integer: numbers, and ranges that include both ends:
    /// 30, 0..100. - reads them from stdin, one per line
    #[arg(
        required = true,
        value_name = "ARGUMENT",
        allow_negative_numbers = true
    )]
    arguments: Vec<String>,

    #[command(flatten)]
    target: Target,
}

// The procedure, and the form of its arguments.
#[derive(Debug, Clone, Group)]
pub(crate) struct Target {
    /// Name of the procedure: fib, or one that workers in any language serve
    #[arg(
        long,
        env = "RPCACHE_PROCEDURE",
        value_name = "NAME",
        default_value = "fib"
    )]
    pub(crate) procedure: ProcedureName,

    /// Form of the arguments [default: integer for fib, text otherwise]
    #[arg(long = "argument", value_name = "FORM", value_enum)]
    argument_form: Option<Form>,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Form {
    /// Any text, unchanged
    Text,
    /// Whole numbers, and ranges of them such as 0..100
    Integer,
    /// JSON: object keys are sorted and white space is removed, so that equal objects have one key
    Json,
}

impl Target {
    pub(crate) fn called(&self) -> Result<Called, Failure> {
        let form = self.argument_form.map(|form| match form {
            Form::Text => ArgumentForm::Text,
            Form::Integer => ArgumentForm::Integer,
            Form::Json => ArgumentForm::Json,
        });
        Called::new(self.procedure.clone(), form).map_err(|message| misuse(&message))
    }

    /// Parses arguments. `-` is an argument like any other.
    pub(crate) fn read(&self, typed: &[String]) -> Result<(Called, Vec<Arguments>), Failure> {
        let called = self.called()?;
        let form = called.form();
        let read =
            |typed: &String| procedure::read(form, typed).map_err(|message| misuse(&message));
        let arguments = typed.iter().map(read).collect::<Result<_, _>>()?;
        Ok((called, arguments))
    }
}

impl ArgumentList {
    pub(crate) fn read(&self) -> Result<(Called, Vec<Arguments>), Failure> {
        self.target.read(&self.arguments)
    }
}

impl ArgumentStream {
    /// Parses the arguments, where `-` stands for the lines of stdin.
    pub(crate) fn inputs(&self) -> Result<Inputs, Failure> {
        let called = self.target.called()?;
        let read = |typed: &String| match typed.as_str() {
            "-" => Ok(Input::Stdin),
            typed => procedure::read(called.form(), typed).map(Input::Arguments),
        };
        let inputs = self.arguments.iter().map(read).collect::<Result<_, _>>();
        let inputs = inputs.map_err(|message: String| misuse(&message))?;
        Ok(Inputs { called, inputs })
    }
}
