//! A soak: mixed queries under clients, a file and a socket, a checkpoint each second, killed every few seconds. Outputs
//! are exact, and nothing grows. `SOAK=24h cargo test -p millstream-cli --test crashes -- soak` takes that long.

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

/// So many lives must have been measured until it is said whether something grows.
const LIVES_MIN: usize = 9;

/// `90s`, `10m`, `24h`.
fn duration(text: &str) -> Duration {
    let (number, unit) = text.split_at(text.len() - 1);
    let seconds = [("s", 1), ("m", 60), ("h", 3600)].into_iter().find(|(name, _)| *name == unit);
    let number = number.parse::<u64>().ok().zip(seconds);
    let (number, (_, seconds)) = number.unwrap_or_else(|| panic!("SOAK is '{text}', not as 90s, 10m or 24h"));
    Duration::from_secs(number * seconds)
}

/// A quantity that is measured in each life, at the same point: when all is checked that was there before.
struct Series {
    name: &'static str,
    /// What it may grow by without anything being kept for ever: what is measured varies by about that.
    slack_bytes: u64,
    bytes: Vec<u64>,
}

impl Series {
    fn new(name: &'static str, slack_bytes: u64) -> Series {
        Series { name, slack_bytes, bytes: Vec::new() }
    }

    /// The medians of the first third of all lives, without the very first ones, and of the last third.
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

/// The bytes of all files below a folder; what vanishes meanwhile counts nothing.
fn size(folder: &Path) -> u64 {
    let Ok(entries) = std::fs::read_dir(folder) else { return 0 };
    let sizes = entries.flatten().map(|entry| match entry.metadata() {
        Ok(found) if found.is_dir() => size(&entry.path()),
        Ok(found) => found.len(),
        Err(_) => 0,
    });
    sizes.sum()
}

/// All that goes on.
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
    /// After a start: all outputs are what they must be. Then it is measured what that takes.
    async fn check(&mut self, served: &Served, place: &Path) -> Answer<()> {
        self.clients.check(served).await?;
        let client = served.client().await?;
        let since = Instant::now();
        // Both are asked, whatever the first one says.
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
                // What some read is not kept, or came too late for it.
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

    /// All goes on until the program is gone.
    async fn work(&mut self, served: &Served) -> Answer<()> {
        self.socket.flow(true);
        tokio::try_join!(self.clients.work(served), self.log.feed()).map(drop)
    }

    /// Whether each output has come.
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
            // An allocator keeps some of what was freed, and up to 16 MiB of late rows are kept of a query by design.
            memory: Series::new("memory", 32 << 20),
            state: Series::new("state", 256 << 10),
            // It holds a checkpoint more or less, and the journal of a second or two.
            directory: Series::new("data directory", 2 << 20),
            kills: 0,
        };
        let mut random = SmallRng::seed_from_u64(29);
        let (since, mut is_made) = (Instant::now(), false);
        // Longer, where a machine is so busy that something hasn't come.
        while since.elapsed() < length || (since.elapsed() < length + PATIENCE && !soak.has_tried_all()) {
            let served = Served::start(place, (!is_made).then_some("app.sql"));
            let lives = Duration::from_millis(random.random_range(0..4500));
            // One of four is killed some time after its start began, the others when all has been checked.
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
