//! Renders one manual page. `clap_mangen` writes most of it; it would join the text below the options of `--help` into
//! one paragraph, so that text becomes sections here.

use std::io;

use clap::Command;
use clap_mangen::Man;
use clap_mangen::roff::{Roff, bold, roman};

pub(super) struct Page<'a> {
    command: &'a Command,
    man: Man,
}

impl<'a> Page<'a> {
    /// The page of a command, which must be built together with its parents.
    pub(super) fn of(command: &'a Command) -> Self {
        let version = concat!("rpcache ", env!("CARGO_PKG_VERSION"));
        let man = Man::new(command.clone())
            .source(version)
            // No date: each build makes the same page.
            .date("\"\"")
            .manual("rpcache manual");
        Self { command, man }
    }

    pub(super) fn file_name(&self) -> String {
        self.man.get_filename()
    }

    pub(super) fn text(&self) -> io::Result<Vec<u8>> {
        let (man, mut text) = (&self.man, Vec::new());
        man.render_title(&mut text)?;
        man.render_name_section(&mut text)?;
        man.render_synopsis_section(&mut text)?;
        man.render_description_section(&mut text)?;
        text.extend(options(man)?);
        if self.command.has_subcommands() {
            man.render_subcommands_section(&mut text)?;
        }
        let below = self.command.get_after_help().map(ToString::to_string);
        sections(below.as_deref().unwrap_or_default()).to_writer(&mut text)?;
        see_also(self.command).to_writer(&mut text)?;
        Ok(text)
    }
}

/// The section with the options. Two breaks and an empty line between the help of an option and its values become one
/// break.
fn options(man: &Man) -> io::Result<Vec<u8>> {
    let mut text = Vec::new();
    man.render_options_section(&mut text)?;
    let text = String::from_utf8_lossy(&text);
    Ok(text.replace("\n.br\n\n.br\n", "\n.br\n").into_bytes())
}

/// Sections of the text below the options: paragraphs, and tables with a heading such as `Exit codes:`.
fn sections(below: &str) -> Roff {
    let mut roff = Roff::new();
    let mut in_notes = false;
    for block in below.split("\n\n").filter(|block| !block.is_empty()) {
        match block.split_once(":\n  ") {
            Some((heading, table)) if !heading.contains('\n') => {
                roff.control("SH", [&*heading.to_uppercase()]);
                // Keep the lines as they are.
                roff.control("nf", []);
                for line in table.lines() {
                    roff.text([roman(line.strip_prefix("  ").unwrap_or(line))]);
                }
                roff.control("fi", []);
                in_notes = false;
            }
            _ => {
                if in_notes {
                    roff.control("PP", []);
                } else {
                    roff.control("SH", ["NOTES"]);
                }
                for line in block.lines() {
                    roff.text([roman(line)]);
                }
                in_notes = true;
            }
        }
    }
    roff
}

/// Refers to the page of the parent; subcommands are in a section of their own.
fn see_also(command: &Command) -> Roff {
    let mut roff = Roff::new();
    let name = command.get_display_name().unwrap_or_default();
    if let Some((parent, _)) = name.rsplit_once('-') {
        roff.control("SH", ["SEE ALSO"]);
        roff.text([bold(parent), roman("(1)")]);
    }
    roff
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_keep_their_lines_and_paragraphs_do_not() {
        let below =
            "One\nparagraph.\n\nAnother: it\n  is.\n\nExit codes:\n  0 well    2 typed\n  1 ill";
        let expected = "\
            .SH NOTES\nOne\nparagraph.\n.PP\nAnother: it\n  is.\n\
            .SH \"EXIT CODES\"\n.nf\n0 well    2 typed\n1 ill\n.fi\n";
        assert!(
            sections(below).to_roff().ends_with(expected),
            "{}",
            sections(below).to_roff()
        );
    }
}
