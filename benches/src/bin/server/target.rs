//! The measured servers, each in processes of its own.

use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use millstream_benches::Result;

/// Maximum time for a server to start.
const START_MAX: Duration = Duration::from_secs(30);

/// A server that runs until this is dropped.
pub struct Target {
    pub name: &'static str,
    pub port: u16,
    /// The statement that creates a table without a log.
    pub create_table: &'static str,
    running: Running,
}

enum Running {
    Millstream(Child),
    Postgres { programs: PathBuf, data: tempfile::TempDir },
}

impl Target {
    /// Starts the program `millstream` that was built beside this one.
    pub fn millstream() -> Result<Target> {
        let program = std::env::current_exe()?.with_file_name("millstream");
        if !program.exists() {
            return Err(
                format!("build {} first: cargo build --release --bin millstream", program.display()).into()
            );
        }
        let port = free_port()?;
        let child = Command::new(program)
            .args(["server", "--quiet", "--ui", "none", "--listen", &format!("127.0.0.1:{port}")])
            .stdin(Stdio::null())
            .spawn()?;
        await_port(port)?;
        Ok(Target {
            name: "Millstream",
            port,
            create_table: "CREATE TABLE",
            running: Running::Millstream(child),
        })
    }

    /// Starts a fresh PostgreSQL; returns `None` if it isn't installed or `folder` is `none`.
    pub fn postgres(folder: &str) -> Result<Option<Target>> {
        let programs = match folder {
            "none" => return Ok(None),
            "" => match newest(Path::new("/usr/lib/postgresql")) {
                Some(programs) => programs,
                None => return Ok(None),
            },
            folder => PathBuf::from(folder),
        };
        let data = tempfile::tempdir()?;
        let port = free_port()?;
        // PostgreSQL refuses to run as root, so Debian's user `postgres` runs it.
        if is_root()? {
            run(Command::new("chown").arg("postgres").arg(data.path()))?;
        }
        let cluster = data.path().join("cluster");
        run(as_user(&programs.join("initdb"))?.arg("-D").arg(&cluster).args(["-A", "trust", "-U", "bench"]))?;
        let settings = format!(
            "-p {port} -c listen_addresses=127.0.0.1 -c unix_socket_directories={} -c fsync=off \
             -c synchronous_commit=off -c full_page_writes=off -c shared_buffers=1GB -c max_wal_size=4GB",
            data.path().display()
        );
        run(as_user(&programs.join("pg_ctl"))?
            .arg("-D")
            .arg(&cluster)
            .args(["-w", "-o", &settings, "start"]))?;
        let running = Running::Postgres { programs, data };
        Ok(Some(Target { name: "PostgreSQL", port, create_table: "CREATE UNLOGGED TABLE", running }))
    }

    /// Returns the connection settings for a client library.
    pub fn config(&self) -> String {
        let database = if matches!(self.running, Running::Millstream(_)) { "millstream" } else { "postgres" };
        format!("host=127.0.0.1 port={} user=bench dbname={database}", self.port)
    }

    /// Returns the resident memory of the process in MiB, now and at its peak. Only for Millstream, which
    /// is one process.
    pub fn memory_mib(&self) -> Result<Option<(f64, f64)>> {
        let Running::Millstream(child) = &self.running else { return Ok(None) };
        let status = std::fs::read_to_string(format!("/proc/{}/status", child.id()))?;
        let field = |name: &str| -> Result<f64> {
            let line = status.lines().find_map(|line| line.strip_prefix(name)).ok_or("no memory in /proc")?;
            Ok(line.trim().trim_end_matches("kB").trim().parse::<f64>()? / 1024.0)
        };
        Ok(Some((field("VmRSS:")?, field("VmHWM:")?)))
    }
}

impl Drop for Target {
    fn drop(&mut self) {
        match &mut self.running {
            Running::Millstream(child) => {
                let _ = child.kill();
                let _ = child.wait();
            }
            Running::Postgres { programs, data } => {
                if let Ok(mut stop) = as_user(&programs.join("pg_ctl")) {
                    let stop =
                        stop.arg("-D").arg(data.path().join("cluster")).args(["-m", "immediate", "stop"]);
                    let _ = stop.stdout(Stdio::null()).stderr(Stdio::null()).status();
                }
            }
        }
    }
}

/// Returns the folder with the programs of the newest version.
fn newest(versions: &Path) -> Option<PathBuf> {
    let folders = std::fs::read_dir(versions).ok()?.flatten().map(|entry| entry.path().join("bin"));
    folders.filter(|folder| folder.join("initdb").exists()).max()
}

fn is_root() -> Result<bool> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    Ok(status.lines().any(|line| line.starts_with("Uid:") && line.split_whitespace().nth(1) == Some("0")))
}

fn as_user(program: &Path) -> Result<Command> {
    if !is_root()? {
        return Ok(Command::new(program));
    }
    let mut command = Command::new("runuser");
    command.args(["-u", "postgres", "--"]).arg(program).current_dir("/");
    Ok(command)
}

fn run(command: &mut Command) -> Result<()> {
    let output = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn()?.wait()?;
    if output.success() { Ok(()) } else { Err(format!("{command:?} fails: {output}").into()) }
}

fn free_port() -> Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

fn await_port(port: u16) -> Result<()> {
    let began = Instant::now();
    while TcpStream::connect(("127.0.0.1", port)).is_err() {
        if began.elapsed() > START_MAX {
            return Err("the server doesn't begin".into());
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}
