//! The options that scripts/bench passes.

use std::path::PathBuf;

use serde_json::{Map, Value};

use crate::table::Table;

/// `--name NAME`, `--raw-get PATH` and `--raw-rpc PATH` (the minimal programs), `--json PATH` for the
/// raw data, and any number of `--fact NAME=VALUE` to be written into it.
#[derive(Default)]
pub(crate) struct Options {
    pub(crate) name: String,
    pub(crate) raw_get: PathBuf,
    pub(crate) raw_rpc: PathBuf,
    json: Option<PathBuf>,
    facts: Map<String, Value>,
}

impl Options {
    pub(crate) fn parse(mut args: impl Iterator<Item = String>) -> Self {
        let mut options = Self::default();
        while let Some(option) = args.next() {
            if option == "--bench" {
                continue; // cargo's
            }
            let value = args.next().expect("an option has a value");
            match option.as_str() {
                "--name" => options.name = value,
                "--raw-get" => options.raw_get = value.into(),
                "--raw-rpc" => options.raw_rpc = value.into(),
                "--json" => options.json = Some(value.into()),
                "--fact" => {
                    let (name, value) = value.split_once('=').expect("a fact has a value");
                    options.facts.insert(name.to_owned(), value.into());
                }
                _ => panic!("no such option: {option}"),
            }
        }
        options
    }

    /// Keeps the raw data.
    pub(crate) fn write(mut self, table: &Table) {
        let Some(path) = self.json else { return };
        self.facts.insert("rows".to_owned(), table.raw());
        let text = format!("{}\n", Value::Object(self.facts));
        std::fs::write(path, text).expect("the raw data can be written");
    }
}
