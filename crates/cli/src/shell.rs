//! The shell: statements typed one after the other.
//!
//! Deliberately plain: lines are edited and remembered, statements end with a semicolon, and all else is SQL.

use std::io;
use std::path::PathBuf;

use console::Term;
use rustyline::completion::Completer;
use rustyline::error::ReadlineError;
use rustyline::highlight::Highlighter;
use rustyline::hint::Hinter;
use rustyline::history::FileHistory;
use rustyline::validate::{ValidationContext, ValidationResult, Validator};
use rustyline::{Config, Editor, ExternalPrinter, Helper};

use crate::client::Client;
use crate::page::{Page, Printer};
use crate::scan;
use crate::stop::Stop;
use crate::text::Text;

const PROMPT: &str = "millstream> ";
const HISTORY_MAX: usize = 10_000;

const HELP: &str = "\
Statements end with a semicolon and may take several lines.

  \\?        this help
  \\q        leave (so does Ctrl-D)
  Ctrl-C    drop what is typed, or end the statement that is running
  Ctrl-R    search what was typed before

What there is:     SHOW SOURCES;  SHOW TABLES;  SHOW VIEWS;  SHOW MATERIALIZED VIEWS;  SHOW SINKS;
What it is:        DESCRIBE x;  SHOW CREATE x;  EXPLAIN SELECT …;
Settings:          SHOW ALL;  SET name = value;";

/// What the user typed.
#[derive(Debug, PartialEq, Eq)]
enum Input<'a> {
    Nothing,
    Leave,
    Help,
    Unknown(&'a str),
    Sql(&'a str),
}

/// Talks with the user until they leave.
pub async fn run(variables: Vec<(String, String)>, quiet: bool) -> Result<(), Stop> {
    let mut editor = editor()?;
    let page = Page::default();
    page.set_printer(printer(&mut editor));
    let mut client = Client::interactive(variables, quiet, page.clone())?;
    let history = history_path();
    if let Some(path) = &history {
        // There is none the first time.
        let _ = editor.load_history(path);
    }
    if !quiet {
        println!("Millstream {}. Statements end with ; and \\? shows help.", env!("CARGO_PKG_VERSION"));
    }
    loop {
        let text = match editor.readline(PROMPT) {
            Ok(text) => text,
            Err(ReadlineError::Interrupted) => continue,
            Err(ReadlineError::Eof) => break,
            Err(error) => return Err(Stop::external(format_args!("the terminal can't be read: {error}"))),
        };
        remember(&mut editor, history.as_ref(), text.trim());
        match input(&text) {
            Input::Nothing => {}
            Input::Leave => break,
            Input::Help => println!("{HELP}"),
            Input::Unknown(word) => eprintln!("error: there is no command {word}; \\? shows help"),
            Input::Sql(sql) => execute(&mut client, sql).await?,
        }
    }
    // There is no prompt any more to print above.
    page.set_printer(None);
    client.forget_signals();
    client.stop(Ok(())).await
}

/// Runs statements. Their failures are shown and forgotten.
async fn execute(client: &mut Client, sql: &str) -> Result<(), Stop> {
    client.forget_signals();
    match client.run(Text { name: None, sql, gather: false }).await {
        Ok(()) => Ok(()),
        Err(Stop::Statement(message) | Stop::External(message)) => {
            eprintln!("{message}");
            Ok(())
        }
        Err(Stop::Interrupted) => {
            // Over the ^C that the terminal itself has written.
            let _ = Term::stderr().clear_line();
            eprintln!("interrupted");
            Ok(())
        }
        Err(Stop::Ended) => {
            let _ = Term::stderr().clear_line();
            Ok(())
        }
        Err(stop) => Err(stop),
    }
}

fn input(text: &str) -> Input<'_> {
    let text = text.trim();
    if scan::is_blank(text) {
        return Input::Nothing;
    }
    let word = text.trim_end_matches(';').trim_end();
    match word.to_ascii_lowercase().as_str() {
        "\\q" | "\\quit" | "quit" | "exit" => Input::Leave,
        "\\?" | "\\h" | "\\help" | "help" => Input::Help,
        _ if text.starts_with('\\') => Input::Unknown(word.split_whitespace().next().unwrap_or(word)),
        _ => Input::Sql(text),
    }
}

fn is_finished(text: &str) -> bool {
    !matches!(input(text), Input::Sql(_)) || scan::is_complete(text)
}

fn editor() -> Result<Editor<Prompter, FileHistory>, Stop> {
    let failed = |error: ReadlineError| Stop::external(format_args!("the terminal can't be used: {error}"));
    let config = Config::builder()
        .max_history_size(HISTORY_MAX)
        .map_err(failed)?
        .history_ignore_dups(true)
        .map_err(failed)?
        .history_ignore_space(true)
        .build();
    let mut editor = Editor::with_config(config).map_err(failed)?;
    editor.set_helper(Some(Prompter));
    Ok(editor)
}

/// Prints above the prompt while that waits; `None` on a terminal that can't do it.
fn printer(editor: &mut Editor<Prompter, FileHistory>) -> Option<Printer> {
    let mut printer = editor.create_external_printer().ok()?;
    Some(Box::new(move |text| printer.print(text).map_err(io::Error::other)))
}

/// Adds to the history, on disk as well, so that several shells and a crash lose nothing.
fn remember(editor: &mut Editor<Prompter, FileHistory>, path: Option<&PathBuf>, text: &str) {
    if !matches!(editor.add_history_entry(text), Ok(true)) {
        return;
    }
    if let Some(path) = path
        && let Some(directory) = path.parent()
        && std::fs::create_dir_all(directory).is_ok()
    {
        // A history that can't be kept is no reason to bother who is at work.
        let _ = editor.append_history(path);
    }
}

/// `$XDG_STATE_HOME/millstream/history`, which usually is `~/.local/state/millstream/history`.
fn history_path() -> Option<PathBuf> {
    let directory = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let state = directory("XDG_STATE_HOME").or_else(|| Some(directory("HOME")?.join(".local/state")))?;
    Some(state.join("millstream/history"))
}

/// Tells the line editor whether Enter ends the input or begins a new line of it.
struct Prompter;

impl Helper for Prompter {}
impl Highlighter for Prompter {}
impl Hinter for Prompter {
    type Hint = String;
}
impl Completer for Prompter {
    type Candidate = String;
}

impl Validator for Prompter {
    fn validate(&self, context: &mut ValidationContext) -> rustyline::Result<ValidationResult> {
        Ok(if is_finished(context.input()) {
            ValidationResult::Valid(None)
        } else {
            ValidationResult::Incomplete
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_told_from_sql() {
        assert_eq!(input("  "), Input::Nothing);
        assert_eq!(input("-- note"), Input::Nothing);
        assert_eq!(input("\\q "), Input::Leave);
        assert_eq!(input("Exit;"), Input::Leave);
        assert_eq!(input("\\?"), Input::Help);
        assert_eq!(input("\\dt x"), Input::Unknown("\\dt"));
        assert_eq!(input("\\d;"), Input::Unknown("\\d"));
        assert_eq!(input(" SELECT 1; "), Input::Sql("SELECT 1;"));
    }

    #[test]
    fn only_sql_waits_for_its_semicolon() {
        assert!(is_finished("\\q") && is_finished("quit") && is_finished(""));
        assert!(!is_finished("SELECT 1") && !is_finished("SELECT ';") && is_finished("SELECT\n1;"));
    }
}
