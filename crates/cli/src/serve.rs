//! `millstream server`: serves PostgreSQL clients until a signal or a STOP.

use std::time::Duration;

use millstream_server::{ListenError, Starting};
use tokio::sync::oneshot;

use crate::client::Client;
use crate::interpreter::Interpreter;
use crate::script::ScriptText;
use crate::stop::Stop;

/// Default address.
pub const ADDRESS: &str = "127.0.0.1:4777";

/// Interval of the checks for a STOP that has ended the engine.
const LOOK: Duration = Duration::from_millis(100);

/// Runs a script, if given, then serves clients until a signal or a STOP. SIGTERM lets running statements
/// finish.
pub async fn run(client: Client, starting: Starting, script: Option<&ScriptText>) -> Result<(), Stop> {
    let mut interpreter = Interpreter::new(client);
    let end = serve(&mut interpreter, starting, script).await;
    interpreter.end().await.stop(end).await
}

/// Listens before the engine starts: clients learn that it does, and a port in use is reported first.
pub async fn bind(address: &str) -> Result<Starting, Stop> {
    Starting::bind(address).await.map_err(|error| match error {
        ListenError::Address { .. } | ListenError::Open(_) => Stop::Usage(error.to_string()),
        ListenError::Taken(_) | ListenError::Refused { .. } | ListenError::Threads(_) => {
            Stop::external(error)
        }
    })
}

async fn serve(
    interpreter: &mut Interpreter,
    starting: Starting,
    script: Option<&ScriptText>,
) -> Result<(), Stop> {
    // Clients that connect while the script runs wait for its end.
    let server = starting.with(interpreter.client.engine.clone()).await.map_err(Stop::external)?;
    if let Some(script) = script {
        interpreter.client.session.begin_script();
        interpreter.run(script.source(true)).await?;
        interpreter.client.session.end_script();
    }
    let client = &mut interpreter.client;
    if client.engine.recovered().is_none() {
        client.say("its data is lost when it ends: with --data DIR it survives crashes");
    }
    let address = server.address();
    client.say(&format!(
        "listening on {address}: connect with psql -h {} -p {}, end with Ctrl-C",
        address.ip(),
        address.port()
    ));
    let engine = client.engine.clone();
    let (drain, drained) = oneshot::channel::<()>();
    let (stop, stopped) = oneshot::channel::<()>();
    let drained = async move {
        let _ = drained.await;
    };
    let mut serving = tokio::spawn(server.run_until(drained, async move {
        tokio::select! {
            _ = stopped => {}
            () = has_stopped(&engine) => {}
        }
    }));
    let shutdown = client.signals.shutdown.clone();
    let asked = client.signals.unless_signal(shutdown.unless_draining(&mut serving)).await;
    if asked.and_then(|done| done).is_ok() {
        return Ok(());
    }
    if shutdown.is_draining() {
        client.say(&format!(
            "ending: running statements may take {} s more; a second signal ends them at once",
            client.engine.shutdown().timeout.as_secs_f64()
        ));
        let _ = drain.send(());
        let page_finished = client.web_page().map(|page| {
            page.drain();
            page.finished()
        });
        let finished = async {
            let _ = (&mut serving).await;
            if let Some(finished) = page_finished {
                finished.await;
            }
        };
        if client.signals.unless_signal(finished).await.is_ok() {
            return Ok(());
        }
    }
    // Ctrl-C waits for no statement, but the engine has the same time to stop.
    shutdown.begin();
    let _ = stop.send(());
    // Clients are notified, and have a short time to leave.
    let _ = serving.await;
    Ok(())
}

async fn has_stopped(engine: &millstream::Engine) {
    while !engine.has_stopped() {
        tokio::time::sleep(LOOK).await;
    }
}
