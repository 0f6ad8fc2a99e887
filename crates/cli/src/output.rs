//! The output of statements: rows and tags on standard output, notices on standard error.

use std::io::{self, IsTerminal};
use std::time::Duration;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use console::Term;
use futures::StreamExt;
use millstream::datafusion::error::DataFusionError;
use millstream::datafusion::execution::SendableRecordBatchStream;
use millstream::{Error, Tag, as_shown};
use tokio::time::{Instant, timeout_at};

use crate::form::{Form, Look, Mode, form};
use crate::forms;
use crate::logging::{self, Message};
use crate::page::{Hold, Page};
use crate::program::{self, Program};
use crate::stop::Stop;
use crate::target::Target;

/// Number of rows that determine a table's column widths, if they arrive without much delay. A result may
/// arrive in batches as small as the statements that inserted its rows.
const FIRST_ROWS: usize = 1_000;
const FIRST_ROWS_WAIT: Duration = Duration::from_millis(20);

/// The condition for showing rows as blocks of lines.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Blocks {
    /// Never.
    #[default]
    Off,
    /// Always.
    On,
    /// If a table would be wider than the screen.
    Auto,
}

/// The user's display settings.
#[derive(Clone, Copy, Debug)]
pub struct Choices {
    /// The format.
    pub mode: Mode,
    /// The setting for blocks.
    pub blocks: Blocks,
    /// True if each statement is followed by its time.
    pub timing: bool,
    /// True if long results go to a pager.
    pub pager: bool,
}

/// Writes the results of statements. Output is written in pieces of whole lines, since sinks may print at
/// the same time.
pub struct Output {
    /// The display settings.
    pub choices: Choices,
    target: Target,
    /// The pager on the screen, and the hold on all other output.
    paging: Option<(Target, Hold)>,
    page: Page,
    /// True if a user types.
    interactive: bool,
    terminal: bool,
    color: bool,
    quiet: bool,
}

/// The reason why a result isn't shown to its end.
#[derive(Debug)]
pub enum Broken {
    /// The query failed.
    Query(Error),
    /// The output failed.
    Output(io::Error),
}

/// A result whose first rows have arrived.
pub struct Begun {
    rows: SendableRecordBatchStream,
    batches: Vec<RecordBatch>,
    more: bool,
    endless: bool,
}

impl Output {
    /// Creates an output to standard output, shared with the writers of `page`. `quiet` suppresses tags and
    /// notices. Only an interactive user gets a pager.
    pub fn new(quiet: bool, page: Page, interactive: bool) -> Self {
        let terminal = io::stdout().is_terminal();
        let choices = Choices { mode: Mode::Table, blocks: Blocks::Off, timing: false, pager: interactive };
        Output {
            choices,
            target: Target::Standard,
            paging: None,
            interactive,
            page,
            terminal,
            color: console::colors_enabled(),
            quiet,
        }
    }

    /// Sends results to another target from now on; returns the previous one.
    pub fn set_target(&mut self, target: Target) -> Target {
        std::mem::replace(&mut self.target, target)
    }

    /// Holds back the output of sinks while something else uses the screen.
    pub fn hold(&self) -> Hold {
        self.page.hold()
    }

    /// Prints a statement's tag. A program that reads the output gets rows only.
    pub async fn tag(&mut self, tag: &Tag) -> io::Result<()> {
        if self.quiet {
            return Ok(());
        }
        if self.terminal {
            self.say(&tag.text).await?;
        }
        tag.notices.iter().for_each(|notice| self.notice(notice));
        Ok(())
    }

    /// Prints a line on standard output, whatever the target of results.
    pub async fn say(&self, line: &str) -> io::Result<()> {
        Target::Standard.write(format!("{line}\n").into_bytes(), &self.page).await.map(drop)
    }

    /// Reports a command's effect to a user at a terminal, but not to a program.
    pub async fn remark(&self, line: &str) -> io::Result<()> {
        if self.terminal && !self.quiet { self.say(line).await } else { Ok(()) }
    }

    /// Writes a text to the target, or to a pager if the screen is too small.
    pub async fn text(&mut self, text: String) -> io::Result<()> {
        let fits = self.screen().is_some_and(|(lines, _)| text.lines().count() < lines);
        let program = if fits || !self.pages() { None } else { program::pager() };
        let Some(program) = program.and_then(|command| Program::start(&command).ok()) else {
            return self.target.write(text.into_bytes(), &self.page).await.map(drop);
        };
        let (target, _) = self.paging.insert((Target::Program(program), self.page.hold()));
        let written = target.write(text.into_bytes(), &self.page).await;
        self.leave_pager().await;
        written.map(drop)
    }

    /// Writes a line to the target.
    pub async fn line(&mut self, line: &str) -> io::Result<()> {
        self.target.write(format!("{line}\n").into_bytes(), &self.page).await.map(drop)
    }

    /// Writes bytes to the target. Returns false if nobody reads them any more.
    pub async fn bytes(&mut self, bytes: Vec<u8>) -> io::Result<bool> {
        self.target.write(bytes, &self.page).await
    }

    /// Reports the number of rows written to a target that the user doesn't see.
    pub async fn copied(&self, tag: &str) -> io::Result<()> {
        if self.target.is_standard() { Ok(()) } else { self.remark(tag).await }
    }

    /// Prints a tip for interactive users.
    pub fn tip(&self, tip: &str) {
        if self.interactive && self.terminal && !self.quiet {
            self.page.aside(|| logging::tell(Message::Line(&format!("({tip})"))));
        }
    }

    /// Prints a notice.
    pub fn notice(&self, notice: &str) {
        if !self.quiet {
            self.page.aside(|| logging::tell(Message::Notice(notice)));
        }
    }

    /// Prints the time of a statement, if enabled.
    pub async fn time(&mut self, time: Duration) -> io::Result<()> {
        if self.choices.timing && !self.quiet {
            self.line(&format!("Time: {}", shown_time(time))).await
        } else {
            Ok(())
        }
    }

    /// Waits for the rows that determine the layout of a result.
    pub async fn begin(&self, rows: SendableRecordBatchStream, endless: bool) -> Result<Begun, Broken> {
        // The pager decision needs enough rows to fill the screen.
        let at_once = endless || !self.pages();
        let mut begun = Begun { rows, batches: Vec::new(), more: true, endless };
        let enough = if at_once { 1 } else { self.screen().map_or(1, |(lines, _)| lines) };
        begun.gather(enough).await?;
        Ok(begun)
    }

    /// Prints rows as they arrive.
    pub async fn show(&mut self, begun: Begun) -> Result<(), Broken> {
        let Begun { rows, batches, more, endless } = begun;
        let schema = as_shown(&rows.schema());
        let (look, pager) = self.look(&schema, &batches, more, endless)?;
        let mode = match self.choices.mode {
            // A JSON array without an end isn't valid.
            Mode::Json if endless => Mode::Ndjson,
            mode => mode,
        };
        // A JSON object has each name once.
        let schema = if matches!(mode, Mode::Json | Mode::Ndjson) { rows.schema() } else { schema };
        let form = form(mode, schema, look);
        let Some(program) = pager else {
            return write_all(form, batches, rows, more, &mut self.target, &self.page).await;
        };
        let (target, _) = self.paging.insert((Target::Program(program), self.page.hold()));
        let shown = write_all(form, batches, rows, more, target, &self.page).await;
        self.leave_pager().await;
        shown
    }

    /// Waits until the user has left the pager, if one is on the screen.
    pub async fn leave_pager(&mut self) {
        if let Some((target, held)) = self.paging.take() {
            target.finish().await;
            drop(held);
        }
    }

    /// Returns the layout of a result, and its pager.
    fn look(
        &self,
        schema: &SchemaRef,
        batches: &[RecordBatch],
        more: bool,
        endless: bool,
    ) -> io::Result<(Look, Option<Program>)> {
        let mut look = Look { width: None, color: false, expanded: self.choices.blocks == Blocks::On };
        if !self.target.is_standard() {
            return Ok((look, None));
        }
        look.color = self.color;
        let Some((lines, columns)) = self.screen() else { return Ok((look, None)) };
        let rows: usize = batches.iter().map(RecordBatch::num_rows).sum();
        let is_table = self.choices.mode == Mode::Table;
        let wide = is_table && forms::width(schema, batches)? > columns;
        look.expanded |= wide && self.choices.blocks == Blocks::Auto;
        look.width = Some(columns);
        let height = if look.expanded { rows * (schema.fields().len() + 1) } else { rows + 3 };
        let fits = height < lines && !more && (!wide || look.expanded);
        if fits || endless || !self.pages() {
            return Ok((look, None));
        }
        let program = program::pager().and_then(|command| Program::start(&command).ok());
        if program.is_some() {
            // A pager can scroll to the rest of a line.
            look.width = None;
        }
        Ok((look, program))
    }

    fn pages(&self) -> bool {
        self.choices.pager && self.terminal && self.target.is_standard()
    }

    /// Returns the size of the terminal in lines and columns.
    fn screen(&self) -> Option<(usize, usize)> {
        let size = if self.terminal { Term::stdout().size_checked() } else { None };
        size.map(|(lines, columns)| (lines.into(), columns.into()))
    }
}

/// Writes a result to its end, or until nobody reads it any more.
async fn write_all(
    mut form: Box<dyn Form + Send>,
    batches: Vec<RecordBatch>,
    mut rows: SendableRecordBatchStream,
    mut more: bool,
    target: &mut Target,
    page: &Page,
) -> Result<(), Broken> {
    let mut text = Vec::new();
    form.write(&batches, &mut text)?;
    drop(batches);
    while more {
        if !target.write(std::mem::take(&mut text), page).await? {
            return Ok(());
        }
        match rows.next().await {
            Some(batch) => form.write(&[batch?], &mut text)?,
            None => more = false,
        }
    }
    form.finish(&mut text)?;
    target.write(text, page).await?;
    Ok(())
}

impl Begun {
    /// Gathers rows to determine the widths. Waits only for the first `enough` of them.
    async fn gather(&mut self, enough: usize) -> Result<(), Broken> {
        let mut count = 0;
        let mut end = None;
        while count < FIRST_ROWS {
            let next = match end {
                None => self.rows.next().await,
                Some(end) => match timeout_at(end, self.rows.next()).await {
                    Ok(next) => next,
                    Err(_) => break,
                },
            };
            let Some(batch) = next else {
                self.more = false;
                return Ok(());
            };
            let batch = batch?;
            if batch.num_rows() > 0 {
                count += batch.num_rows();
                self.batches.push(batch);
            }
            if count >= enough {
                end.get_or_insert_with(|| Instant::now() + FIRST_ROWS_WAIT);
            }
        }
        Ok(())
    }
}

/// Returns `1.234 ms`; longer times also in minutes and seconds.
fn shown_time(time: Duration) -> String {
    let milliseconds = format!("{:.3} ms", time.as_secs_f64() * 1e3);
    let seconds = time.as_secs();
    if seconds == 0 {
        return milliseconds;
    }
    let (hours, minutes, rest) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    let hours = if hours > 0 { format!("{hours}:") } else { String::new() };
    format!("{milliseconds} ({hours}{minutes:02}:{rest:02}.{:03})", time.subsec_millis())
}

impl From<DataFusionError> for Broken {
    fn from(error: DataFusionError) -> Self {
        Broken::Query(error.into())
    }
}

impl From<io::Error> for Broken {
    fn from(error: io::Error) -> Self {
        Broken::Output(error)
    }
}

impl From<Broken> for Stop {
    fn from(broken: Broken) -> Self {
        match broken {
            Broken::Query(error) => Stop::engine(&error),
            Broken::Output(error) => error.into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_readable() {
        assert_eq!(shown_time(Duration::from_micros(1_234)), "1.234 ms");
        assert_eq!(shown_time(Duration::from_millis(61_250)), "61250.000 ms (01:01.250)");
        assert_eq!(shown_time(Duration::from_secs(3_661)), "3661000.000 ms (1:01:01.000)");
    }
}
