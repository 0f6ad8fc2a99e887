//! HTTP for servers of tests: one request a connection.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::Duration;

use crate::drive::Result;

/// A request.
#[derive(Clone, Debug, Default)]
pub(crate) struct Request {
    pub method: String,
    pub path: String,
    /// The header `Authorization`.
    pub login: Option<String>,
    pub body: Vec<u8>,
}

/// Starts a server on a free port, which it returns. Each request is answered with a status and a body, or with a closed
/// connection. The server stays until the process ends.
pub(crate) fn serve(
    content_type: &'static str,
    answer: impl Fn(&Request) -> Option<(u16, String)> + Clone + Send + 'static,
) -> Result<u16> {
    let listener = TcpListener::bind("127.0.0.1:0").map_err(|error| error.to_string())?;
    let port = listener.local_addr().map_err(|error| error.to_string())?.port();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let answer = answer.clone();
            std::thread::spawn(move || drop(serve_one(&stream, content_type, answer)));
        }
    });
    Ok(port)
}

fn serve_one(
    mut stream: &TcpStream,
    content_type: &str,
    answer: impl Fn(&Request) -> Option<(u16, String)>,
) -> std::io::Result<()> {
    stream.set_read_timeout(Some(Duration::from_secs(30)))?;
    let mut reader = BufReader::new(stream);
    let (mut first, mut length, mut request) = (String::new(), 0, Request::default());
    reader.read_line(&mut first)?;
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        let Some((name, value)) = line.trim().split_once(':') else { break };
        match name.to_ascii_lowercase().as_str() {
            "content-length" => length = value.trim().parse().unwrap_or(0),
            "authorization" => request.login = Some(value.trim().to_string()),
            _ => {}
        }
    }
    request.body = vec![0; length];
    reader.read_exact(&mut request.body)?;
    let mut words = first.split_whitespace().map(str::to_string);
    (request.method, request.path) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let Some((status, text)) = answer(&request) else { return Ok(()) };
    write!(
        stream,
        "HTTP/1.1 {status} Answer\r\nContent-Type: {content_type}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{text}",
        text.len()
    )
}
