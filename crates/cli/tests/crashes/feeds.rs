//! The external inputs of a soak: a growing file, some of whose rows are late for their windows; and
//! numbers over a socket, which can't be read again. Each knows the output that its sinks must deliver.

use std::collections::VecDeque;
use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use arrow::temporal_conversions::timestamp_ms_to_datetime;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;

use super::ledger::ensure;
use super::reader::Collector;
use super::served::{Answer, Client};

/// The time of row 0 in milliseconds: 2024-01-01. Row n is n tenths of a second later.
const BASE_MS: i64 = 1_704_067_200_000;
/// Rows of a window of ten seconds.
const WINDOW_ROWS: i64 = 100;
/// Delay of the watermark in rows.
const DELAY_ROWS: i64 = 20;

/// Returns the statements that create the sources and their readers; the socket is at a port of this
/// machine.
pub fn script(port: u16) -> String {
    let out = "connector = 'file', format = 'csv', header = false";
    format!(
        "CREATE SOURCE log (n BIGINT, at TIMESTAMP, WATERMARK FOR at AS at - INTERVAL '2 seconds')
          WITH (connector = 'file', path = 'log.csv', tail = true, format = 'csv', header = false);
        CREATE MATERIALIZED VIEW logged AS SELECT count(*) AS c, sum(n) AS s FROM log;
        CREATE SINK windows AS
          SELECT date_part('epoch', window_start)::BIGINT AS w, count(*) AS c, sum(n) AS s
          FROM TUMBLE(log, at, INTERVAL '10 seconds') GROUP BY window_start, window_end EMIT ON WINDOW CLOSE
          WITH ({out}, path = 'windows/');
        CREATE SOURCE spoken (n BIGINT) WITH (connector = 'socket', port = {port}, format = 'csv');
        CREATE MATERIALIZED VIEW heard AS SELECT count(*) AS c, sum(n) AS s, max(n) AS m FROM spoken;
        CREATE SINK written AS SELECT n FROM spoken WITH ({out}, path = 'written/');\n"
    )
}

/// The file, and the windows over it.
pub struct Log {
    file: File,
    /// Number of rows in time, and number of late rows.
    pub rows: i64,
    pub late: i64,
    windows: Collector,
    /// Number of windows delivered.
    pub closed: i64,
}

impl Log {
    pub fn new(place: &Path) -> Log {
        let file = File::create(place.join("log.csv")).unwrap();
        Log { file, rows: 0, late: 0, windows: Collector::new(&place.join("windows")), closed: 0 }
    }

    /// Writes rows for ever.
    pub async fn feed(&mut self) -> Answer<()> {
        loop {
            let mut lines = String::new();
            let at = |n: i64| timestamp_ms_to_datetime(BASE_MS + n * 100).unwrap();
            for _ in 0..10 {
                lines += &format!("{},{}\n", self.rows, at(self.rows));
                self.rows += 1;
            }
            // Once a window has closed, a row that is an hour older is late wherever epochs are cut.
            if self.closed > 0 && self.rows % 200 == 0 {
                lines += &format!("-1,{}\n", at(-36_000));
                self.late += 1;
            }
            self.file.write_all(lines.as_bytes()).unwrap();
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Returns true if all expected rows are there. Wrong rows are an error.
    pub async fn is_there(&mut self, client: &Client) -> Answer<bool> {
        for line in self.windows.collect()? {
            let first = self.closed * WINDOW_ROWS;
            let sum: i64 = (first..first + WINDOW_ROWS).sum();
            let start = (BASE_MS + first * 100) / 1000;
            let expected = format!("{start},{WINDOW_ROWS},{sum}");
            ensure(line == expected, || format!("window {line} was put out, expected {expected}"))?;
            self.closed += 1;
        }
        let due = (self.rows - 1 - DELAY_ROWS).max(0) / WINDOW_ROWS;
        let sum = self.rows * (self.rows - 1) / 2 - self.late;
        let expected = match self.rows {
            0 => "0|NULL".to_string(),
            rows => format!("{}|{sum}", rows + self.late),
        };
        let logged = client.ask("SELECT c, s FROM logged").await?;
        Ok(logged == [expected] && self.closed == due)
    }
}

/// The numbers sent over the socket. Those that arrived around a kill may be lost: of each connection a
/// prefix counts, each number once.
pub struct Socket {
    said: Arc<Said>,
    written: Collector,
    /// Number of values delivered, their sum, and the last of them.
    pub count: i64,
    sum: i64,
    last: i64,
}

/// The numbers sent.
#[derive(Default)]
struct Said {
    is_flowing: AtomicBool,
    /// The first number of each connection that has not been delivered.
    firsts: Mutex<VecDeque<i64>>,
}

impl Socket {
    /// Starts listening, and returns the port.
    pub async fn listen(place: &Path) -> (Socket, u16) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let said = Arc::new(Said::default());
        tokio::spawn(speak(listener, said.clone()));
        let written = Collector::new(&place.join("written"));
        (Socket { said, written, count: 0, sum: 0, last: -1 }, port)
    }

    /// Starts or stops the flow of numbers.
    pub fn flow(&self, is_flowing: bool) {
        self.said.is_flowing.store(is_flowing, Ordering::Relaxed);
    }

    /// Returns true if the view and the files agree. Wrong rows are an error.
    pub async fn agrees(&mut self, client: &Client) -> Answer<bool> {
        let lines = self.written.collect()?;
        let mut numbers: Vec<i64> = lines.iter().map(|line| line.parse().unwrap()).collect();
        numbers.sort_unstable();
        for n in numbers {
            let mut firsts = self.said.firsts.lock().unwrap();
            let is_first = firsts.contains(&n);
            ensure(n > self.last && (is_first || n == self.last + 1), || {
                format!("{n} was put out after {}, connections began with {firsts:?}", self.last)
            })?;
            firsts.retain(|first| *first > n);
            (self.count, self.sum, self.last) = (self.count + 1, self.sum + n, n);
        }
        let expected = match self.count {
            0 => "0|NULL|NULL".to_string(),
            count => format!("{count}|{}|{}", self.sum, self.last),
        };
        Ok(client.ask("SELECT c, s, m FROM heard").await? == [expected])
    }
}

/// Sends one number after the other, over one connection after the other.
async fn speak(listener: TcpListener, said: Arc<Said>) {
    let mut next = 0;
    loop {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut has_begun = false;
        loop {
            while !said.is_flowing.load(Ordering::Relaxed) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            if !has_begun {
                said.firsts.lock().unwrap().push_back(next);
                has_begun = true;
            }
            next += 1;
            if stream.write_all(format!("{}\n", next - 1).as_bytes()).await.is_err() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(3)).await;
        }
    }
}
