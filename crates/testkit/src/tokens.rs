//! An OAuth 2.0 server for one test: it gives unsecured JSON Web Tokens to the client that it knows.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

use crate::drive::Result;
use crate::http::{Request, serve};

/// A running server. It stays until the process ends.
#[derive(Clone, Debug)]
pub struct TokenServer {
    port: u16,
    state: Arc<Mutex<State>>,
}

#[derive(Debug)]
struct State {
    life: Duration,
    fails: bool,
    given: usize,
}

impl TokenServer {
    /// The client that gets tokens.
    pub const CLIENT: &str = "reader-client";
    /// The client's secret, which no message may show.
    pub const SECRET: &str = "staple-battery";

    /// Starts a server whose tokens live so long.
    pub fn start(life: Duration) -> Result<TokenServer> {
        let state = Arc::new(Mutex::new(State { life, fails: false, given: 0 }));
        let of_answers = state.clone();
        let port = serve("application/json", move |request| {
            let (status, answer) = lock(&of_answers).answer(request);
            Some((status, answer.to_string()))
        })?;
        Ok(TokenServer { port, state })
    }

    /// Returns the address of the endpoint.
    pub fn address(&self) -> String {
        format!("http://127.0.0.1:{}/token", self.port)
    }

    /// Makes it answer with status 503, or no longer.
    pub fn set_failing(&self, fails: bool) {
        lock(&self.state).fails = fails;
    }

    /// Returns the number of tokens so far.
    pub fn given(&self) -> usize {
        lock(&self.state).given
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

impl State {
    fn answer(&mut self, request: &Request) -> (u16, Value) {
        let body = String::from_utf8_lossy(&request.body);
        let login = format!(
            "Basic {}",
            base64(STANDARD, &format!("{}:{}", TokenServer::CLIENT, TokenServer::SECRET))
        );
        let has = |pair: &str| body.split('&').any(|found| found == pair);
        match (request.method.as_str(), request.path.as_str()) {
            _ if self.fails => (503, json!({})),
            ("POST", "/token")
                if request.login.as_deref().map(|login| login.trim_end_matches('=')) != Some(&login) =>
            {
                (401, json!({"error": "invalid_client", "error_description": "no such client"}))
            }
            ("POST", "/token") if !has("grant_type=client_credentials") || !has("scope=kafka") => {
                (400, json!({"error": "invalid_scope"}))
            }
            ("POST", "/token") => {
                self.given += 1;
                let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
                let (begins, ends) = (now.as_secs_f64(), (now + self.life).as_secs_f64());
                let claims = json!({"sub": "reader", "iat": begins, "exp": ends, "scope": "kafka"});
                let part = |value: Value| base64(OF_ADDRESSES, &value.to_string());
                let token = format!("{}.{}.", part(json!({"alg": "none"})), part(claims));
                (
                    200,
                    json!({"access_token": token, "token_type": "Bearer", "expires_in": self.life.as_secs()}),
                )
            }
            _ => (404, json!({"error": "not_found"})),
        }
    }
}

/// The last two digits of base64, as headers have them and as tokens do.
const STANDARD: [u8; 2] = *b"+/";
const OF_ADDRESSES: [u8; 2] = *b"-_";

/// Encodes a text as base64 without padding.
fn base64(last: [u8; 2], text: &str) -> String {
    let digit = |value: u32| match (value & 63) as u8 {
        value @ 0..=25 => b'A' + value,
        value @ 26..=51 => b'a' + value - 26,
        value @ 52..=61 => b'0' + value - 52,
        value => last[usize::from(value - 62)],
    };
    let of_three = |bytes: &[u8]| {
        let at = |place: usize| u32::from(bytes.get(place).copied().unwrap_or_default());
        let bits = at(0) << 16 | at(1) << 8 | at(2);
        (0..=bytes.len()).map(move |place| digit(bits >> (18 - 6 * place)) as char)
    };
    text.as_bytes().chunks(3).flat_map(of_three).collect()
}
