//! Which procedure is called, as typed.

use clap::{Args as Group, ValueEnum};
use rpcache::{ArgumentForm, ProcedureName};

use crate::input::{Input, Inputs};
use crate::output::{Failure, misuse};
use crate::procedure::{self, Arguments, Called};

// (Documentation of what is flattened would describe the whole command.)
#[derive(Debug, Clone, Group)]
pub(crate) struct Target {
    /// The procedure: fib, or any other that workers in any language serve
    #[arg(
        long,
        env = "RPCACHE_PROCEDURE",
        value_name = "NAME",
        default_value = "fib"
    )]
    pub(crate) procedure: ProcedureName,

    /// How arguments are typed [default: integer for fib, text for any other]
    #[arg(long = "argument", value_name = "FORM", value_enum)]
    argument_form: Option<Form>,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Form {
    /// Any text, as it is
    Text,
    /// Whole numbers, and ranges of them such as 0..100
    Integer,
    /// JSON: keys are sorted and white space removed, so that equal objects have one key
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

    /// What was typed, for the procedure and with it. `-` is an argument like any other.
    pub(crate) fn read(&self, typed: &[String]) -> Result<(Called, Vec<Arguments>), Failure> {
        let called = self.called()?;
        let form = called.form();
        let read =
            |typed: &String| procedure::read(form, typed).map_err(|message| misuse(&message));
        let arguments = typed.iter().map(read).collect::<Result<_, _>>()?;
        Ok((called, arguments))
    }

    /// The same where `-` stands for the lines of stdin.
    pub(crate) fn inputs(&self, typed: &[String]) -> Result<Inputs, Failure> {
        let called = self.called()?;
        let read = |typed: &String| match typed.as_str() {
            "-" => Ok(Input::Stdin),
            typed => procedure::read(called.form(), typed).map(Input::Arguments),
        };
        let inputs = typed.iter().map(read).collect::<Result<_, _>>();
        let inputs = inputs.map_err(|message: String| misuse(&message))?;
        Ok(Inputs { called, inputs })
    }
}
