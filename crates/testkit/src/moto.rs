//! An object store for one test: moto's server, an S3 simulator, if it is installed.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::drive::Result;

/// The time limit of its start, even on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// A running server; dropping the value stops it.
#[derive(Debug)]
pub struct Moto {
    process: Child,
    port: u16,
}

impl Moto {
    /// Starts a server with a bucket of this name. If it isn't installed, prints a note to standard error and
    /// returns `None`; if CI=true, fails.
    pub fn start(bucket: &str) -> Result<Option<Moto>> {
        let Some(program) = program() else {
            let missing = "moto_server isn't installed (pip install 'moto[server,s3]')";
            if std::env::var_os("CI").is_some_and(|ci| ci == "true") {
                return Err(missing.to_string());
            }
            eprintln!("skipped: {missing}");
            return Ok(None);
        };
        let free = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr());
        let port = free.map_err(|error| error.to_string())?.port();
        let mut command = Command::new(&program);
        command.args(["-H", "127.0.0.1", "-p", &port.to_string()]).stdin(Stdio::null());
        let process = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        let process = process.map_err(|error| format!("{}: {error}", program.display()))?;
        let mut moto = Moto { process, port };
        let begun = Instant::now();
        while let Err(error) = moto.put(bucket) {
            let ended = moto.process.try_wait().ok().flatten();
            if begun.elapsed() > PATIENCE || ended.is_some() {
                return Err(format!("moto_server doesn't answer: {error} ({ended:?})"));
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(Some(moto))
    }

    /// Returns the environment variables that a program needs to reach the server.
    pub fn environment(&self) -> Vec<(&'static str, String)> {
        vec![
            ("AWS_ENDPOINT", format!("http://127.0.0.1:{}", self.port)),
            ("AWS_ACCESS_KEY_ID", "tester".into()),
            ("AWS_SECRET_ACCESS_KEY", "open sesame".into()),
            ("AWS_REGION", "us-east-1".into()),
        ]
    }

    /// Creates a bucket.
    fn put(&self, bucket: &str) -> std::io::Result<()> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port))?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let authorization = "AWS4-HMAC-SHA256 Credential=tester/20260101/us-east-1/s3/aws4_request, \
                             SignedHeaders=host, Signature=none";
        write!(
            stream,
            "PUT /{bucket} HTTP/1.1\r\nHost: 127.0.0.1:{}\r\nAuthorization: {authorization}\r\n\
             Content-Length: 0\r\nConnection: close\r\n\r\n",
            self.port
        )?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        let first = answer.lines().next().unwrap_or_default().to_string();
        if first.contains(" 200 ") { Ok(()) } else { Err(std::io::Error::other(first)) }
    }
}

impl Drop for Moto {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Returns the program, from `MOTO_SERVER` or the path.
fn program() -> Option<PathBuf> {
    if let Some(named) = std::env::var_os("MOTO_SERVER") {
        return Some(named.into());
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).map(|folder| folder.join("moto_server")).find(|program| program.is_file())
}
