//! The program as a server under `kill -9`. Meanwhile clients change rows, replace a view's query, read the
//! past, and follow a durable subscription.

use std::path::Path;
use std::time::{Duration, Instant};

use millstream_testkit::drive::block_on;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use tokio::sync::Notify;

use super::PATIENCE;
use super::ledger::{self, Ledger, ensure};
use super::reader::{Changes, Reader};
use super::served::{Answer, Served};

/// The clients and their expected states.
pub struct Clients {
    pub ledger: Ledger,
    pub reader: Reader,
    changes: Changes,
}

impl Clients {
    pub fn new(place: &Path, seed: u64) -> Clients {
        Clients {
            ledger: Ledger::new(SmallRng::seed_from_u64(seed)),
            reader: Reader::new(SmallRng::seed_from_u64(seed + 1)),
            changes: Changes::new(&place.join("changes")),
        }
    }

    /// Checks after a start that everything acknowledged is there exactly once.
    pub async fn check(&mut self, served: &Served) -> Answer<()> {
        let client = served.client().await?;
        self.ledger.settle(&client).await?;
        self.ledger.check(&client).await?;
        let m = self.ledger.m();
        self.reader.catch_up(&client, &m).await?;
        let since = Instant::now();
        while !self.changes.come_to(&m)? {
            // A query, to notice if the program is gone.
            client.ask("SELECT 1").await?;
            ensure(since.elapsed() < PATIENCE, || {
                format!("the files come to {}\n  expected {m:?}", self.changes.shown())
            })?;
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Ok(())
    }

    /// Returns true if each client has tried all of its operations.
    pub fn have_tried_all(&self) -> bool {
        self.ledger.altered > 0 && self.ledger.compared > 0 && self.reader.taken > 0
    }

    /// Runs the clients until the program is gone.
    pub async fn work(&mut self, served: &Served) -> Answer<()> {
        let (writes, reads) = (served.client().await?, served.client().await?);
        tokio::try_join!(self.ledger.write(&writes), self.reader.read(&reads)).map(drop)
    }
}

#[test]
fn clients_find_what_they_were_told_whenever_the_server_is_killed() {
    let rounds: u32 = std::env::var("ROUNDS").map_or(6, |rounds| rounds.parse().unwrap());
    let temporary = tempfile::tempdir().unwrap();
    let place = temporary.path();
    let script = format!(
        "SET checkpoint_interval = '30 milliseconds';\nSET history_retention = '1 hour';\n{}",
        ledger::script()
    );
    std::fs::write(place.join("app.sql"), script).unwrap();
    let mut clients = Clients::new(place, 7);
    let mut random = SmallRng::seed_from_u64(11);
    block_on(async {
        let (mut is_made, mut round) = (false, 0);
        // More rounds if a busy machine has kept some operations from running.
        while round < rounds || (round < 10 * rounds && !clients.have_tried_all()) {
            // Every other round is timed from the start, so the kill may hit recovery; the others from the
            // end of the checks.
            let lives = Duration::from_millis(random.random_range(0..2000));
            let checked = Notify::new();
            let passed = async {
                if round % 2 == 1 {
                    checked.notified().await;
                }
                tokio::time::sleep(lives).await;
            };
            // The script creates the objects. Later starts go without it, since clients have altered
            // queries.
            let served = Served::start(place, (!is_made).then_some("app.sql"));
            let work = async {
                drop(served.client().await?);
                is_made = true;
                clients.check(&served).await?;
                checked.notify_one();
                clients.work(&served).await
            };
            served.killed_after(passed, work).await;
            round += 1;
        }
        let served = Served::start(place, (!is_made).then_some("app.sql"));
        clients.check(&served).await.map_err(|fault| format!("{fault:?}"))?;
        assert!(clients.have_tried_all(), "not all was tried in {round} rounds");
        let Ledger { done, altered, compared, .. } = clients.ledger;
        println!(
            "{round} rounds, {done} changes, {altered} of them of a query, {compared} answers of the past"
        );
        println!("{} epochs of the subscription", clients.reader.taken);
        Ok(())
    })
    .unwrap();
}
