//! A schema registry for one test: the part of Confluent's REST API that readers and writers of messages use.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde_json::{Value, json};

use crate::drive::Result;
use crate::http::{Request, serve};

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
        let state = Arc::<Mutex<State>>::default();
        let of_answers = state.clone();
        let port = serve("application/vnd.schemaregistry.v1+json", move |request| {
            let mut state = of_answers.lock().unwrap_or_else(PoisonError::into_inner);
            let (status, answer) = state.answer_in_mood(request)?;
            Some((status, answer.to_string()))
        })?;
        Ok(Registry { port, state })
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

    /// Returns the status and the body of an answer; `None` closes the connection.
    fn answer_in_mood(&mut self, request: &Request) -> Option<(u16, Value)> {
        let Request { method, path, login, body } = request;
        self.requests.push(format!("{method} {path}"));
        match self.mood {
            Mood::Down => None,
            Mood::Failing => {
                Some((500, json!({ "error_code": 50001, "message": "Error in the backend data store" })))
            }
            Mood::Well if self.login.is_some() && self.login != *login => {
                Some((401, json!({ "error_code": 401, "message": "Unauthorized" })))
            }
            Mood::Well => Some(self.answer(method, path, body)),
        }
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
