//! The program as a server, and a client that distinguishes a connection lost by a kill from an error.

use std::cell::Cell;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::process::Child;
use std::time::Duration;

use tokio_postgres::{NoTls, SimpleQueryMessage};

use super::{PATIENCE, program};

/// The reason for a missing answer.
#[derive(Debug)]
pub enum Fault {
    /// The connection was lost: the request may be done or not.
    Lost,
    /// The server returned an error.
    Told(String),
}

/// The answer to a client.
pub type Answer<T> = Result<T, Fault>;

/// A running server; dropping this kills it.
pub struct Served {
    child: std::sync::Mutex<Child>,
    told: PathBuf,
    was_killed: Cell<bool>,
}

impl Served {
    /// Starts a server over the data directory `state` of a place, with a script or with the existing data
    /// only.
    pub fn start(place: &Path, script: Option<&str>) -> Served {
        let told = place.join("told.txt");
        let server = [
            "--data",
            "state",
            "server",
            "--listen",
            "127.0.0.1:0",
            "--ui",
            "none",
            script.unwrap_or("--must-exist"),
        ];
        let output = File::create(&told).unwrap();
        let child =
            program(place, &server).stdout(output.try_clone().unwrap()).stderr(output).spawn().unwrap();
        Served { child: std::sync::Mutex::new(child), told, was_killed: Cell::new(false) }
    }

    /// Returns the program's output.
    pub fn told(&self) -> String {
        std::fs::read_to_string(&self.told).unwrap_or_default()
    }

    /// Opens a connection, once the server listens.
    pub async fn client(&self) -> Answer<Client> {
        let address = loop {
            let told = self.told();
            let after = told.split_once("listening on ").map(|(_, after)| after.to_string());
            if let Some((address, _)) = after.as_deref().and_then(|after| after.split_once(": ")) {
                break address.to_string();
            }
            if self.child.lock().unwrap().try_wait().unwrap().is_some() {
                return Err(Fault::Lost);
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        };
        let (host, port) = address.rsplit_once(':').unwrap();
        let config = format!("host={host} port={port} user=millstream dbname=millstream");
        let (client, connection) =
            tokio_postgres::connect(&config, NoTls).await.map_err(|error| fault("connect", &error))?;
        tokio::spawn(connection);
        Ok(Client { client })
    }

    /// Returns the resident memory in bytes, if the system reports it.
    pub fn memory(&self) -> Option<u64> {
        let id = self.child.lock().unwrap().id();
        let status = std::fs::read_to_string(format!("/proc/{id}/status")).ok()?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
        line.trim().trim_end_matches("kB").trim().parse::<u64>().ok().map(|kilobytes| kilobytes * 1024)
    }

    /// Kills the process, as a crash would.
    pub fn kill(&self) {
        self.was_killed.set(true);
        let mut child = self.child.lock().unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
    }

    /// Runs clients until `passed` is ready, then kills the server during their work. Answers received
    /// until then count.
    pub async fn killed_after(
        &self,
        passed: impl Future<Output = ()>,
        work: impl Future<Output = Answer<()>>,
    ) {
        let mut work = pin!(work);
        tokio::select! {
            end = &mut work => panic!("it was not killed yet, but {end:?}: {}", self.told()),
            () = passed => self.kill(),
        }
        match tokio::time::timeout(PATIENCE, work).await {
            // After a kill no other error is expected.
            Ok(Err(Fault::Lost)) => {}
            other => panic!("it was killed, but {other:?}: {}", self.told()),
        }
        let told = self.told();
        assert!(!told.contains("error:"), "{told}");
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        if !self.was_killed.get() {
            self.kill();
        }
    }
}

/// A client of the server.
pub struct Client {
    client: tokio_postgres::Client,
}

impl Client {
    /// Runs statements. Returns the rows of the last one, their values separated by bars.
    pub async fn ask(&self, sql: &str) -> Answer<Vec<String>> {
        let asked = tokio::time::timeout(PATIENCE, self.client.simple_query(sql)).await;
        let asked = asked.map_err(|_| Fault::Told(format!("{sql}: it isn't answered")))?;
        let mut rows = Vec::new();
        for message in asked.map_err(|error| fault(sql, &error))? {
            match message {
                SimpleQueryMessage::RowDescription(_) => rows.clear(),
                SimpleQueryMessage::Row(row) => {
                    let values = (0..row.len()).map(|column| row.get(column).unwrap_or("NULL"));
                    rows.push(values.collect::<Vec<_>>().join("|"));
                }
                _ => {}
            }
        }
        Ok(rows)
    }

    /// Returns the rows of one statement, sorted as text.
    pub async fn sorted(&self, sql: &str) -> Answer<Vec<String>> {
        let mut rows = self.ask(sql).await?;
        rows.sort();
        Ok(rows)
    }

    /// Returns a statement's only value, a number.
    pub async fn number(&self, sql: &str) -> Answer<i64> {
        let rows = self.ask(sql).await?;
        let number = rows.first().and_then(|number| number.parse().ok());
        number.ok_or_else(|| Fault::Told(format!("{sql} gives {rows:?}, where a number was expected")))
    }
}

fn fault(sql: &str, error: &tokio_postgres::Error) -> Fault {
    match error.as_db_error() {
        Some(error) => Fault::Told(format!("{sql}: {error}")),
        None => Fault::Lost,
    }
}
