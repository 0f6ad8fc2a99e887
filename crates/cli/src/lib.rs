//! The `millstream` command: runs SQL scripts, test suites, or a shell, with the engine inside.
//!
//! Everything here drives a [`millstream::Session`], as any other front end would; no part of the engine is
//! known beyond that. The library exists for two users: the program itself, and test harnesses that need
//! [`slt`].

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
mod variables;

use std::process::ExitCode;
use std::sync::Arc;

use millstream::{Engine, EngineBuilder};
use millstream_postgres::Postgres;

use crate::args::{Action, Request};
use crate::client::Client;
use crate::stop::Stop;

/// Threads that serve the connections of a server.
const NETWORK_THREADS: usize = 8;

/// Does what the command line asks for, and says how it went.
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

/// An engine to be, with the connectors that have crates of their own, too.
pub fn builder() -> EngineBuilder {
    Engine::builder().connector(Arc::new(Postgres))
}

/// One thread is enough where the engine's own do the work; a server's clients share several.
fn run(request: Request) -> Result<(), Stop> {
    let mut runtime = match request.action {
        Action::Serve { .. } => tokio::runtime::Builder::new_multi_thread(),
        _ => tokio::runtime::Builder::new_current_thread(),
    };
    let runtime = runtime
        // One client's answer of many columns takes a thread for long: others write theirs meanwhile.
        .worker_threads(NETWORK_THREADS)
        .enable_all()
        .build()
        .map_err(|error| Stop::external(format_args!("the program can't be started: {error}")))?;
    let done = runtime.block_on(perform(request));
    // A statement that a thread still works on doesn't hold up the end of the process.
    runtime.shutdown_background();
    done
}

async fn perform(request: Request) -> Result<(), Stop> {
    if request.no_color {
        console::set_colors_enabled(false);
        console::set_colors_enabled_stderr(false);
    }
    match request.action {
        Action::Commands(commands) => {
            commands::run_texts(Client::new(request.variables, request.quiet, request.data)?, &commands).await
        }
        Action::Script(path) => {
            let script = script::read(path.as_deref())?;
            commands::run_script(Client::new(request.variables, request.quiet, request.data)?, &script).await
        }
        Action::Inspect(place) => inspect::run(&place),
        Action::Test { paths, filter, complete } => {
            slt::test(&paths, filter.as_deref(), complete, request.quiet).await
        }
        Action::Serve { listen, script } => {
            let script = script.map(|path| script::read(Some(&path))).transpose()?;
            serve::run(Client::new(request.variables, request.quiet, request.data)?, &listen, script.as_ref())
                .await
        }
        Action::Shell => shell::run(request.variables, request.quiet, request.data).await,
    }
}
