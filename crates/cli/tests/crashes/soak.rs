//! A soak: mixed queries under clients, a file and a socket, with a checkpoint each second, killed every
//! few seconds. The outputs must be exact, and no measure may grow. `SOAK=24h cargo test -p millstream-cli
//! --test crashes -- soak` runs it for that long.

use std::fmt::Write;
use std::path::Path;
use std::time::{Duration, Instant};

use millstream_testkit::drive::block_on;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use tokio::sync::Notify;

use super::PATIENCE;
use super::clients::Clients;
use super::feeds::{self, Log, Socket};
use super::ledger::{self, ensure};
use super::served::{Answer, Fault, Served};

/// Minimum number of lives measured before growth is judged.
const LIVES_MIN: usize = 9;

/// Parses `90s`, `10m`, `24h`.
fn duration(text: &str) -> Duration {
    let (number, unit) = text.split_at(text.len() - 1);
    let seconds = [("s", 1), ("m", 60), ("h", 3600)].into_iter().find(|(name, _)| *name == unit);
    let number = number.parse::<u64>().ok().zip(seconds);
    let (number, (_, seconds)) = number.unwrap_or_else(|| panic!("SOAK is '{text}', not as 90s, 10m or 24h"));
    Duration::from_secs(number * seconds)
}

/// A quantity measured in each life, right after the checks of the previous life's data.
struct Series {
    name: &'static str,
    /// Permitted growth: the normal variation of the measurement.
    slack_bytes: u64,
    bytes: Vec<u64>,
}

impl Series {
    fn new(name: &'static str, slack_bytes: u64) -> Series {
        Series { name, slack_bytes, bytes: Vec::new() }
    }

    /// Returns the medians of the first third of all lives, without the very first ones, and of the last
    /// third.
    fn medians(&self) -> Option<(u64, u64)> {
        let settled = self.bytes.get(2..)?;
        let third = settled.len() / 3;
        let median = |part: &[u64]| {
            let mut part = part.to_vec();
            part.sort_unstable();
            part.get(part.len() / 2).copied()
        };
        median(settled.get(..third)?).zip(median(settled.get(settled.len() - third..)?))
    }

    fn check(&self, told: &mut String) {
        let Some((first, last)) = self.medians() else { return };
        let most = self.bytes.iter().max().copied().unwrap_or_default();
        writeln!(told, "{}: {first} bytes at first, {last} at last, {most} at most", self.name).unwrap();
        let is_enough = self.bytes.len() >= LIVES_MIN;
        assert!(!is_enough || last <= first + first / 5 + self.slack_bytes, "{told}: {:?}", self.bytes);
    }
}

/// Returns the bytes of all files below a folder; files that vanish meanwhile don't count.
fn size(folder: &Path) -> u64 {
    let Ok(entries) = std::fs::read_dir(folder) else { return 0 };
    let sizes = entries.flatten().map(|entry| match entry.metadata() {
        Ok(found) if found.is_dir() => size(&entry.path()),
        Ok(found) => found.len(),
        Err(_) => 0,
    });
    sizes.sum()
}

/// All parts of the soak.
struct Soak {
    clients: Clients,
    log: Log,
    socket: Socket,
    memory: Series,
    state: Series,
    directory: Series,
    kills: usize,
}

impl Soak {
    /// Checks all outputs after a start, then measures the resources.
    async fn check(&mut self, served: &Served, place: &Path) -> Answer<()> {
        self.clients.check(served).await?;
        let client = served.client().await?;
        let since = Instant::now();
        // Evaluate both, whatever the first one returns.
        while !(self.log.is_there(&client).await? & self.socket.agrees(&client).await?) {
            ensure(since.elapsed() < PATIENCE, || {
                let (rows, closed) = (self.log.rows, self.log.closed);
                format!("of {rows} rows {closed} windows have come, and of the socket {}", self.socket.count)
            })?;
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let mut verified = 0;
        for view in client.ask("SELECT name FROM millstream.materialized_views").await? {
            match client.ask(&format!("VERIFY {view}")).await {
                Ok(differs) => {
                    verified += 1;
                    ensure(differs.is_empty(), || format!("{view} differs from its query: {differs:?}"))?;
                }
                Err(Fault::Lost) => return Err(Fault::Lost),
                // Some inputs are not kept, or were too late for the view.
                Err(Fault::Told(_)) => {}
            }
        }
        ensure(verified > 2, || format!("{verified} views were verified"))?;
        let state = client.number("SELECT sum(state_bytes) FROM millstream.operators").await?;
        self.state.bytes.push(u64::try_from(state).unwrap());
        self.memory.bytes.extend(served.memory());
        self.directory.bytes.push(size(&place.join("state")));
        Ok(())
    }

    /// Runs all clients and inputs until the program is gone.
    async fn work(&mut self, served: &Served) -> Answer<()> {
        self.socket.flow(true);
        tokio::try_join!(self.clients.work(served), self.log.feed()).map(drop)
    }

    /// Returns true if each output has been seen.
    fn has_tried_all(&self) -> bool {
        self.clients.have_tried_all() && self.log.closed > 0 && self.log.late > 0 && self.socket.count > 0
    }

    fn told(&self) -> String {
        let mut told = String::new();
        let ledger = &self.clients.ledger;
        writeln!(told, "{} kills, {} starts that were checked", self.kills, self.directory.bytes.len())
            .unwrap();
        writeln!(told, "{} changes, {} of them of a query", ledger.done, ledger.altered).unwrap();
        writeln!(told, "{} answers of the past", ledger.compared).unwrap();
        writeln!(told, "{} epochs of the subscription", self.clients.reader.taken).unwrap();
        let log = &self.log;
        writeln!(told, "{} rows, {} too late, {} windows", log.rows, log.late, log.closed).unwrap();
        writeln!(told, "{} numbers of the socket", self.socket.count).unwrap();
        for series in [&self.memory, &self.state, &self.directory] {
            series.check(&mut told);
        }
        told
    }
}

#[test]
fn a_soak_has_exact_outputs_and_nothing_grows() {
    let length = duration(&std::env::var("SOAK").unwrap_or("15s".into()));
    let temporary = tempfile::tempdir().unwrap();
    let place = temporary.path();
    block_on(async {
        let (socket, port) = Socket::listen(place).await;
        let script = format!(
            "SET checkpoint_interval = '1 second';\nSET history_retention = '5 seconds';\n{}{}",
            ledger::script(),
            feeds::script(port)
        );
        std::fs::write(place.join("app.sql"), script).unwrap();
        let mut soak = Soak {
            clients: Clients::new(place, 23),
            log: Log::new(place),
            socket,
            // Allocators keep some freed memory, and the engine keeps up to 16 MiB of late rows for each
            // query by design.
            memory: Series::new("memory", 32 << 20),
            state: Series::new("state", 256 << 10),
            // The number of checkpoints varies by one, and the journal by a second or two.
            directory: Series::new("data directory", 2 << 20),
            kills: 0,
        };
        let mut random = SmallRng::seed_from_u64(29);
        let (since, mut is_made) = (Instant::now(), false);
        // Longer if a busy machine has kept some output from appearing.
        while since.elapsed() < length || (since.elapsed() < length + PATIENCE && !soak.has_tried_all()) {
            let served = Served::start(place, (!is_made).then_some("app.sql"));
            let lives = Duration::from_millis(random.random_range(0..4500));
            // One in four is killed some time after its start began, the others after all checks.
            let (is_early, checked) = (random.random_range(0..4) == 0, Notify::new());
            let passed = async {
                if !is_early {
                    checked.notified().await;
                }
                tokio::time::sleep(lives).await;
            };
            let work = async {
                drop(served.client().await?);
                is_made = true;
                soak.check(&served, place).await?;
                checked.notify_one();
                soak.work(&served).await
            };
            served.killed_after(passed, work).await;
            soak.kills += 1;
            soak.socket.flow(false);
        }
        let served = Served::start(place, (!is_made).then_some("app.sql"));
        soak.check(&served, place).await.map_err(|fault| format!("{fault:?}: {}", served.told()))?;
        println!("{}", soak.told());
        assert!(soak.has_tried_all(), "not all was tried: {}", soak.told());
        Ok(())
    })
    .unwrap();
}
