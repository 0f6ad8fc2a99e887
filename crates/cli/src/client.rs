//! Runs SQL text in a session and shows the results.

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use arrow::array::RecordBatch;
use arrow::compute::concat_batches;
use futures::{TryStreamExt, stream};
use millstream::connect::connectors::Print;
use millstream::datafusion::error::DataFusionError;
use millstream::datafusion::execution::SendableRecordBatchStream;
use millstream::datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use millstream::{Engine, Error, Outcome, Response, Script, Session};

use crate::aborts;
use crate::logging;
use crate::output::{Broken, Output};
use crate::page::Page;
use crate::place::Place;
use crate::progress::{Watch, counted};
use crate::signals::Signals;
use crate::stop::Stop;
use crate::text::{Rows as Source, Text};
use crate::variables::Variables;
use crate::web::Web;

/// An engine with one session, for one user.
pub struct Client {
    /// The engine.
    pub engine: Engine,
    /// The session that runs all statements.
    pub session: Session,
    /// The variables for `:name`.
    pub variables: Variables,
    /// The output for results.
    pub output: Output,
    /// The signals with which the user can end a statement.
    pub signals: Signals,
    pub(crate) watch: Watch,
    quiet: bool,
    has_sink: bool,
    /// The web page, until the engine stops.
    web: Option<Web>,
}

impl Client {
    /// Starts an engine for a script or a server, without a user to interact with.
    pub fn new(
        variables: Vec<(String, String)>,
        quiet: bool,
        data: Option<Place>,
        web: Option<Web>,
    ) -> Result<Self, Stop> {
        let page = Page::default();
        let output = Output::new(quiet, page.clone(), false);
        if let Some(web) = web.as_ref().filter(|_| !quiet) {
            output.notice(&web.message());
        }
        Client::start(variables, quiet, data, (page.clone(), output, Signals::new(page)), web)
    }

    /// Starts an engine for the interactive shell; its sinks print on `page`.
    pub fn interactive(
        variables: Vec<(String, String)>,
        quiet: bool,
        data: Option<Place>,
        page: Page,
    ) -> Result<Self, Stop> {
        let output = Output::new(quiet, page.clone(), true);
        Client::start(variables, quiet, data, (page.clone(), output, Signals::new(page)), None)
    }

    fn start(
        variables: Vec<(String, String)>,
        quiet: bool,
        data: Option<Place>,
        (page, output, signals): (Page, Output, std::io::Result<Signals>),
        web: Option<Web>,
    ) -> Result<Self, Stop> {
        let signals =
            signals.map_err(|error| Stop::external(format_args!("signals can't be waited for: {error}")))?;
        logging::show_on(&page);
        let print = Print::to(page.clone());
        let builder = crate::builder().connector(Arc::new(print));
        let directory = data.as_ref().and_then(Place::directory).map(Path::to_path_buf);
        let mut builder = match data {
            Some(place) => place.add_to(builder)?,
            None => builder,
        };
        for (name, value) in variables.iter().filter(|(name, _)| is_setting(name)) {
            builder = builder
                .setting(name, value)
                .map_err(|error| Stop::Usage(format!("--set {name}={value} changes a setting: {error}")))?;
        }
        directory.iter().for_each(|data| aborts::leave_note(data));
        let engine = builder.start().map_err(|error| Stop::engine(&error))?;
        directory.iter().for_each(|data| aborts::leave_note(data));
        if let Some(served) = web.as_ref().and_then(Web::page) {
            served.attach(engine.clone());
        }
        signals.shutdown.watch_over(engine.clone());
        let client = Client {
            session: engine.session(),
            engine,
            variables: Variables::new(variables),
            output,
            signals,
            watch: Watch::new(page, !quiet),
            quiet,
            has_sink: false,
            web,
        };
        client.tell_recovered();
        Ok(client)
    }

    /// Reports the epoch that the engine continues after, and any writes torn by a crash.
    fn tell_recovered(&self) {
        let Some(recovered) = self.engine.recovered().filter(|recovered| !recovered.is_new()) else { return };
        self.say(&format!("continuing in '{}' after epoch {}", recovered.path.display(), recovered.epoch));
        recovered.torn.iter().for_each(|torn| self.output.notice(torn));
    }

    /// True if a sink was created. Without one, nobody sees any effect after the last statement.
    pub fn has_sink(&self) -> bool {
        self.has_sink
    }

    /// Prints a message, unless `quiet`.
    pub fn say(&self, message: &str) {
        if !self.quiet {
            self.output.notice(message);
        }
    }

    /// Discards signals received while nothing was running.
    pub fn forget_signals(&mut self) {
        self.signals.forget();
    }

    /// Runs all statements of a text. The first failure ends it.
    pub async fn run(&mut self, text: Text<'_>) -> Result<(), Stop> {
        let mut running = text.start(&self.variables)?;
        let mut script = Script::parse(running.sql()).map_err(|error| running.failure(&error))?;
        if text.gather {
            script.gather_ddl();
        }
        let count = script.remaining();
        loop {
            if script.remaining() > 0 && self.signals.shutdown.is_draining() {
                return Err(Stop::Interrupted);
            }
            let start = Instant::now();
            self.watch.enter(count - script.remaining() + 1, count);
            let step = self.watch.during(&self.engine, self.session.step(&mut script));
            let outcomes = self.signals.unless(step).await?.map_err(|error| running.failure(&error))?;
            self.watch.tell_problems(&self.engine.progress());
            let Some(outcomes) = outcomes else { return Ok(()) };
            for outcome in outcomes {
                running.enter(&outcome.sql);
                self.show(outcome, text.rows).await?.map_err(|error| running.failure(&error))?;
            }
            self.output.time(start.elapsed()).await?;
            running.leave();
        }
    }

    /// Runs one of the shell's own statements and returns its rows.
    pub async fn query(&mut self, sql: &str) -> Result<RecordBatch, Stop> {
        let failed = |error: Error| Stop::engine(&error);
        let response = self.signals.unless(self.session.execute(sql)).await?.map_err(failed)?;
        let Response::Rows(rows) = response else {
            return Err(Stop::external(format_args!("{sql} gave no rows")));
        };
        let schema = rows.schema();
        let batches: Vec<RecordBatch> = self
            .signals
            .unless(rows.try_collect())
            .await?
            .map_err(|error: DataFusionError| failed(error.into()))?;
        concat_batches(&schema, &batches).map_err(Stop::external)
    }

    /// Prints rows made by the shell.
    pub async fn print(&mut self, rows: RecordBatch) -> Result<(), Stop> {
        let schema = rows.schema();
        let rows: SendableRecordBatchStream =
            Box::pin(RecordBatchStreamAdapter::new(schema, stream::iter([Ok(rows)])));
        self.rows(rows, false).await?.map_err(|error| Stop::engine(&error))
    }

    /// Shows an outcome. The inner error is that of a query that failed while returning rows.
    async fn show(&mut self, outcome: Outcome, rows: Source<'_>) -> Result<Result<(), Error>, Stop> {
        let notices = outcome.response.notices();
        let endless = outcome.response.is_endless();
        match outcome.response {
            Response::Done(tag) => {
                self.has_sink |= tag.text == "CREATE SINK";
                self.output.tag(&tag).await?;
                Ok(Ok(()))
            }
            Response::Rows(rows) => {
                notices.iter().for_each(|notice| self.output.notice(notice));
                if endless {
                    self.output
                        .tip("Ctrl-C ends this; \\live then shows it on a full screen, kept up to date.");
                }
                self.rows(rows, endless).await
            }
            Response::CopyIn(copy) => self.copy_in(*copy, rows).await,
            Response::CopyOut(copy) => {
                notices.iter().for_each(|notice| self.output.notice(notice));
                self.copy_out(*copy).await
            }
        }
    }

    /// Prints rows, until a signal ends them.
    async fn rows(
        &mut self,
        rows: SendableRecordBatchStream,
        endless: bool,
    ) -> Result<Result<(), Error>, Stop> {
        let begin = self.output.begin(rows, endless);
        let shown = if endless {
            self.signals.unless_ending(begin).await
        } else {
            self.signals.unless(self.watch.during(&self.engine, begin)).await
        };
        let shown = match shown {
            Ok(Ok(begun)) if endless => self.signals.unless_ending(self.output.show(begun)).await,
            Ok(Ok(begun)) => self.signals.unless(self.output.show(begun)).await,
            Ok(Err(broken)) => Ok(Err(broken)),
            Err(stop) => Err(stop),
        };
        self.output.leave_pager().await;
        match shown {
            Ok(Ok(())) => Ok(Ok(())),
            Ok(Err(Broken::Query(error))) => Ok(Err(error)),
            Ok(Err(Broken::Output(error))) => Err(error.into()),
            Err(Stop::Interrupted) if endless => Err(Stop::Ended),
            Err(stop) => Err(stop),
        }
    }

    /// Returns the web page, if there is one.
    pub fn web_page(&self) -> Option<&millstream_web::Page> {
        self.web.as_ref().and_then(Web::page)
    }

    /// Waits until all sources have ended, or for a signal. In a run that follows its sources, a signal is
    /// no failure.
    pub async fn finish(&mut self) -> Result<(), Stop> {
        if self.engine.follows() && self.engine.recovered().is_none() {
            self.say("its data is lost when it ends: with --data DIR the next run continues from there");
        }
        let finished = self.watch.during(&self.engine, self.engine.finished());
        match self.signals.unless_ending(finished).await {
            Ok(result) => {
                result.map_err(|error| Stop::engine(&error))?;
                self.watch.tell_end(&self.engine.progress());
                Ok(())
            }
            Err(Stop::Interrupted) if self.engine.follows() => {
                self.signals.shutdown.begin();
                Ok(())
            }
            Err(stop) => Err(stop),
        }
    }

    /// Stops the engine in good order: processes the rows taken so far, and flushes its sinks. After a
    /// signal, with `stop_gracefully`, it also processes the rows that sources have received. `end` is the
    /// result so far. Ctrl-C during the stop ends the program at once.
    pub async fn stop(mut self, end: Result<(), Stop>) -> Result<(), Stop> {
        if let Some(Web::Served(page)) = self.web.take() {
            page.stop().await;
        }
        let shutdown = &self.signals.shutdown;
        if end == Err(Stop::Interrupted) {
            shutdown.begin();
        }
        let (graceful, engine) = (shutdown.is_graceful(), self.engine.clone());
        let stopping =
            async move { if graceful { engine.stop_gracefully().await } else { engine.stop().await } };
        let stopped = self.watch.during(&self.engine, stopping);
        let Ok(stopped) = self.signals.unless_interrupted(stopped).await else {
            // Dropping the engine would block for the same reason.
            std::process::exit(Stop::Interrupted.code().into());
        };
        let progress = self.engine.progress();
        self.tell_bad_rows(progress.bad_rows);
        end.and(stopped.map_err(|error| Stop::engine(&error)))?;
        if progress.problems.is_empty() {
            Ok(())
        } else {
            Err(Stop::external(progress.problems.join("\nerror: ")))
        }
    }

    /// Reports rows that couldn't be read.
    fn tell_bad_rows(&self, bad: u64) {
        if bad > 0 && !self.quiet {
            let were = if bad == 1 { "was" } else { "were" };
            let bad = counted(bad, "bad row");
            self.output
                .notice(&format!("{bad} {were} kept aside: SELECT * FROM bad_rows('source') shows them"));
        }
    }
}

/// Returns true if the engine has a setting of this name.
fn is_setting(name: &str) -> bool {
    millstream::settings().iter().any(|setting| setting.name == name)
}
