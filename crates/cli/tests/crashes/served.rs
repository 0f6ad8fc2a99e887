//! The program as a server, and a client of it that tells a connection which a kill has cut from an error.

use std::cell::Cell;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::process::Child;
use std::time::Duration;

use tokio_postgres::{NoTls, SimpleQueryMessage};

use super::{PATIENCE, program};

/// Why something was not answered.
#[derive(Debug)]
pub enum Fault {
    /// The connection was lost: what was asked may be done or not.
    Lost,
    /// It was refused.
    Told(String),
}

/// What a client has been told.
pub type Answer<T> = Result<T, Fault>;

/// A running server; it is killed with the value.
pub struct Served {
    child: std::sync::Mutex<Child>,
    told: PathBuf,
    was_killed: Cell<bool>,
}

impl Served {
    /// Starts one over the data directory `state` of a place, with a script or with what is there alone.
    pub fn start(place: &Path, script: Option<&str>) -> Served {
        let told = place.join("told.txt");
        let server =
            ["--data", "state", "server", "--listen", "127.0.0.1:0", script.unwrap_or("--must-exist")];
        let output = File::create(&told).unwrap();
        let child =
            program(place, &server).stdout(output.try_clone().unwrap()).stderr(output).spawn().unwrap();
        Served { child: std::sync::Mutex::new(child), told, was_killed: Cell::new(false) }
    }

    /// What the program has said.
    pub fn told(&self) -> String {
        std::fs::read_to_string(&self.told).unwrap_or_default()
    }

    /// A new connection, once it listens.
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

    /// The bytes of memory that it has by the system's count, where that tells them.
    pub fn memory(&self) -> Option<u64> {
        let id = self.child.lock().unwrap().id();
        let status = std::fs::read_to_string(format!("/proc/{id}/status")).ok()?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
        line.trim().trim_end_matches("kB").trim().parse::<u64>().ok().map(|kilobytes| kilobytes * 1024)
    }

    /// Ends it as a crash does.
    pub fn kill(&self) {
        self.was_killed.set(true);
        let mut child = self.child.lock().unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
    }

    /// Lets clients work until something has come to pass, then kills it in the middle of that. What they were told up to
    /// then counts.
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
            // Nothing else ends it after a kill.
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
    /// Runs statements; the rows of the last one, their values between bars.
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

    /// The rows of one statement, sorted as text.
    pub async fn sorted(&self, sql: &str) -> Answer<Vec<String>> {
        let mut rows = self.ask(sql).await?;
        rows.sort();
        Ok(rows)
    }

    /// A statement's only value, a number.
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
