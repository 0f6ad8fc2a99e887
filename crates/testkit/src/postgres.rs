//! A PostgreSQL server for one test, if its programs are installed, and a proxy that cuts connections.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use tempfile::TempDir;
use tokio_postgres::{NoTls, SimpleQueryMessage};

use crate::drive::Result;

/// Its only user and the password.
const USER: &str = "tester";
const PASSWORD: &str = "open sesame";

/// A running server; dropping the value stops it.
#[derive(Debug)]
pub struct Postgres {
    folder: TempDir,
    programs: PathBuf,
    /// Its port.
    pub port: u16,
}

impl Postgres {
    /// Starts a server. If it isn't installed, prints a note to standard error and returns `None`; if
    /// CI=true, fails.
    pub fn start() -> Result<Option<Postgres>> {
        let Some(programs) = programs() else {
            let missing = "PostgreSQL's initdb isn't installed (Debian's package postgresql has it)";
            if std::env::var_os("CI").is_some_and(|ci| ci == "true") {
                return Err(missing.to_string());
            }
            eprintln!("skipped: {missing}");
            return Ok(None);
        };
        let folder = tempfile::tempdir().map_err(text)?;
        let free =
            TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).map_err(text)?;
        let postgres = Postgres { folder, programs, port: free.port() };
        let path = postgres.folder.path();
        std::fs::write(path.join("password"), PASSWORD).map_err(text)?;
        if is_root() {
            // The server refuses to run as root.
            run(Command::new("chown").args(["-R", "postgres"]).arg(path))?;
        }
        let mut initdb = postgres.program("initdb");
        initdb.args(["-U", USER, "-A", "scram-sha-256", "-E", "UTF8", "--locale=C", "--no-sync"]);
        run(initdb.arg("--pwfile").arg(path.join("password")).arg("-D").arg(path.join("data")))?;
        postgres.run()?;
        Ok(Some(postgres))
    }

    /// Starts the server again after [`Postgres::stop`].
    pub fn run(&self) -> Result<()> {
        let path = self.folder.path();
        let options =
            format!("-c listen_addresses=127.0.0.1 -c fsync=off -p {} -k {}", self.port, path.display());
        let mut control = self.program("pg_ctl");
        control.args(["-w", "-o", &options, "-D"]).arg(path.join("data"));
        run(control.arg("-l").arg(path.join("log")).arg("start"))
    }

    /// Stops the server and closes all its connections at once.
    pub fn stop(&self) -> Result<()> {
        let mut control = self.program("pg_ctl");
        run(control.args(["-w", "-m", "immediate", "-D"]).arg(self.folder.path().join("data")).arg("stop"))
    }

    /// Returns one of its programs, run as a user that it accepts.
    fn program(&self, name: &str) -> Command {
        let program = self.programs.join(name);
        if !is_root() {
            return Command::new(program);
        }
        let mut command = Command::new("runuser");
        command.args(["-u", "postgres", "--"]).arg(program).current_dir(self.folder.path());
        command
    }

    /// Returns the URL of its database, at a port that leads to the server.
    pub fn url(&self, port: u16) -> String {
        format!("postgres://{USER}:{}@127.0.0.1:{port}/postgres", PASSWORD.replace(' ', "%20"))
    }

    /// Runs statements; returns the rows of the last one, their values separated by bars.
    pub async fn query(&self, sql: &str) -> Result<Vec<String>> {
        let (client, connection) =
            tokio_postgres::connect(&self.url(self.port), NoTls).await.map_err(text)?;
        let connection = tokio::spawn(connection);
        let messages = client.simple_query(sql).await.map_err(|error| format!("{sql}: {error:?}"))?;
        drop(client);
        let _ = connection.await;
        let mut rows = Vec::new();
        for message in messages {
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
}

impl Drop for Postgres {
    fn drop(&mut self) {
        let _ = self.stop();
    }
}

/// Returns the folder of PostgreSQL's programs.
fn programs() -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut folders: Vec<PathBuf> = std::env::split_paths(&path).collect();
    // Debian installs them outside of the path, one folder per version.
    let versions = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let mut versions: Vec<PathBuf> = versions.map(|version| version.path().join("bin")).collect();
    versions.sort();
    folders.extend(versions.into_iter().rev());
    folders.into_iter().find(|folder| folder.join("initdb").is_file() && folder.join("pg_ctl").is_file())
}

fn is_root() -> bool {
    std::fs::metadata("/proc/self").is_ok_and(|process| {
        use std::os::unix::fs::MetadataExt;
        process.uid() == 0
    })
}

fn run(command: &mut Command) -> Result<()> {
    let name = Path::new(command.get_program()).display().to_string();
    // A started server inherits standard output. A pipe would then never end, so use a file.
    let told = tempfile::tempfile().map_err(text)?;
    let output = told.try_clone().and_then(|out| Ok((out, told.try_clone()?))).map_err(text)?;
    let status =
        command.stdout(output.0).stderr(output.1).status().map_err(|error| format!("{name}: {error}"))?;
    if status.success() {
        return Ok(());
    }
    let mut said = String::new();
    let mut told = told;
    let _ = std::io::Seek::rewind(&mut told).and_then(|()| told.read_to_string(&mut said));
    Err(format!("{name}: {status}: {said}"))
}

fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}

/// The client message at which the proxy cuts the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cut {
    /// Its number, counted from 1 over all connections.
    pub at: usize,
    /// True if the server receives the message; its answer is lost in any case.
    pub arrives: bool,
}

#[derive(Debug, Default)]
struct Counted {
    cut: Option<Cut>,
    messages: usize,
}

/// Forwards data between clients and a server until it cuts their connection. A message is the data that a
/// client sends at once.
#[derive(Clone, Debug)]
pub struct Proxy {
    /// Its port.
    pub port: u16,
    counted: Arc<Mutex<Counted>>,
}

impl Proxy {
    /// Starts a proxy for the server at a local port; it ends with the process.
    pub fn start(server: u16) -> Result<Proxy> {
        let listener = TcpListener::bind("127.0.0.1:0").map_err(text)?;
        let port = listener.local_addr().map_err(text)?.port();
        let proxy = Proxy { port, counted: Arc::default() };
        let counted = proxy.counted.clone();
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let counted = counted.clone();
                thread::spawn(move || pass_on(client, server, &counted));
            }
        });
        Ok(proxy)
    }

    /// Resets the count, and sets the next cut.
    pub fn cut(&self, cut: Option<Cut>) {
        *self.counted.lock().unwrap_or_else(PoisonError::into_inner) = Counted { cut, messages: 0 };
    }

    /// Returns true if the cut is still to come.
    pub fn is_waiting(&self) -> bool {
        self.counted.lock().unwrap_or_else(PoisonError::into_inner).cut.is_some()
    }
}

/// Forwards a client's data; a thread forwards the answers.
fn pass_on(mut client: TcpStream, server: u16, counted: &Mutex<Counted>) {
    let Ok(mut server) = TcpStream::connect(("127.0.0.1", server)) else { return };
    let (Ok(mut answers), Ok(mut to)) = (server.try_clone(), client.try_clone()) else { return };
    let muted = Arc::new(AtomicBool::new(false));
    let is_muted = muted.clone();
    thread::spawn(move || {
        let mut bytes = [0; 16 << 10];
        while let Ok(count @ 1..) = answers.read(&mut bytes) {
            if is_muted.load(Ordering::SeqCst) || to.write_all(&bytes[..count]).is_err() {
                break;
            }
        }
        let _ = to.shutdown(Shutdown::Both);
    });
    let mut bytes = vec![0; 1 << 20];
    while let Ok(count @ 1..) = client.read(&mut bytes) {
        let cut = {
            let mut counted = counted.lock().unwrap_or_else(PoisonError::into_inner);
            counted.messages += 1;
            let messages = counted.messages;
            counted.cut.take_if(|cut| cut.at == messages)
        };
        muted.store(cut.is_some(), Ordering::SeqCst);
        if cut.is_none_or(|cut| cut.arrives) && server.write_all(&bytes[..count]).is_err() {
            break;
        }
        if cut.is_some() {
            // Wait, so that the server has processed the message, or is processing it.
            thread::sleep(Duration::from_millis(2));
            break;
        }
    }
    let _ = server.shutdown(Shutdown::Both);
    let _ = client.shutdown(Shutdown::Both);
}
