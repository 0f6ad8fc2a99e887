//! Those who take what the program hands out: the reader of a subscription, and whoever collects the files of a sink.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use rand::Rng;
use rand::rngs::SmallRng;

use super::ledger::ensure;
use super::served::{Answer, Client, Fault};

/// How often each row is there.
type Counts = BTreeMap<String, i64>;

fn add(counts: &mut Counts, row: String, count: i64) {
    let sum = counts.entry(row).or_default();
    *sum += count;
}

/// The rows of which there are so many, or None where there are fewer than none of one.
fn rows_of(counts: &Counts) -> Option<Vec<String>> {
    let copies = counts.iter().map(|(row, count)| Some(vec![row.clone(); usize::try_from(*count).ok()?]));
    Some(copies.collect::<Option<Vec<_>>>()?.concat())
}

/// Somebody who keeps what the subscription `readings` hands out, with the epoch up to which he has everything.
pub struct Reader {
    random: SmallRng,
    has: Counts,
    through: i64,
    /// The epoch up to which he has said so, and was answered.
    said: i64,
    /// How many epochs he has taken.
    pub taken: usize,
}

impl Reader {
    pub fn new(random: SmallRng) -> Reader {
        Reader { random, has: Counts::new(), through: -1, said: -1, taken: 0 }
    }

    /// Reads until the connection is lost. Now and then he comes anew, where he has said that he is.
    pub async fn read(&mut self, client: &Client) -> Answer<()> {
        loop {
            let fetches = self.random.random_range(1..20);
            self.come(client, fetches).await?;
        }
    }

    /// Reads until he has what the relation holds.
    pub async fn catch_up(&mut self, client: &Client, expected: &[String]) -> Answer<()> {
        for _ in 0..200 {
            self.come(client, 20).await?;
            if rows_of(&self.has).as_deref() == Some(expected) {
                return Ok(());
            }
        }
        Err(Fault::Told(format!("the reader has {:?}\n  expected {expected:?}", self.has)))
    }

    async fn come(&mut self, client: &Client, fetches: usize) -> Answer<()> {
        client.ask("DECLARE c SUBSCRIPTION CURSOR FOR readings WITH (PROGRESS = true)").await?;
        let (said, mut of_epoch) = (self.said, Vec::new());
        for _ in 0..fetches {
            let count = self.random.random_range(1..30);
            let lines = client.ask(&format!("FETCH {count} FROM c WITH (timeout = '20 ms')")).await?;
            for line in &lines {
                let parts: Vec<&str> = line.splitn(3, '|').collect();
                let [epoch, op, row] = parts[..] else {
                    return Err(Fault::Told(format!("{line} is no row of a subscription")));
                };
                let epoch: i64 = epoch.parse().unwrap();
                // Of an epoch without changes it may be told again that it is over.
                ensure(epoch > said || op == "progress", || {
                    format!("{line} is handed out, but {said} was confirmed")
                })?;
                match op {
                    "progress" => self.take(epoch, &mut of_epoch),
                    "insert" | "update_insert" => of_epoch.push((row.to_string(), 1)),
                    _ => of_epoch.push((row.to_string(), -1)),
                }
            }
            if self.through > self.said && self.random.random_range(0..4) == 0 {
                let through = self.through;
                client.ask(&format!("ADVANCE SUBSCRIPTION readings TO {through}")).await?;
                self.said = through;
            }
        }
        client.ask("CLOSE c").await.map(drop)
    }

    /// Has all rows of an epoch. What he had before is passed over.
    fn take(&mut self, epoch: i64, rows: &mut Vec<(String, i64)>) {
        let rows = std::mem::take(rows);
        if epoch > self.through {
            rows.into_iter().for_each(|(row, count)| add(&mut self.has, row, count));
            self.has.retain(|_, count| *count != 0);
            self.through = epoch;
            self.taken += 1;
        }
    }
}

/// Somebody who takes the files of a sink away, all but the newest, by which the sink knows what it holds.
pub struct Collector {
    folder: PathBuf,
    newest: i64,
}

impl Collector {
    pub fn new(folder: &Path) -> Collector {
        Collector { folder: folder.to_path_buf(), newest: -1 }
    }

    /// The visible files with their epochs.
    fn files(&self) -> BTreeMap<i64, Vec<PathBuf>> {
        let mut files = BTreeMap::<i64, Vec<PathBuf>>::new();
        let Ok(entries) = fs::read_dir(&self.folder) else { return files };
        for path in entries.map(|entry| entry.unwrap().path()) {
            let name = path.file_stem().unwrap().to_string_lossy().into_owned();
            if !name.starts_with('.') {
                let epoch = name.rsplit('-').next().unwrap().parse().unwrap();
                files.entry(epoch).or_default().push(path);
            }
        }
        files
    }

    /// The lines of the files that have come. Each epoch has one file, and comes after those before it.
    pub fn collect(&mut self) -> Answer<Vec<String>> {
        // A listing isn't of one moment: the second one has all that came before the newest of the first one.
        let Some(newest) = self.files().keys().copied().max() else { return Ok(Vec::new()) };
        let mut lines = Vec::new();
        for (epoch, paths) in self.files().range(..=newest) {
            let is_kept = *epoch == self.newest;
            ensure(paths.len() == 1 && *epoch >= self.newest, || {
                format!("epoch {epoch} is there again, after {}: {paths:?}", self.newest)
            })?;
            for path in paths {
                if !is_kept {
                    lines.extend(fs::read_to_string(path).unwrap().lines().map(str::to_string));
                }
                if *epoch < newest {
                    fs::remove_file(path).unwrap();
                }
            }
        }
        self.newest = newest;
        Ok(lines)
    }
}

/// What the changes in the files of the sink `changes` come to.
pub struct Changes {
    files: Collector,
    counts: Counts,
}

impl Changes {
    pub fn new(folder: &Path) -> Changes {
        Changes { files: Collector::new(folder), counts: Counts::new() }
    }

    /// Whether they come to these rows by now.
    pub fn come_to(&mut self, expected: &[String]) -> Answer<bool> {
        for line in self.files.collect()? {
            let (op, row) = line.split_once(',').unwrap();
            add(&mut self.counts, row.replace(',', "|"), if op == "insert" { 1 } else { -1 });
        }
        self.counts.retain(|_, count| *count != 0);
        Ok(rows_of(&self.counts).as_deref() == Some(expected))
    }

    /// What they come to, as text.
    pub fn shown(&self) -> String {
        format!("{:?}", self.counts)
    }
}
