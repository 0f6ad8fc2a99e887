//! Runs typed text and scripts: the engine runs SQL, and the shell runs its own commands.

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::client::Client;
use crate::live::Live;
use crate::meta;
use crate::output::Blocks;
use crate::scan;
use crate::script::{self, Source};
use crate::split::{self, Item};
use crate::stop::Stop;
use crate::target::Target;
use crate::text::{Rows, Text};

/// Maximum depth of files that run files; more means a file that runs itself.
const DEPTH_MAX: usize = 16;

/// The next step after a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// Continue.
    GoOn,
    /// The user wants to leave.
    Leave,
}

/// A client with the state of a conversation.
pub struct Interpreter {
    /// Runs the statements.
    pub client: Client,
    /// The lines typed so far, newest last; `None` if not interactive.
    pub typed: Option<Vec<String>>,
    /// Statements returned by an editor, to be added to the history.
    pub edited: Vec<String>,
    /// The incomplete statement, and the line on which it began.
    pub(crate) buffer: Buffer,
    /// The previous statement.
    pub(crate) last: String,
    /// Live views in the background.
    pub(crate) lives: Vec<Live>,
    depth: usize,
}

/// The beginning of a statement.
#[derive(Clone, Debug, Default)]
pub(crate) struct Buffer {
    pub(crate) text: String,
    line: usize,
}

/// Display options for the results of one statement.
#[derive(Debug, Default)]
pub(crate) struct Otherwise {
    pub(crate) blocks: bool,
    pub(crate) target: Option<Target>,
}

impl Interpreter {
    /// Creates an interpreter before its first statement.
    pub fn new(client: Client) -> Self {
        Interpreter {
            client,
            typed: None,
            edited: Vec::new(),
            buffer: Buffer::default(),
            last: String::new(),
            lives: Vec::new(),
            depth: 0,
        }
    }

    /// Returns true if a statement has begun that isn't run yet.
    pub fn is_inside(&self) -> bool {
        !scan::is_blank(&self.buffer.text)
    }

    /// Waits for programs that read results, and returns the client.
    pub async fn end(mut self) -> Client {
        self.client.output.set_target(Target::Standard).finish().await;
        self.client
    }

    /// Runs a text to its end. The first failure ends it.
    pub async fn run(&mut self, source: Source<'_>) -> Result<Next, Stop> {
        let mut gather = source.gather;
        let mut items = split::items(source.text, self.is_inside()).into_iter().peekable();
        while let Some(item) = items.next() {
            match item {
                // These rows were read together with their COPY.
                Item::Rows(..) => {}
                Item::Sql(range) => {
                    if !self.is_inside() {
                        let line = 1 + newlines(&source.text[..range.start]);
                        self.buffer = Buffer { text: String::new(), line };
                    }
                    self.buffer.text.push_str(&source.text[range]);
                    let rows = match items.peek() {
                        // Typed text and files contain their rows; a text of the command line has no lines.
                        Some(Item::Rows(rows, ended))
                            if *ended || !rows.is_empty() || !self.reads_input(source) =>
                        {
                            Rows::Here(&source.text[rows.clone()])
                        }
                        _ if self.reads_input(source) => Rows::Input,
                        _ => Rows::Nowhere,
                    };
                    self.run_whole(source, &mut gather, rows).await?;
                }
                Item::Command(name, rest) => {
                    let line = 1 + newlines(&source.text[..name.start]);
                    let (name, rest) = (&source.text[name], &source.text[rest]);
                    let done = Box::pin(self.command(name, rest.trim(), source)).await;
                    match done.map_err(|stop| placed(stop, source.name, line))? {
                        Next::GoOn => {}
                        Next::Leave => return Ok(Next::Leave),
                    }
                }
            }
        }
        if source.whole && self.is_inside() {
            let buffer = std::mem::take(&mut self.buffer);
            let rows = if self.reads_input(source) { Rows::Input } else { Rows::Nowhere };
            self.run_sql(&buffer.text, source, buffer.line, gather, rows).await?;
        }
        Ok(Next::GoOn)
    }

    /// Returns true if a COPY without rows reads standard input: the text is neither a script nor typed.
    fn reads_input(&self, source: Source<'_>) -> bool {
        source.name.is_none() && self.typed.is_none()
    }

    /// Runs the complete statements of the buffer.
    async fn run_whole(&mut self, source: Source<'_>, gather: &mut bool, rows: Rows<'_>) -> Result<(), Stop> {
        let end = split::whole_end(&self.buffer.text);
        if end == 0 {
            return Ok(());
        }
        let Buffer { mut text, line } = std::mem::take(&mut self.buffer);
        let rest = text.split_off(end);
        if !scan::is_blank(&rest) {
            self.buffer = Buffer { text: rest, line: line + newlines(&text) };
        }
        let ran = self.run_sql(&text, source, line, std::mem::take(gather), rows).await;
        if ran.is_err() {
            self.buffer = Buffer::default();
        }
        ran
    }

    async fn run_sql(
        &mut self,
        sql: &str,
        source: Source<'_>,
        line: usize,
        gather: bool,
        rows: Rows<'_>,
    ) -> Result<(), Stop> {
        let last = split::last_statement(sql);
        if !last.is_empty() {
            self.last = last.to_owned();
        }
        self.client.run(Text { name: source.name, sql, line, gather, rows }).await
    }

    /// Runs the statement being typed, or else the last one, with the options of `otherwise`.
    pub(crate) async fn run_again(&mut self, otherwise: Otherwise) -> Result<(), Stop> {
        let sql = self.statement()?;
        self.buffer = Buffer::default();
        let output = &mut self.client.output;
        let before = output.choices;
        if otherwise.blocks {
            output.choices.blocks = Blocks::On;
        }
        let target = otherwise.target.map(|target| output.set_target(target));
        let source = Source { name: None, path: None, text: &sql, gather: false, whole: true };
        let ran = self.run_sql(&sql, source, 1, false, Rows::Nowhere).await;
        self.client.output.choices = before;
        if let Some(target) = target {
            self.client.output.set_target(target).finish().await;
        }
        ran
    }

    /// Returns the statement being typed, or else the last one.
    pub(crate) fn statement(&self) -> Result<String, Stop> {
        let text = if self.is_inside() { self.buffer.text.trim() } else { self.last.as_str() };
        if text.is_empty() {
            return Err(failure("there is no statement: type one before the command"));
        }
        Ok(text.to_owned())
    }

    /// Runs a file as part of the current input.
    pub(crate) async fn include(&mut self, path: PathBuf) -> Result<(), Stop> {
        if self.depth == DEPTH_MAX {
            return Err(failure(format!(
                "'{}' is {DEPTH_MAX} files deep: does it run itself?",
                path.display()
            )));
        }
        let script = script::read(Some(&path))?;
        let outer = std::mem::take(&mut self.buffer);
        self.depth += 1;
        // `\q` in a file leaves that file only.
        let ran = Box::pin(self.run(script.source(false))).await.map(drop);
        self.depth -= 1;
        self.buffer = outer;
        ran
    }

    /// Runs the statement repeatedly, until the user ends it.
    pub(crate) async fn watch(&mut self, pause: Duration, times: Option<usize>) -> Result<(), Stop> {
        let sql = self.statement()?;
        self.buffer = Buffer::default();
        let paged = std::mem::replace(&mut self.client.output.choices.pager, false);
        let source = Source { name: None, path: None, text: &sql, gather: false, whole: true };
        let mut count = 0;
        let ended = loop {
            let title = format!("{} UTC (every {} s)", crate::clock::now(), pause.as_secs_f64());
            if let Err(error) = self.client.output.line(&title).await {
                break Err(error.into());
            }
            if let Err(stop) = self.run_sql(&sql, source, 1, false, Rows::Nowhere).await {
                break Err(stop);
            }
            count += 1;
            if Some(count) == times {
                break Ok(());
            }
            if let Err(stop) = self.client.signals.unless_ending(tokio::time::sleep(pause)).await {
                break Err(if stop == Stop::Interrupted { Stop::Ended } else { stop });
            }
        };
        self.client.output.choices.pager = paged;
        ended
    }

    async fn command(&mut self, name: &str, rest: &str, source: Source<'_>) -> Result<Next, Stop> {
        let doc = meta::find(name).map_err(failure)?;
        // Users type SQL's semicolon out of habit.
        let as_it_is = matches!(doc.name, "!" | "echo" | "qecho" | "warn" | "set" | "live");
        let rest = if as_it_is { rest } else { rest.trim_end_matches(';').trim_end() };
        let variables = &self.client.variables;
        // These commands take a query or a system command, which isn't split into words.
        let takes_line = matches!(doc.name, "!" | "live") || rest.starts_with('|');
        let words = if takes_line { Vec::new() } else { meta::words(rest, variables).map_err(failure)? };
        // A colon in a system command isn't a variable.
        let substituted =
            (doc.name != "!").then(|| variables.substitute(rest)).transpose().map_err(failure)?;
        let rest = substituted.as_ref().map_or(rest, |substituted| &substituted.text);
        let call = Call { name, rest, words, beside: source.path };
        if call.words.len() > doc.words_max {
            let takes = if doc.arguments.is_empty() { "nothing" } else { doc.arguments };
            return Err(failure(format!(
                "\\{name} takes {takes}: '{}' is too much",
                call.words[doc.words_max]
            )));
        }
        crate::perform::perform(self, doc.name, call).await
    }
}

/// A command call.
#[derive(Debug)]
pub(crate) struct Call<'a> {
    /// The command's name as typed.
    pub(crate) name: &'a str,
    /// The text after it.
    pub(crate) rest: &'a str,
    /// The same text split into words.
    pub(crate) words: Vec<String>,
    /// The file that contains the call.
    pub(crate) beside: Option<&'a Path>,
}

impl Call<'_> {
    /// Returns the only argument.
    pub(crate) fn word(&self) -> Option<&str> {
        self.words.first().map(String::as_str)
    }

    /// Returns a required argument.
    pub(crate) fn need(&self, what: &str) -> Result<&str, Stop> {
        self.word().ok_or_else(|| failure(format!("\\{} needs {what}", self.name)))
    }
}

/// Creates the error of a failed command.
pub(crate) fn failure(message: impl std::fmt::Display) -> Stop {
    Stop::Statement(format!("error: {message}"))
}

/// Adds the place in a file where a command failed, unless an included file has added its own.
fn placed(stop: Stop, name: Option<&str>, line: usize) -> Stop {
    let Some(name) = name else { return stop };
    let place = |message: String| match message.starts_with("error: ") {
        true => format!("{name}:{line}: {message}"),
        false => message,
    };
    match stop {
        Stop::Statement(message) => Stop::Statement(place(message)),
        Stop::External(message) => Stop::External(place(message)),
        stop => stop,
    }
}

fn newlines(text: &str) -> usize {
    text.bytes().filter(|byte| *byte == b'\n').count()
}
