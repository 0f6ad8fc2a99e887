//! Measures how soon the program answers, and the memory of an idle engine.
//!
//! ```text
//! cargo run --release --bin startup -- [OPTIONS]
//!
//!   --binary PATH   the program (default: `millstream` beside this one; build it first)
//!   --times N       how often it is started (default 20)
//! ```
//!
//! The yardstick is `true`, the program that does nothing: the cost of starting a process on this machine.

use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use millstream::Engine;
use millstream_benches::options::Options;
use millstream_benches::{Result, measure, yardstick};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const HELP: &str = "startup [--binary PATH] [--times 20]
Milliseconds until `millstream -c 'SELECT 1'` has answered, memory and CPU of an idle engine.";

const IDLE: Duration = Duration::from_secs(2);

#[tokio::main]
async fn main() -> Result<()> {
    let options = Options::read(HELP, &[("binary", ""), ("times", "20")])?;
    // The engine runs first, so that its memory can be separated from the memory used before.
    let before = measure::resident_mib()?;
    let engine = Engine::start()?;
    let mut session = engine.session();
    yardstick::rows(&mut session, "SELECT 1").await?;
    let cpu = measure::cpu_seconds()?;
    tokio::time::sleep(IDLE).await;
    let cpu = measure::cpu_seconds()? - cpu;
    let resident = measure::resident_mib()?;
    engine.stop().await?;
    let binary = binary(options.text("binary"))?;
    let times = options.number("times")?;
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for _ in 0..times {
        ours.push(started(Command::new(&binary).args(["-c", "SELECT 1"]))?);
        theirs.push(started(&mut Command::new("true"))?);
    }
    println!("{} -c 'SELECT 1', started {times} times", binary.display());
    println!(
        "  until it has ended   {:7.1} ms  (`true`: {:.1} ms)",
        measure::median(ours),
        measure::median(theirs)
    );
    println!("an engine that answered SELECT 1 and is idle");
    println!("  resident memory      {resident:7.1} MiB (before the engine: {before:.1} MiB)");
    println!("  CPU in {} s           {:7.0} ms", IDLE.as_secs(), cpu * 1e3);
    Ok(())
}

/// Returns the milliseconds until a command has succeeded.
fn started(command: &mut Command) -> Result<f64> {
    let start = Instant::now();
    let output = command.output()?;
    let milliseconds = start.elapsed().as_secs_f64() * 1e3;
    if !output.status.success() {
        return Err(format!("{command:?} failed: {}", String::from_utf8_lossy(&output.stderr)).into());
    }
    Ok(milliseconds)
}

fn binary(given: &str) -> Result<PathBuf> {
    let path =
        if given.is_empty() { std::env::current_exe()?.with_file_name("millstream") } else { given.into() };
    if path.is_file() {
        return Ok(path);
    }
    Err(format!("there is no program at {}: build it first, or name it with --binary", path.display()).into())
}
