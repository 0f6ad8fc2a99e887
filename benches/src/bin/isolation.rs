//! Measures by how much hostile statements of some sessions slow down the short statements of others.
//!
//! ```text
//! cargo build --release --bin millstream
//! cargo run --release --bin isolation -- [OPTIONS]
//!
//!   --pairs N     rows of the table that is joined with itself (default 60000)
//!   --rows N      rows of the table that is sorted and updated (default 1000000)
//!   --seconds N   how long to measure, without the hostile statements and with them (default 20)
//! ```
//!
//! Starts the program `millstream` that lies beside this one as a server. At first there are no other
//! clients. Then twenty sessions run one hostile statement each.

#[path = "../../../crates/cli/tests/isolation/hostile.rs"]
mod hostile;

use std::time::Duration;

use hostile::{Scale, Seen, Server, hostile, measure, prepare};
use millstream_benches::Result;
use millstream_benches::options::Options;

const HELP: &str = "isolation [--pairs 60000] [--rows 1000000] [--seconds 20]
Milliseconds of short statements beside twenty hostile ones.";

#[tokio::main]
async fn main() -> Result<()> {
    let options = Options::read(HELP, &[("pairs", "60000"), ("rows", "1000000"), ("seconds", "20")])?;
    let scale = Scale { pairs: options.number("pairs")? as u64, rows: options.number("rows")? as u64 };
    let time = Duration::from_secs(options.number("seconds")? as u64);
    let program = std::env::current_exe()?.with_file_name("millstream");
    let place = std::env::temp_dir().join(format!("millstream-isolation-{}", std::process::id()));
    std::fs::create_dir_all(&place)?;
    let mut server = Server::start(&program, &place);
    let first = server.client().await;
    prepare(&first, scale).await;
    let idle = measure(&server, time, 1_000_000).await;
    for sql in hostile() {
        let client = server.client().await;
        tokio::spawn(async move {
            let shown: String = sql.chars().take(60).collect();
            match client.simple_query(&sql).await {
                Ok(_) => println!("  ended: {shown}"),
                Err(error) => println!("  failed: {shown}: {error}"),
            }
        });
    }
    tokio::time::sleep(Duration::from_millis(500)).await;
    let beside = measure(&server, time, 2_000_000).await;
    print(&idle, &beside);
    let running = server.is_running();
    drop(server);
    std::fs::remove_dir_all(&place)?;
    if running { Ok(()) } else { Err("the server has ended".into()) }
}

fn print(idle: &Seen, beside: &Seen) {
    println!("{:28} {:>24} {:>36}", "", "idle: p50, p99", "beside: p50, p99, most, count");
    for ((what, idle), (_, beside)) in idle.all().into_iter().zip(beside.all()) {
        let ms = |time: Duration| time.as_secs_f64() * 1e3;
        println!(
            "{what:28} {:10.2} {:10.2} ms {:10.2} {:10.2} {:10.2} ms {:6}",
            ms(idle.at(0.5)),
            ms(idle.at(0.99)),
            ms(beside.at(0.5)),
            ms(beside.at(0.99)),
            ms(beside.at(1.0)),
            beside.count()
        );
    }
}
