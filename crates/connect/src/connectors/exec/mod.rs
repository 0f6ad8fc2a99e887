//! The connector `exec`: reads the lines that a program writes to its standard output.
//!
//! Deliberately absent: a sink that writes to a program's input.

mod program;
mod words;

use std::sync::Arc;

use crate::receiver::{FORMAT_OPTIONS, Layout, Lines};
use crate::{Connector, Error, OptionDoc, Options, Result, Source, SourceSpec};
use program::{Program, Restart};

/// The connector `exec`.
#[derive(Clone, Copy, Debug, Default)]
pub struct Exec;

const SOURCE_OPTIONS: &[OptionDoc] = &[
    OptionDoc {
        name: "command",
        default: None,
        doc: "The program and its arguments, in words that are separated by blanks; quotes and backslashes \
              keep blanks in a word. No shell interprets it, unless shell = 'true'.",
    },
    OptionDoc { name: "shell", default: Some("false"), doc: "true: the command is a line for `sh -c`." },
    OptionDoc {
        name: "restart",
        default: Some("never"),
        doc: "What to do when the program ends. never: with exit status 0 the source has ended, with another \
              it has \
              failed; on_failure: after another status than 0 it is started again; always: it is started again.",
    },
    FORMAT_OPTIONS[0],
    FORMAT_OPTIONS[1],
    FORMAT_OPTIONS[2],
    FORMAT_OPTIONS[3],
];

impl Connector for Exec {
    fn name(&self) -> &'static str {
        "exec"
    }

    fn summary(&self) -> &'static str {
        "Runs a program and reads the lines of its output."
    }

    fn source_options(&self) -> &'static [OptionDoc] {
        SOURCE_OPTIONS
    }

    fn source(&self, spec: &SourceSpec) -> Result<Box<dyn Source>> {
        let layout = Layout::new(spec)?;
        let restart = match spec.options.choice("restart", &["never", "on_failure", "always"])? {
            "on_failure" => Restart::OnFailure,
            "always" => Restart::Always,
            _ => Restart::Never,
        };
        let words = command(&spec.options)?;
        let name: Arc<str> = words[0].rsplit('/').next().unwrap_or_default().into();
        let program = Program { name, words, restart, health: spec.health.clone() };
        Ok(Box::new(Lines::new(
            layout,
            restart != Restart::Always,
            Vec::new(),
            Box::new(move |inbox, stop| program.start(inbox.clone(), stop.clone())),
        )))
    }
}

/// Returns the program and its arguments; the list is never empty.
fn command(options: &Options) -> Result<Vec<String>> {
    let command = options.require("command")?;
    if options.parse("shell", "true or false")?.unwrap_or(false) {
        return Ok(vec!["sh".into(), "-c".into(), command.into()]);
    }
    let wrong = |what: String| Error::Invalid(format!("option 'command' is '{command}', but {what}"));
    let words = words::split(command).map_err(|what| wrong(what.into()))?;
    match words.first() {
        None => Err(wrong("a program with its arguments was expected".into())),
        Some(program) if !program::is_there(program) => {
            Err(wrong(format!("there is no program '{program}': check its name, or set shell = 'true'")))
        }
        Some(_) => Ok(words),
    }
}

#[cfg(test)]
mod tests;
