//! Consumers of the program's output: the reader of a subscription, and a collector of a sink's files.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use rand::Rng;
use rand::rngs::SmallRng;

use super::ledger::ensure;
use super::served::{Answer, Client, Fault};

/// Number of copies of each row.
type Counts = BTreeMap<String, i64>;

fn add(counts: &mut Counts, row: String, count: i64) {
    let sum = counts.entry(row).or_default();
    *sum += count;
}

/// Returns the rows with their copies; `None` if a count is negative.
fn rows_of(counts: &Counts) -> Option<Vec<String>> {
    let copies = counts.iter().map(|(row, count)| Some(vec![row.clone(); usize::try_from(*count).ok()?]));
    Some(copies.collect::<Option<Vec<_>>>()?.concat())
}

/// A client that applies the changes of the subscription `readings`, and knows the last epoch applied.
pub struct Reader {
    random: SmallRng,
    has: Counts,
    through: i64,
    /// The last epoch confirmed with an answer.
    said: i64,
    /// Number of epochs applied.
    pub taken: usize,
}

impl Reader {
    pub fn new(random: SmallRng) -> Reader {
        Reader { random, has: Counts::new(), through: -1, said: -1, taken: 0 }
    }

    /// Reads until the connection is lost. Sometimes starts over from the last confirmed epoch.
    pub async fn read(&mut self, client: &Client) -> Answer<()> {
        loop {
            let fetches = self.random.random_range(1..20);
            self.come(client, fetches).await?;
        }
    }

    /// Reads until the client's rows equal the relation's.
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
                // The end of an epoch without changes may be reported again.
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

    /// Applies all rows of an epoch. Skips epochs that were applied before.
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

/// A collector that removes a sink's files, except for the newest one, by which the sink knows its last
/// epoch.
pub struct Collector {
    folder: PathBuf,
    newest: i64,
}

impl Collector {
    pub fn new(folder: &Path) -> Collector {
        Collector { folder: folder.to_path_buf(), newest: -1 }
    }

    /// Returns the visible files with their epochs.
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

    /// Returns the lines of new files. Each epoch has one file, and files appear in the order of epochs.
    pub fn collect(&mut self) -> Answer<Vec<String>> {
        // A listing isn't atomic. The second one has every file before the newest file of the first one.
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

/// The sum of the changes in the files of the sink `changes`.
pub struct Changes {
    files: Collector,
    counts: Counts,
}

impl Changes {
    pub fn new(folder: &Path) -> Changes {
        Changes { files: Collector::new(folder), counts: Counts::new() }
    }

    /// Returns true if the sum equals these rows by now.
    pub fn come_to(&mut self, expected: &[String]) -> Answer<bool> {
        for line in self.files.collect()? {
            let (op, row) = line.split_once(',').unwrap();
            add(&mut self.counts, row.replace(',', "|"), if op == "insert" { 1 } else { -1 });
        }
        self.counts.retain(|_, count| *count != 0);
        Ok(rows_of(&self.counts).as_deref() == Some(expected))
    }

    /// Returns the sum as text.
    pub fn shown(&self) -> String {
        format!("{:?}", self.counts)
    }
}
