//! The line editor: history, completion, colours, hints.

mod complete;
mod highlight;
mod open;
mod options;
mod words;

use std::borrow::Cow;
use std::cell::{Cell, RefCell};
use std::io;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use millstream::Session;
use rustyline::completion::{Completer, FilenameCompleter, Pair};
use rustyline::error::ReadlineError;
use rustyline::highlight::{CmdKind, Highlighter};
use rustyline::hint::{Hint, Hinter};
use rustyline::history::{FileHistory, SearchDirection};
use rustyline::validate::{ValidationContext, ValidationResult, Validator};
use rustyline::{ColorMode, CompletionType, Config, Context, ExternalPrinter, Helper};

pub use crate::editor::complete::{complete_sql, tokens};

use crate::editor::complete::{Completion, complete};
use crate::meta;
use crate::page::Printer;
use crate::scan;
use crate::split::{self, Item};
use crate::stop::Stop;

const HISTORY_MAX: usize = 10_000;
/// Maximum number of candidates listed without asking.
const CANDIDATES_MAX: usize = 100;

/// The result of reading a line.
#[derive(Debug, PartialEq, Eq)]
pub enum Typed {
    /// A text to run.
    Text(String),
    /// Ctrl-C.
    Interrupt {
        /// True if the line was empty.
        empty: bool,
    },
    /// Ctrl-D on an empty line.
    End,
}

/// The line editor.
pub struct Editor {
    line: rustyline::Editor<Assistant, FileHistory>,
    history: Option<PathBuf>,
    shared: Rc<Shared>,
    color: bool,
}

/// State shared by the editor and its assistant.
#[derive(Default)]
struct Shared {
    /// The earlier lines of the same statement.
    pending: RefCell<String>,
    /// True if the line is empty as far as is known.
    empty: Cell<bool>,
}

impl Editor {
    /// Creates an editor that completes the names known to `session`.
    pub fn new(session: Session, color: bool) -> Result<Self, Stop> {
        let config = Config::builder()
            .max_history_size(HISTORY_MAX)
            .map_err(unusable)?
            .history_ignore_dups(true)
            .map_err(unusable)?
            .history_ignore_space(true)
            .completion_type(CompletionType::List)
            .completion_prompt_limit(CANDIDATES_MAX)
            .color_mode(if color { ColorMode::Enabled } else { ColorMode::Disabled })
            .build();
        let shared = Rc::new(Shared::default());
        let assistant = Assistant {
            session,
            shared: shared.clone(),
            files: FilenameCompleter::new(),
            matches: Cell::new(false),
            color,
        };
        let mut line = rustyline::Editor::with_config(config).map_err(unusable)?;
        line.set_helper(Some(assistant));
        let history = history_path();
        if let Some(path) = &history {
            // There is no history the first time.
            let _ = line.load_history(path);
        }
        Ok(Editor { line, history, shared, color })
    }

    /// Reads a text that can be run. `pending` is the earlier lines of the same statement; `mark` is an
    /// addition to the prompt.
    pub fn read(&mut self, pending: &str, mark: &str) -> Result<Typed, Stop> {
        self.shared.pending.replace(pending.to_owned());
        self.shared.empty.set(true);
        let goes_on = if scan::is_blank(pending) { "" } else { "-" };
        let prompt = format!("millstream{goes_on}{mark}> ");
        let painted = if self.color { format!("\x1b[1m{prompt}\x1b[0m") } else { prompt.clone() };
        match self.line.readline(&(prompt, painted)) {
            Ok(text) => {
                self.remember(text.trim());
                Ok(Typed::Text(text))
            }
            Err(ReadlineError::Interrupted) => {
                Ok(Typed::Interrupt { empty: self.shared.empty.get() && scan::is_blank(pending) })
            }
            Err(ReadlineError::Eof) => Ok(Typed::End),
            Err(error) => Err(Stop::external(format_args!("the terminal can't be read: {error}"))),
        }
    }

    /// Returns a printer that prints above the waiting prompt; `None` if the terminal doesn't support it.
    pub fn printer(&mut self) -> Option<Printer> {
        let mut printer = self.line.create_external_printer().ok()?;
        Some(Box::new(move |text| printer.print(text).map_err(io::Error::other)))
    }

    /// Returns the history, newest last.
    pub fn entries(&self) -> Vec<String> {
        self.line.history().iter().cloned().collect()
    }

    /// Adds to the history, also on disk, so that neither several shells nor a crash lose entries.
    pub fn remember(&mut self, text: &str) {
        if !matches!(self.line.add_history_entry(text), Ok(true)) {
            return;
        }
        if let Some(path) = &self.history
            && path.parent().is_none_or(|directory| std::fs::create_dir_all(directory).is_ok())
        {
            // A history that can't be written is not worth interrupting the user.
            let _ = self.line.append_history(path);
        }
    }
}

fn unusable(error: ReadlineError) -> Stop {
    Stop::external(format_args!("the terminal can't be used: {error}"))
}

/// Returns `$MILLSTREAM_HISTORY`, where an empty value disables the history. The default is
/// `$XDG_STATE_HOME/millstream/history`, usually `~/.local/state/millstream/history`.
fn history_path() -> Option<PathBuf> {
    if let Some(path) = std::env::var_os("MILLSTREAM_HISTORY") {
        return Some(PathBuf::from(path)).filter(|path| path != Path::new(""));
    }
    let directory = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let state = directory("XDG_STATE_HOME").or_else(|| Some(directory("HOME")?.join(".local/state")))?;
    Some(state.join("millstream/history"))
}

/// Returns true if Enter ends the input; otherwise Enter adds a line to it.
pub fn is_finished(pending: &str, text: &str) -> bool {
    let inside = !scan::is_blank(pending);
    if text.trim().is_empty() || (!inside && is_word_of_shell(text)) {
        return true;
    }
    match split::items(text, inside).last() {
        Some(Item::Command(..)) => true,
        Some(Item::Rows(_, ended)) => *ended,
        Some(Item::Sql(range)) => {
            let sql = &text[range.clone()];
            if inside { scan::is_complete(&format!("{pending}{sql}")) } else { scan::is_complete(sql) }
        }
        None => true,
    }
}

/// Returns true for words that leave the shell or ask for help without a backslash.
pub fn is_word_of_shell(text: &str) -> bool {
    let word = text.trim().trim_end_matches(';').trim_end();
    ["quit", "exit", "help"].iter().any(|known| known.eq_ignore_ascii_case(word))
}

/// A hint behind the cursor.
#[derive(Debug, PartialEq, Eq)]
pub struct Tip {
    text: String,
    /// True if the user can accept it as input.
    is_text: bool,
}

impl Hint for Tip {
    fn display(&self) -> &str {
        &self.text
    }

    fn completion(&self) -> Option<&str> {
        self.is_text.then_some(self.text.as_str())
    }
}

/// The helper for completion, hints and colours.
struct Assistant {
    session: Session,
    shared: Rc<Shared>,
    files: FilenameCompleter,
    /// True if a parenthesis at the cursor is matched; false once the line is done.
    matches: Cell<bool>,
    color: bool,
}

impl Helper for Assistant {}

impl Highlighter for Assistant {
    fn highlight<'l>(&self, line: &'l str, cursor: usize) -> Cow<'l, str> {
        if !self.color {
            return Cow::Borrowed(line);
        }
        let inside = !scan::is_blank(&self.shared.pending.borrow());
        Cow::Owned(highlight::highlight(line, inside, self.matches.get().then_some(cursor)))
    }

    fn highlight_hint<'h>(&self, hint: &'h str) -> Cow<'h, str> {
        if self.color { Cow::Owned(format!("\x1b[2m{hint}\x1b[0m")) } else { Cow::Borrowed(hint) }
    }

    fn highlight_char(&self, _line: &str, _cursor: usize, kind: CmdKind) -> bool {
        self.matches.set(kind != CmdKind::ForcedRefresh);
        self.color
    }
}

impl Hinter for Assistant {
    type Hint = Tip;

    fn hint(&self, line: &str, cursor: usize, context: &Context<'_>) -> Option<Tip> {
        self.shared.empty.set(line.is_empty());
        if line.is_empty() || cursor < line.len() {
            return None;
        }
        let pending = self.shared.pending.borrow();
        // Brackets separate a hint from the typed text even without colours.
        let aside = |text: &str| Tip { text: format!("  [{text}]"), is_text: false };
        let last = split::items(line, !scan::is_blank(&pending)).pop();
        if line.ends_with('\n') {
            if matches!(last, Some(Item::Rows(..))) {
                return Some(aside("a row, or \\. after the last"));
            }
            return Some(aside(open::open(&format!("{pending}{line}"))));
        }
        if let Some(Item::Command(name, rest)) = &last {
            let doc = meta::find(&line[name.clone()]).ok().filter(|doc| !doc.arguments.is_empty())?;
            let fresh = line[rest.clone()].is_empty() && doc.name == &line[name.clone()];
            return fresh.then(|| Tip { text: format!(" {}", doc.arguments), is_text: false });
        }
        if !self.color {
            return None;
        }
        self.remembered(line, context).map(|text| Tip { text, is_text: true })
    }
}

impl Assistant {
    /// Returns the rest of the newest history entry with the same beginning.
    fn remembered(&self, line: &str, context: &Context<'_>) -> Option<String> {
        let history = context.history();
        let newest = history.len().checked_sub(1)?;
        let found = history.starts_with(line, newest, SearchDirection::Reverse).ok().flatten()?;
        let rest = found.entry.get(line.len()..)?;
        (line.trim().len() > 1 && !rest.is_empty() && !rest.contains('\n')).then(|| rest.to_owned())
    }
}

impl Completer for Assistant {
    type Candidate = Pair;

    fn complete(
        &self,
        line: &str,
        cursor: usize,
        context: &Context<'_>,
    ) -> rustyline::Result<(usize, Vec<Pair>)> {
        let names = self.session.names();
        let pending = self.shared.pending.borrow();
        match complete(&pending, line, cursor, &names) {
            Completion::Texts { start, texts } => {
                let pair = |text: String| Pair { display: text.clone(), replacement: text };
                Ok((start, texts.into_iter().map(pair).collect()))
            }
            Completion::File(range) => {
                // The path alone, so that quotes around it don't count.
                let path = &line[range.clone()];
                let (start, pairs) = self.files.complete(path, path.len(), context)?;
                Ok((range.start + start, pairs))
            }
        }
    }
}

impl Validator for Assistant {
    fn validate(&self, context: &mut ValidationContext<'_>) -> rustyline::Result<ValidationResult> {
        let finished = is_finished(&self.shared.pending.borrow(), context.input());
        Ok(if finished { ValidationResult::Valid(None) } else { ValidationResult::Incomplete })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_sql_waits_for_its_semicolon() {
        for finished in
            ["\\q", "quit", "", "Exit;", "SELECT\n1;", "SELECT 1 \\g", ".mode csv", "-- note", "\\d;"]
        {
            assert!(is_finished("", finished), "{finished}");
        }
        for open in ["SELECT 1", "SELECT ';", "SELECT 1; SELECT", "SELECT '\\g"] {
            assert!(!is_finished("", open), "{open}");
        }
        assert!(
            is_finished("SELECT 1", ";") && !is_finished("SELECT 1", "+ 1") && !is_finished("SELECT", "quit")
        );
    }
}
