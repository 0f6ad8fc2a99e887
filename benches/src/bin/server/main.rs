//! Measures the server for PostgreSQL clients, beside PostgreSQL itself on the same machine.
//!
//! ```text
//! cargo run --release --bin server -- [OPTIONS]
//!
//!   --what A,B    rows, copy, point, changes, many (default: all)
//!   --rows N      rows of a result and of a COPY (default 5000000)
//!   --seconds N   how long point reads and changes run (default 10)
//!   --postgres D  where initdb and pg_ctl are (default: the newest below /usr/lib/postgresql); none to leave it out
//! ```
//!
//! The server is the program `millstream` beside this one (`cargo build --release --bin millstream`), in a
//! process of its own. PostgreSQL runs in a fresh cluster without fsync, with an unlogged table. The same
//! few lines of client code read and send bulk data for both; they count messages without decoding them.

mod bulk;
mod live;
mod raw;
mod target;

use millstream_benches::Result;
use millstream_benches::options::Options;

use target::Target;

const HELP: &str =
    "server [--what rows,copy,point,changes,many] [--rows 5000000] [--seconds 10] [--postgres DIR]
What PostgreSQL clients get of the server, beside PostgreSQL itself.";

#[tokio::main]
async fn main() -> Result<()> {
    let options = Options::read(
        HELP,
        &[("what", "rows,copy,point,changes,many"), ("rows", "5000000"), ("seconds", "10"), ("postgres", "")],
    )?;
    let (rows, seconds) = (options.number("rows")?, options.number("seconds")?);
    let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    println!("load average {}", load.trim());
    for what in options.text("what").split(',') {
        match what {
            "rows" | "copy" => {
                let mut targets = vec![Target::millstream()?];
                match Target::postgres(options.text("postgres"))? {
                    Some(postgres) => targets.push(postgres),
                    None => println!("PostgreSQL is not here: Millstream alone"),
                }
                if what == "rows" { bulk::rows(&targets, rows)? } else { bulk::copy(&targets, rows)? }
            }
            "point" => live::point(&Target::millstream()?, seconds).await?,
            "changes" => live::changes(&Target::millstream()?, seconds).await?,
            "many" => live::many(&Target::millstream()?, seconds).await?,
            other => {
                return Err(format!("--what has '{other}', which is none of what can be measured").into());
            }
        }
    }
    Ok(())
}
