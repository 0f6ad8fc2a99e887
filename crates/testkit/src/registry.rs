//! A schema registry for one test: the part of Confluent's REST API that readers and writers of messages use.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde_json::{Value, json};

use crate::drive::Result;

/// How a registry treats its clients.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mood {
    /// It answers.
    #[default]
    Well,
    /// It answers each request with status 500.
    Failing,
    /// It closes each connection.
    Down,
}

/// A running registry. It stays until the process ends.
#[derive(Clone, Debug)]
pub struct Registry {
    port: u16,
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    mood: Mood,
    /// The header that each request must have.
    login: Option<String>,
    /// Schemas by id, from 1: the subject, and what was posted.
    schemas: Vec<(String, Value)>,
    requests: Vec<String>,
}

impl Registry {
    /// Starts a registry without schemas.
    pub fn start() -> Result<Registry> {
        let listener = TcpListener::bind("127.0.0.1:0").map_err(|error| error.to_string())?;
        let port = listener.local_addr().map_err(|error| error.to_string())?.port();
        let registry = Registry { port, state: Arc::default() };
        let state = registry.state.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let state = state.clone();
                std::thread::spawn(move || drop(serve(&stream, &state)));
            }
        });
        Ok(registry)
    }

    /// Returns its address for clients.
    pub fn address(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes how it treats its clients.
    pub fn set_mood(&self, mood: Mood) {
        self.state().mood = mood;
    }

    /// Demands this header `Authorization` from now on.
    pub fn demand(&self, header: &str) {
        self.state().login = Some(header.to_string());
    }

    /// Adds a schema; returns its id.
    pub fn register(&self, subject: &str, schema: &str) -> u32 {
        self.state().add(subject, json!({ "schema": schema }))
    }

    /// Adds what a client would post; returns its id.
    pub fn add(&self, posted: &str, subject: &str) -> u32 {
        self.state().add(subject, serde_json::from_str(posted).unwrap_or_default())
    }

    /// Returns the requests so far: method and path.
    pub fn requests(&self) -> Vec<String> {
        self.state().requests.clone()
    }
}

impl State {
    fn add(&mut self, subject: &str, posted: Value) -> u32 {
        let known = self
            .schemas
            .iter()
            .position(|(of, schema)| of == subject && schema["schema"] == posted["schema"]);
        let place = known.unwrap_or_else(|| {
            self.schemas.push((subject.to_string(), posted));
            self.schemas.len() - 1
        });
        place as u32 + 1
    }

    /// Returns the status and the body of an answer.
    fn answer(&mut self, method: &str, path: &str, body: &[u8]) -> (u16, Value) {
        let unknown = |code: u32, message: &str| (404, json!({ "error_code": code, "message": message }));
        let parts: Vec<String> = path.trim_start_matches('/').split('/').map(decoded).collect();
        let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
        match (method, parts.as_slice()) {
            ("GET", ["schemas", "ids", id]) => {
                let place = id.parse::<usize>().ok().and_then(|id| id.checked_sub(1));
                match place.and_then(|place| self.schemas.get(place)) {
                    Some((_, posted)) => (200, posted.clone()),
                    None => unknown(40403, "Schema not found"),
                }
            }
            ("GET", ["subjects", subject, "versions", version]) => {
                let of = self.schemas.iter().enumerate().filter(|(_, (of, _))| of == subject);
                let all: Vec<(usize, &Value)> = of.map(|(place, (_, posted))| (place, posted)).collect();
                let number = version.parse().unwrap_or(all.len());
                match number.checked_sub(1).and_then(|number| all.get(number)) {
                    Some((place, posted)) => {
                        let mut answer = (*posted).clone();
                        answer["id"] = json!(place + 1);
                        answer["version"] = json!(number);
                        answer["subject"] = json!(subject);
                        (200, answer)
                    }
                    None => unknown(40401, "Subject not found"),
                }
            }
            ("POST", ["subjects", subject, "versions"]) => match serde_json::from_slice(body) {
                Ok(posted) => (200, json!({ "id": self.add(subject, posted) })),
                Err(error) => (422, json!({ "error_code": 42201, "message": error.to_string() })),
            },
            _ => (404, json!({ "error_code": 404, "message": "HTTP 404 Not Found" })),
        }
    }
}

/// Returns a part of a path without percent signs.
fn decoded(part: &str) -> String {
    let mut pieces = part.split('%');
    let mut text = pieces.next().unwrap_or_default().as_bytes().to_vec();
    for piece in pieces {
        let (digits, rest) = piece.split_at_checked(2).unwrap_or((piece, ""));
        text.push(u8::from_str_radix(digits, 16).unwrap_or_default());
        text.extend_from_slice(rest.as_bytes());
    }
    String::from_utf8_lossy(&text).into_owned()
}

fn serve(stream: &TcpStream, state: &Mutex<State>) -> std::io::Result<()> {
    stream.set_read_timeout(Some(Duration::from_secs(30)))?;
    let mut reader = BufReader::new(stream);
    let (mut first, mut length, mut login) = (String::new(), 0, None);
    reader.read_line(&mut first)?;
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        let Some((name, value)) = line.trim().split_once(':') else { break };
        match name.to_ascii_lowercase().as_str() {
            "content-length" => length = value.trim().parse().unwrap_or(0),
            "authorization" => login = Some(value.trim().to_string()),
            _ => {}
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body)?;
    let mut words = first.split_whitespace();
    let (method, path) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let (status, answer) = {
        let mut state = state.lock().unwrap_or_else(PoisonError::into_inner);
        state.requests.push(format!("{method} {path}"));
        match state.mood {
            Mood::Down => return Ok(()),
            Mood::Failing => {
                (500, json!({ "error_code": 50001, "message": "Error in the backend data store" }))
            }
            Mood::Well if state.login.is_some() && state.login != login => {
                (401, json!({ "error_code": 401, "message": "Unauthorized" }))
            }
            Mood::Well => state.answer(method, path, &body),
        }
    };
    let text = answer.to_string();
    let mut stream = stream;
    write!(
        stream,
        "HTTP/1.1 {status} Answer\r\nContent-Type: application/vnd.schemaregistry.v1+json\r\nContent-Length: {}\r\n\
         Connection: close\r\n\r\n{text}",
        text.len()
    )
}
