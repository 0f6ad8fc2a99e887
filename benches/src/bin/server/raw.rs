//! A client that counts messages without decoding them, so its cost is the same for every server.

use std::io::{Read, Write};
use std::net::TcpStream;

use millstream_benches::Result;

/// A connection.
pub struct Raw {
    socket: TcpStream,
    input: Vec<u8>,
    /// Offset of the first unread byte of the input.
    at: usize,
}

/// The counts of the answer to a statement.
#[derive(Clone, Copy, Debug, Default)]
pub struct Counted {
    pub rows: u64,
    pub bytes: u64,
}

impl Raw {
    pub fn connect(port: u16, database: &str) -> Result<Raw> {
        let mut socket = TcpStream::connect(("127.0.0.1", port))?;
        socket.set_nodelay(true)?;
        let body = format!("user\0bench\0database\0{database}\0\0");
        let mut startup = ((body.len() + 8) as i32).to_be_bytes().to_vec();
        startup.extend_from_slice(&196_608_i32.to_be_bytes());
        startup.extend_from_slice(body.as_bytes());
        socket.write_all(&startup)?;
        let mut raw = Raw { socket, input: Vec::new(), at: 0 };
        raw.until(b'Z')?;
        Ok(raw)
    }

    /// Runs a statement and skips its rows.
    pub fn run(&mut self, sql: &str) -> Result<Counted> {
        self.send(b'Q', format!("{sql}\0").as_bytes())?;
        self.until(b'Z')
    }

    /// Begins a COPY … FROM STDIN.
    pub fn begin_copy(&mut self, sql: &str) -> Result<()> {
        self.send(b'Q', format!("{sql}\0").as_bytes())?;
        self.until(b'G').map(drop)
    }

    /// Sends a piece of a COPY's data.
    pub fn copy(&mut self, data: &[u8]) -> Result<()> {
        self.send(b'd', data)
    }

    /// Ends a COPY.
    pub fn end_copy(&mut self) -> Result<()> {
        self.send(b'c', &[])?;
        self.until(b'Z').map(drop)
    }

    fn send(&mut self, kind: u8, body: &[u8]) -> Result<()> {
        let mut head = vec![kind];
        head.extend_from_slice(&((body.len() + 4) as i32).to_be_bytes());
        self.socket.write_all(&head)?;
        Ok(self.socket.write_all(body)?)
    }

    /// Reads messages up to one of kind `last`.
    fn until(&mut self, last: u8) -> Result<Counted> {
        let mut counted = Counted::default();
        loop {
            let there = &self.input[self.at..];
            let whole = match there.get(1..5).and_then(|bytes| bytes.try_into().ok()) {
                Some(bytes) => i32::from_be_bytes(bytes) as usize + 1,
                None => usize::MAX,
            };
            if there.len() < whole {
                self.input.drain(..self.at);
                self.at = 0;
                let old = self.input.len();
                self.input.resize(old + (256 << 10), 0);
                let read = self.socket.read(&mut self.input[old..])?;
                self.input.truncate(old + read);
                if read == 0 {
                    return Err("the server hung up".into());
                }
                continue;
            }
            let kind = there[0];
            if kind == b'E' {
                let text = String::from_utf8_lossy(&there[5..whole]).replace('\0', " ");
                return Err(format!("the server says: {text}").into());
            }
            counted.rows += u64::from(kind == b'D');
            counted.bytes += whole as u64;
            self.at += whole;
            if kind == last {
                return Ok(counted);
            }
        }
    }
}
