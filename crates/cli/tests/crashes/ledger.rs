//! A client that writes a table and alters a view over it, and derives their expected content from its
//! answers.

use std::collections::BTreeMap;

use rand::Rng;
use rand::rngs::SmallRng;

use super::served::{Answer, Client, Fault};

/// Maximum number of keys in the table.
const KEYS: i64 = 40;
/// Upper bound of values.
const VALUES: i64 = 8;
/// Maximum number of epochs remembered.
const EPOCHS_MAX: usize = 200;

/// Rows of the table by key.
type Rows = BTreeMap<i64, i64>;

/// Computes the expected rows of a view as text.
type Worked = fn(&Rows) -> Vec<String>;

/// The queries for `m`: their columns and their key are the same.
const QUERIES: &[(&str, Worked)] = &[
    ("SELECT v AS g, sum(k) AS n FROM t GROUP BY v", |rows| grouped(rows, |v| v, |_| true)),
    ("SELECT v AS g, sum(k) AS n FROM t GROUP BY v HAVING sum(k) > 40", |rows| {
        grouped(rows, |v| v, |sum| sum > 40)
    }),
    ("SELECT (v % 2)::INT AS g, sum(k) AS n FROM t GROUP BY (v % 2)::INT", |rows| {
        grouped(rows, |v| v % 2, |_| true)
    }),
    ("SELECT v AS g, max(k)::BIGINT AS n FROM t WHERE k > 9 GROUP BY v", |rows| {
        let groups: Rows = rows.iter().filter(|(k, _)| **k > 9).map(|(k, v)| (*v, *k)).collect();
        groups.iter().map(|(g, n)| format!("{g}|{n}")).collect()
    }),
];

/// The views that never change: name, query, and expected content.
const VIEWS: &[(&str, &str, Worked)] = &[
    ("names", "SELECT name, count(*) AS c FROM t LEFT JOIN d ON t.v = d.v GROUP BY name", |rows| {
        let mut names = BTreeMap::<String, i64>::new();
        let name = |v: i64| if v < 4 { format!("name {v}") } else { "NULL".to_string() };
        rows.values().for_each(|v| *names.entry(name(*v)).or_default() += 1);
        names.iter().map(|(name, count)| format!("{name}|{count}")).collect()
    }),
    ("top", "SELECT k, v FROM t ORDER BY v DESC, k LIMIT 3", |rows| {
        let mut all: Vec<(i64, i64)> = rows.iter().map(|(k, v)| (-*v, *k)).collect();
        all.sort_unstable();
        all.iter().take(3).map(|(v, k)| format!("{k}|{}", -v)).collect()
    }),
];

fn grouped(rows: &Rows, group: fn(i64) -> i64, having: fn(i64) -> bool) -> Vec<String> {
    let mut sums = Rows::new();
    rows.iter().for_each(|(k, v)| *sums.entry(group(*v)).or_default() += k);
    sums.iter().filter(|(_, sum)| having(**sum)).map(|(g, n)| format!("{g}|{n}")).collect()
}

/// Returns the statements that create the table, the views, and the sink of `m`'s changes.
pub fn script() -> String {
    let views = VIEWS.iter().map(|(name, query, _)| format!("CREATE MATERIALIZED VIEW {name} AS {query};\n"));
    format!(
        "CREATE TABLE t (k INT PRIMARY KEY, v INT);
        CREATE TABLE d (v INT PRIMARY KEY, name TEXT);
        CREATE MATERIALIZED VIEW m AS {};
        CREATE MATERIALIZED VIEW over_m AS SELECT count(*) AS c, sum(n) AS s FROM m;
        {}CREATE SUBSCRIPTION readings FROM m;
        CREATE SINK changes FROM m
          WITH (connector = 'file', path = 'changes/', format = 'csv', header = false, changelog = true);
        INSERT INTO d SELECT i, concat('name ', i) FROM generate_series(0, 3) AS g(i);\n",
        QUERIES[0].0,
        views.collect::<String>()
    )
}

/// A change made by a statement.
#[derive(Clone, Debug)]
enum Change {
    Put(i64, i64),
    Remove(i64),
    Raise(i64),
    /// Swap the values of two keys, in a transaction.
    Swap(i64, i64),
    /// Replace the query of `m`, by ALTER or by CREATE OR REPLACE.
    Alter(usize, bool),
}

impl Change {
    fn any(random: &mut SmallRng) -> Change {
        let key = random.random_range(0..KEYS);
        match random.random_range(0..12) {
            0 => Change::Remove(random.random_range(0..4)),
            1 | 2 => Change::Raise(key),
            3 | 4 => Change::Swap(key, random.random_range(0..KEYS)),
            5 => Change::Alter(random.random_range(0..QUERIES.len()), random.random_range(0..2) == 0),
            _ => Change::Put(key, random.random_range(0..VALUES)),
        }
    }

    fn sql(&self, state: &State) -> String {
        match self {
            Change::Put(k, v) => format!("INSERT INTO t VALUES ({k}, {v})"),
            Change::Remove(k) => format!("DELETE FROM t WHERE k % 4 = {k}"),
            Change::Raise(k) => format!("UPDATE t SET v = (v + 1) % {VALUES} WHERE k > {k}"),
            Change::Swap(a, b) => {
                let set = |k, v: Option<&i64>| {
                    v.map_or_else(String::new, |v| format!("UPDATE t SET v = {v} WHERE k = {k}; "))
                };
                let (first, second) = (state.rows.get(a), state.rows.get(b));
                format!("BEGIN; {}{}COMMIT", set(a, second), set(b, first))
            }
            Change::Alter(query, true) => format!("ALTER MATERIALIZED VIEW m AS {}", QUERIES[*query].0),
            Change::Alter(query, false) => {
                format!("CREATE OR REPLACE MATERIALIZED VIEW m AS {}", QUERIES[*query].0)
            }
        }
    }
}

/// The expected content.
#[derive(Clone, Debug, Default, PartialEq)]
struct State {
    rows: Rows,
    /// The query of `m`.
    query: usize,
}

impl State {
    fn after(&self, change: &Change) -> State {
        let State { mut rows, mut query } = self.clone();
        match change {
            Change::Put(k, v) => drop(rows.insert(*k, *v)),
            Change::Remove(part) => rows.retain(|k, _| k % 4 != *part),
            Change::Raise(from) => {
                rows.iter_mut().filter(|(k, _)| *k > from).for_each(|(_, v)| *v = (*v + 1) % VALUES);
            }
            Change::Swap(a, b) => {
                let (first, second) = (self.rows.get(a), self.rows.get(b));
                if let (Some(first), Some(second)) = (first, second) {
                    rows.extend([(*a, *second), (*b, *first)]);
                }
            }
            Change::Alter(other, _) => query = *other,
        }
        State { rows, query }
    }

    fn table(&self) -> Vec<String> {
        let mut rows: Vec<String> = self.rows.iter().map(|(k, v)| format!("{k}|{v}")).collect();
        rows.sort();
        rows
    }

    fn m(&self) -> Vec<String> {
        let mut rows = QUERIES[self.query].1(&self.rows);
        rows.sort();
        rows
    }

    fn over_m(&self) -> String {
        let m = self.m();
        let sum = m.iter().map(|row| row.split_once('|').unwrap().1.parse::<i64>().unwrap()).sum::<i64>();
        format!("{}|{}", m.len(), if m.is_empty() { "NULL".to_string() } else { sum.to_string() })
    }
}

/// The writer.
pub struct Ledger {
    random: SmallRng,
    state: State,
    /// The change sent without an answer so far.
    doubtful: Option<Change>,
    /// Content as of past epochs.
    epochs: BTreeMap<i64, State>,
    /// Content as of an epoch that may not be durable yet.
    last_read: Option<(i64, State)>,
    /// The newest epoch reported by the server.
    newest: i64,
    /// Numbers of acknowledged statements, of alterations of `m`, and of comparisons with the past.
    pub done: usize,
    pub altered: usize,
    pub compared: usize,
}

impl Ledger {
    pub fn new(random: SmallRng) -> Ledger {
        Ledger {
            random,
            state: State::default(),
            doubtful: None,
            epochs: BTreeMap::new(),
            last_read: None,
            newest: 0,
            done: 0,
            altered: 0,
            compared: 0,
        }
    }

    /// Makes changes until the connection is lost.
    pub async fn write(&mut self, client: &Client) -> Answer<()> {
        loop {
            let mut change = Change::any(&mut self.random);
            if let Change::Swap(a, b) = &change
                && !(self.state.rows.contains_key(a) && self.state.rows.contains_key(b))
            {
                change = Change::Put(*a, 0);
            }
            self.doubtful = Some(change.clone());
            client.ask(&change.sql(&self.state)).await?;
            let after = self.state.after(&change);
            if after != self.state {
                // A crash may lose an epoch that was only read. An acknowledged later statement makes it
                // durable.
                self.epochs.extend(self.last_read.take());
            }
            (self.state, self.doubtful) = (after, None);
            self.done += 1;
            let alters = matches!(change, Change::Alter(..));
            self.altered += usize::from(alters);
            if alters || self.random.random_range(0..3) == 0 {
                self.read_epoch(client, alters).await?;
            }
        }
    }

    /// Remembers the content as of the newest epoch.
    async fn read_epoch(&mut self, client: &Client, has_altered: bool) -> Answer<()> {
        let epoch = client.number("SELECT coalesce(max(epoch), 0) FROM millstream.epochs").await?;
        // As of the last epoch before an alteration, the view may have the old or the new query.
        if epoch > self.newest && !has_altered {
            self.last_read = Some((epoch, self.state.clone()));
        }
        self.newest = epoch.max(self.newest);
        if self.epochs.len() > EPOCHS_MAX {
            self.epochs.pop_first();
        }
        Ok(())
    }

    /// Determines after a start if the unanswered change was applied. Every acknowledged change must be
    /// there.
    pub async fn settle(&mut self, client: &Client) -> Answer<()> {
        self.last_read = None;
        let Some(change) = &self.doubtful else { return Ok(()) };
        let after = self.state.after(change);
        let is_done = match change {
            Change::Alter(query, _) => {
                let found = client.ask("SHOW CREATE m").await?.concat();
                let found = found.trim_end().trim_end_matches(';');
                let is = |query: usize| found.ends_with(QUERIES[query].0);
                ensure(is(*query) || is(self.state.query), || format!("{change:?}: m is {found}"))?;
                is(*query)
            }
            _ => client.sorted("SELECT k, v FROM t").await? != self.state.table(),
        };
        if is_done {
            self.state = after;
        }
        self.doubtful = None;
        Ok(())
    }

    /// Checks the present content and that of past epochs.
    pub async fn check(&mut self, client: &Client) -> Answer<()> {
        let state = self.state.clone();
        expect(client, "SELECT k, v FROM t", state.table()).await?;
        expect(client, "SELECT g, n FROM m", state.m()).await?;
        expect(client, "SELECT c, s FROM over_m", vec![state.over_m()]).await?;
        for (name, _, worked) in VIEWS {
            expect(client, &format!("SELECT * FROM {name}"), worked(&state.rows)).await?;
        }
        let epochs: Vec<i64> = self.epochs.keys().copied().collect();
        for _ in 0..epochs.len().min(8) {
            let epoch = epochs[self.random.random_range(0..epochs.len())];
            self.check_past(client, epoch).await?;
        }
        Ok(())
    }

    async fn check_past(&mut self, client: &Client, epoch: i64) -> Answer<()> {
        let Some(state) = self.epochs.get(&epoch) else { return Ok(()) };
        for (name, columns, expected) in [("t", "k, v", state.table()), ("m", "g, n", state.m())] {
            let sql = format!("SELECT {columns} FROM {name} FOR SYSTEM_TIME AS OF {epoch}");
            match expect(client, &sql, expected).await {
                Ok(()) => self.compared += 1,
                // The epoch may be older than the retained history.
                Err(Fault::Told(told)) if told.contains("can't be read as of epoch") => {
                    let since = format!("SELECT since FROM millstream.history WHERE relation = '{name}'");
                    let since = client.number(&since).await?;
                    ensure(since > epoch, || format!("there is history since {since}, but {told}"))?;
                    self.epochs.remove(&epoch);
                    return Ok(());
                }
                Err(fault) => return Err(fault),
            }
        }
        Ok(())
    }

    /// Returns the expected content of `m`, sorted as text.
    pub fn m(&self) -> Vec<String> {
        self.state.m()
    }
}

/// Fails with `what` unless `holds`.
pub fn ensure(holds: bool, what: impl FnOnce() -> String) -> Answer<()> {
    if holds { Ok(()) } else { Err(Fault::Told(what())) }
}

/// Fails unless a statement returns these rows, in any order.
async fn expect(client: &Client, sql: &str, mut expected: Vec<String>) -> Answer<()> {
    expected.sort();
    let found = client.sorted(sql).await?;
    ensure(found == expected, || format!("{sql}\n  gives    {found:?}\n  expected {expected:?}"))
}
