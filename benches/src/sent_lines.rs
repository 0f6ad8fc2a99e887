//! Sends lines at a steady rate, and measures the time until their results.

use std::io::Write;
use std::net::TcpStream;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::Result;

/// Interval of sending; the lines of an interval are sent at once.
const TICK: Duration = Duration::from_millis(1);

/// Maximum time to wait for results after the last line was sent.
const TIMEOUT: Duration = Duration::from_secs(60);

/// The send times of lines, and their latencies.
#[derive(Debug)]
pub struct Times {
    began: Instant,
    /// Nanoseconds since `began`, by the line's number.
    sent: Vec<AtomicU64>,
    arrived: AtomicUsize,
    latencies: Mutex<Vec<u64>>,
}

impl Times {
    /// Creates the times of `lines` lines that are not sent yet.
    pub fn new(lines: usize) -> Times {
        Times {
            began: Instant::now(),
            sent: (0..lines).map(|_| AtomicU64::new(0)).collect(),
            arrived: AtomicUsize::new(0),
            latencies: Mutex::new(Vec::with_capacity(lines)),
        }
    }

    fn now(&self) -> u64 {
        self.began.elapsed().as_nanos() as u64
    }

    /// Records that a line is sent now.
    pub fn is_sent(&self, line: usize) {
        if let Some(sent) = self.sent.get(line) {
            sent.store(self.now(), Ordering::Relaxed);
        }
    }

    /// Records that lines have their result now.
    pub fn arrived(&self, lines: impl Iterator<Item = usize>) {
        let now = self.now();
        let mut latencies = self.latencies.lock().unwrap_or_else(PoisonError::into_inner);
        for line in lines {
            let sent = self.sent.get(line).map_or(now, |sent| sent.load(Ordering::Relaxed));
            latencies.push(now.saturating_sub(sent));
        }
        self.arrived.store(latencies.len(), Ordering::Relaxed);
    }

    /// Waits until all lines have arrived.
    pub async fn all_arrived(&self) -> Result<()> {
        let began = Instant::now();
        while self.arrived.load(Ordering::Relaxed) < self.sent.len() {
            if began.elapsed() > TIMEOUT {
                let arrived = self.arrived.load(Ordering::Relaxed);
                return Err(format!("{arrived} of {} lines have arrived", self.sent.len()).into());
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        Ok(())
    }

    /// Returns the latencies of all lines but the first `but_first`, in nanoseconds, sorted.
    pub fn latencies(&self, but_first: usize) -> Vec<u64> {
        let mut latencies =
            self.latencies.lock().unwrap_or_else(PoisonError::into_inner).split_off(but_first);
        latencies.sort_unstable();
        latencies
    }
}

/// Sends `rate` lines a second, those of a tick at once.
pub fn send(mut stream: TcpStream, times: &Times, rate: usize) -> std::io::Result<TcpStream> {
    stream.set_nodelay(true)?;
    let began = Instant::now();
    let mut text = Vec::new();
    let mut line = 0;
    while line < times.sent.len() {
        let due = (began.elapsed().as_secs_f64() * rate as f64) as usize;
        text.clear();
        let now = times.now();
        while line < due.min(times.sent.len()) {
            times.sent[line].store(now, Ordering::Relaxed);
            writeln!(text, "line {line}")?;
            line += 1;
        }
        stream.write_all(&text)?;
        std::thread::sleep(TICK);
    }
    Ok(stream)
}
