//! The `millstream` command: runs SQL scripts, test suites, or a shell, with the engine inside.
//!
//! All code here drives a [`millstream::Session`], as any other front end would, and uses no other part of
//! the engine. The library has two users: the program itself, and test harnesses that need [`slt`].

pub mod slt;

mod aborts;
mod args;
mod cell;
mod client;
mod clock;
mod commands;
mod copy;
mod describe;
mod editor;
mod form;
mod forms;
mod inspect;
mod interpreter;
mod live;
mod logging;
mod meta;
mod output;
mod page;
mod perform;
mod place;
mod program;
mod progress;
mod scan;
mod script;
mod serve;
mod shell;
mod shutdown;
mod signals;
mod split;
mod stop;
mod target;
mod text;
mod top;
mod traces;
mod variables;
mod web;

use std::process::ExitCode;
use std::sync::Arc;

use millstream::{Engine, EngineBuilder};
use millstream_kafka::Kafka;
use millstream_postgres::Postgres;
use tracing_subscriber::filter::LevelFilter;

use crate::args::{Action, Request};
use crate::client::Client;
use crate::stop::Stop;

/// Number of threads that serve the connections of a server.
const NETWORK_THREADS: usize = 8;

/// Runs the program for the command line, and returns the exit code.
pub fn main() -> ExitCode {
    let request = match args::read() {
        Ok(request) => request,
        Err(help) => {
            // Help goes to standard output with code 0, a mistake to standard error with code 2.
            let code = if help.use_stderr() { 2 } else { 0 };
            return help.print().map_or(ExitCode::FAILURE, |()| ExitCode::from(code));
        }
    };
    match request.and_then(run) {
        Ok(()) => ExitCode::SUCCESS,
        Err(stop) => stop.report(),
    }
}

/// Creates an engine builder, including the connectors with crates of their own.
pub fn builder() -> EngineBuilder {
    traces::listen(Engine::builder().connector(Arc::new(Kafka)).connector(Arc::new(Postgres)))
}

/// Runs a request. One thread suffices if the engine's own threads do the work; a server's clients share
/// several.
fn run(request: Request) -> Result<(), Stop> {
    logging::set_format(request.log_format)?;
    let mut runtime = match request.action {
        Action::Serve { .. } => tokio::runtime::Builder::new_multi_thread(),
        _ => tokio::runtime::Builder::new_current_thread(),
    };
    let runtime = runtime
        // A wide result for one client keeps a thread busy for long; the other threads serve the other
        // clients.
        .worker_threads(NETWORK_THREADS)
        .enable_all()
        .build()
        .map_err(|error| Stop::external(format_args!("the program can't be started: {error}")))?;
    let done = runtime.block_on(perform(request));
    traces::finish();
    // A statement still running on a thread doesn't delay the end of the process.
    runtime.shutdown_background();
    done
}

async fn perform(request: Request) -> Result<(), Stop> {
    if request.no_color {
        console::set_colors_enabled(false);
        console::set_colors_enabled_stderr(false);
    }
    logging::install(match (&request.action, request.quiet) {
        (Action::Test { .. } | Action::Inspect(_) | Action::Top(_), _) => LevelFilter::OFF,
        (_, true) => LevelFilter::ERROR,
        (_, false) => LevelFilter::WARN,
    })?;
    match request.action {
        Action::Commands(commands) => {
            let client = Client::new(request.variables, request.quiet, request.data, None)?;
            commands::run_texts(client, &commands).await
        }
        Action::Script(path) => {
            let script = script::read(path.as_deref())?;
            let web = request.ui.serve().await?;
            let client = Client::new(request.variables, request.quiet, request.data, web)?;
            commands::run_script(client, &script).await
        }
        Action::Top(options) => top::run(&options).await,
        Action::Inspect(place) => inspect::run(&place),
        Action::Test { paths, filter, complete } => {
            slt::test(&paths, filter.as_deref(), complete, request.quiet).await
        }
        Action::Serve { listen, script } => {
            let script = script.map(|path| script::read(Some(&path))).transpose()?;
            let starting = serve::bind(&listen).await?;
            let web = request.ui.serve().await?;
            let client = Client::new(request.variables, request.quiet, request.data, web)?;
            serve::run(client, starting, script.as_ref()).await
        }
        Action::Shell => shell::run(request.variables, request.quiet, request.data).await,
    }
}
