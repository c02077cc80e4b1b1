//! The command line of a program: checked once, and an argument put into it for each computation. Pure, but for
//! finding the program's file.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::{Path, PathBuf};

use super::executable;

/// Stands for the argument in a word of the command line.
const PLACE: &str = "{}";

/// Their `-c` takes code: an argument in it would be run.
const SHELLS: [&str; 6] = ["sh", "bash", "dash", "ash", "ksh", "zsh"];

#[derive(Debug)]
pub(super) struct CommandLine {
    executable: PathBuf,
    /// The words behind the program's name.
    words: Vec<OsString>,
    /// Without one, the argument goes to stdin.
    has_place: bool,
}

impl CommandLine {
    pub(super) fn new(mut words: Vec<OsString>) -> Result<Self, String> {
        if words.is_empty() {
            return Err("there is no command".to_owned());
        }
        let name = words.remove(0);
        if find(name.as_bytes()).is_some() {
            return Err(format!(
                "{PLACE} stands for the argument, which must not choose the program: write the program's name first"
            ));
        }
        let has_place = words.iter().any(|word| find(word.as_bytes()).is_some());
        if has_place && runs_code(&name, &words) {
            let shell = name.display();
            return Err(format!(
                "{PLACE} in the code of {shell} -c would run what callers send; write \"$1\" there, and {PLACE} behind \
                 it: {shell} -c 'CODE \"$1\"' {shell} {PLACE}"
            ));
        }
        Ok(Self {
            executable: executable::find(&name)?,
            words,
            has_place,
        })
    }

    pub(super) fn executable(&self) -> &Path {
        &self.executable
    }

    pub(super) fn reads_stdin(&self) -> bool {
        !self.has_place
    }

    /// The words behind the program's name, with the argument in its place. The error is the message to the caller.
    pub(super) fn with_argument(&self, argument: &str) -> Result<Vec<OsString>, String> {
        if argument.contains('\0') {
            return Err("the argument contains a NUL".to_owned());
        }
        let mut may_be_option = true;
        let mut words = Vec::with_capacity(self.words.len());
        for word in &self.words {
            let with = put(word, argument);
            let starts_with_place = word.as_bytes().starts_with(PLACE.as_bytes());
            if may_be_option && starts_with_place && with.as_bytes().starts_with(b"-") {
                return Err(
                    "an argument that begins with - would be an option of the program; -- before {} allows it"
                        .to_owned(),
                );
            }
            may_be_option &= word != "--";
            words.push(with);
        }
        Ok(words)
    }
}

/// Whether an argument becomes code of a shell.
fn runs_code(name: &OsStr, words: &[OsString]) -> bool {
    let file = Path::new(name).file_name();
    let is_shell = file.is_some_and(|file| SHELLS.iter().any(|shell| file == *shell));
    // -c, and letters before it as in -ec.
    let is_code = |word: &OsString| {
        let word = word.as_bytes();
        word.starts_with(b"-") && !word.starts_with(b"--") && word.ends_with(b"c")
    };
    let code = words
        .iter()
        .position(is_code)
        .and_then(|at| words.get(at + 1));
    is_shell && code.is_some_and(|code| find(code.as_bytes()).is_some())
}

/// Where the first `{}` is.
fn find(word: &[u8]) -> Option<usize> {
    let place = PLACE.as_bytes();
    word.windows(place.len()).position(|part| part == place)
}

/// Replaces each `{}` of the word. An argument's own `{}` stays.
fn put(word: &OsStr, argument: &str) -> OsString {
    let mut rest = word.as_bytes();
    let mut with = Vec::with_capacity(rest.len());
    while let Some(at) = find(rest) {
        with.extend_from_slice(&rest[..at]);
        with.extend_from_slice(argument.as_bytes());
        rest = &rest[at + PLACE.len()..];
    }
    with.extend_from_slice(rest);
    OsString::from_vec(with)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(words: &[&str]) -> Result<CommandLine, String> {
        CommandLine::new(words.iter().map(Into::into).collect())
    }

    fn with(words: &[&str], argument: &str) -> Result<Vec<String>, String> {
        let words = line(words)?.with_argument(argument)?;
        Ok(words
            .into_iter()
            .map(|word| word.into_string().unwrap())
            .collect())
    }

    #[test]
    fn argument_replaces_each_place_and_is_one_word() {
        let words = |words: &[&str]| words.iter().map(ToString::to_string).collect::<Vec<_>>();
        let command = ["cat", "{}", "--name={}.{}", "{ }"];
        let put = words(&["a b;'{}'", "--name=a b;'{}'.a b;'{}'", "{ }"]);
        assert_eq!(with(&command, "a b;'{}'"), Ok(put));
        assert!(!line(&command).unwrap().reads_stdin());
        assert_eq!(with(&["cat", "-"], "a"), Ok(words(&["-"])));
        assert!(line(&["cat", "-"]).unwrap().reads_stdin());
    }

    #[test]
    fn argument_does_not_become_an_option() {
        for argument in ["-", "-rf", "--help"] {
            for command in [&["cat", "{}"][..], &["cat", "{}x"], &["cat", "{}", "--"]] {
                let refused = with(command, argument).unwrap_err();
                assert!(refused.contains("-- before {} allows it"), "{refused}");
            }
            for command in [&["cat", "--", "{}"][..], &["cat", "--n={}"], &["cat"]] {
                assert!(with(command, argument).is_ok(), "{command:?} {argument}");
            }
        }
        assert!(with(&["cat", "{}-n"], "").is_err());
    }

    #[test]
    fn argument_with_nul_is_refused() {
        for command in [&["cat"][..], &["cat", "{}"]] {
            assert!(with(command, "a\0b").unwrap_err().contains("NUL"));
        }
    }

    #[test]
    fn argument_chooses_no_program_and_is_no_code() {
        for command in [&["{}"][..], &["./{}", "x"]] {
            assert!(line(command).unwrap_err().contains("must not choose"));
        }
        for command in [&["sh", "-c", "echo {}"][..], &["/bin/sh", "-ec", "f() {}"]] {
            assert!(line(command).unwrap_err().contains("write \"$1\" there"));
        }
        for command in [
            &["sh", "-c", "echo \"$1\"", "sh", "{}"][..],
            &["cat", "-c", "{}"],
        ] {
            assert!(line(command).is_ok());
        }
        assert!(line(&[]).is_err());
    }
}
