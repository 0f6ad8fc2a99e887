//! Tokens of an OAuth 2.0 server, by the [client credentials grant](https://www.rfc-editor.org/rfc/rfc6749#section-4.4).

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use millstream_connect::{Error, Result};
use reqwest::{Certificate, Client, StatusCode, Url};
use serde_json::Value;

use super::{ANSWER, address, causes, sent, shown};

/// Longest answer.
const ANSWER_BYTES_MAX: usize = 1 << 20;

/// The endpoint that gives tokens to a client.
pub struct TokenEndpoint {
    url: Url,
    client: Client,
    id: String,
    secret: String,
    scope: Option<String>,
}

impl std::fmt::Debug for TokenEndpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "TokenEndpoint({}, {}, ***)", shown(&self.url), self.id)
    }
}

/// A token, as the endpoint gave it.
#[derive(Clone, PartialEq, Eq)]
pub struct AccessToken {
    /// The token itself.
    pub value: String,
    /// The subject of the token, or else the client's id.
    pub principal: String,
    /// The time of the answer.
    pub begins: SystemTime,
    /// The time from which on the token is refused.
    pub ends: SystemTime,
}

impl std::fmt::Debug for AccessToken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "AccessToken({}, ***)", self.principal)
    }
}

impl TokenEndpoint {
    /// Creates a client of an endpoint. `option` is the option of its address, for messages; `authorities` are certificates
    /// in PEM that are trusted besides those of the system.
    pub fn new(
        (option, url): (&str, &str),
        (id, secret): (&str, &str),
        scope: Option<&str>,
        authorities: Option<&[u8]>,
    ) -> Result<TokenEndpoint> {
        let url = address(option, url)?;
        let mut client = Client::builder().timeout(ANSWER).connect_timeout(ANSWER);
        if let Some(pem) = authorities {
            let wrong = |error: reqwest::Error| {
                Error::Invalid(format!(
                    "the authorities of the token endpoint are no certificates in PEM: {error}"
                ))
            };
            for certificate in Certificate::from_pem_bundle(pem).map_err(wrong)? {
                client = client.add_root_certificate(certificate);
            }
        }
        let client = client
            .build()
            .map_err(|error| Error::External(format!("no client of HTTP can be made: {error}")))?;
        Ok(TokenEndpoint {
            url,
            client,
            id: id.into(),
            secret: secret.into(),
            scope: scope.map(str::to_string),
        })
    }

    /// Asks for a token.
    pub async fn fetch(&self) -> Result<AccessToken> {
        let named = shown(&self.url);
        let failed = |error: reqwest::Error| {
            let error = causes(&error.without_url());
            Error::External(format!("the token endpoint doesn't answer at {named}: {error}"))
        };
        let mut form = vec![("grant_type", "client_credentials")];
        form.extend(self.scope.as_deref().map(|scope| ("scope", scope)));
        let request = self.client.post(self.url.clone()).basic_auth(&self.id, Some(&self.secret));
        let request = request.header("Accept", "application/json").form(&form);
        let (status, bytes) = sent(request, ANSWER_BYTES_MAX).await.map_err(failed)?;
        let bytes = bytes.ok_or_else(|| {
            Error::External(format!(
                "the answer of the token endpoint at {named} is longer than {ANSWER_BYTES_MAX} bytes"
            ))
        })?;
        self.token(status, &bytes, SystemTime::now())
    }

    /// Returns the token of an answer.
    fn token(&self, status: StatusCode, bytes: &[u8], now: SystemTime) -> Result<AccessToken> {
        let named = shown(&self.url);
        let json: Value = serde_json::from_slice(bytes).unwrap_or_default();
        let text = |name: &str| json.get(name).and_then(Value::as_str);
        if !status.is_success() {
            let said = [text("error"), text("error_description")]
                .into_iter()
                .flatten()
                .collect::<Vec<_>>()
                .join(": ");
            let said: String =
                if said.is_empty() { "no reason".into() } else { said.chars().take(500).collect() };
            let refused = status == StatusCode::UNAUTHORIZED || text("error") == Some("invalid_client");
            let remedy = match refused {
                true => ": check sasl.oauthbearer.client.id and sasl.oauthbearer.client.secret",
                false => "",
            };
            return Err(Error::External(format!(
                "the token endpoint gives client '{}' no token at {named} ({status}: {said}){remedy}",
                self.id
            )));
        }
        let lacks = |what: &str| {
            Error::External(format!(
                "the answer of the token endpoint at {named} has no {what}: is it the address of an OAuth 2.0 token endpoint?"
            ))
        };
        let value = text("access_token").ok_or_else(|| lacks("access_token"))?.to_string();
        let claims = claims(&value).unwrap_or_default();
        let by_claim = claims.get("exp").and_then(Value::as_f64);
        let by_answer = json.get("expires_in").and_then(|seconds| match seconds {
            Value::String(text) => text.parse().ok(),
            other => other.as_f64(),
        });
        let ends = match (by_claim, by_answer) {
            (Some(at), _) => seconds(at).and_then(|at| UNIX_EPOCH.checked_add(at)),
            (None, Some(life)) => seconds(life).and_then(|life| now.checked_add(life)),
            (None, None) => None,
        };
        let ends = ends.ok_or_else(|| lacks("expires_in, and its token no claim exp"))?;
        if ends <= now {
            return Err(Error::External(format!(
                "the token endpoint at {named} gave a token that has expired: compare the clocks of both machines"
            )));
        }
        let principal = claims.get("sub").and_then(Value::as_str).unwrap_or(&self.id).to_string();
        Ok(AccessToken { value, principal, begins: now, ends })
    }
}

fn seconds(number: f64) -> Option<Duration> {
    Duration::try_from_secs_f64(number).ok()
}

/// Returns the claims of a token, if it is a JSON Web Token. Only the broker checks its signature.
fn claims(token: &str) -> Option<Value> {
    let [_, claims, _] = token.split('.').collect::<Vec<_>>()[..] else { return None };
    serde_json::from_slice(&base64(claims)?).ok()
}

/// Decodes base64 with the alphabet of addresses, with or without padding.
fn base64(text: &str) -> Option<Vec<u8>> {
    let digit = |byte: u8| match byte {
        b'A'..=b'Z' => Some(byte - b'A'),
        b'a'..=b'z' => Some(byte - b'a' + 26),
        b'0'..=b'9' => Some(byte - b'0' + 52),
        b'-' => Some(62),
        b'_' => Some(63),
        _ => None,
    };
    let (mut bytes, mut bits, mut count) = (Vec::with_capacity(text.len() * 3 / 4), 0_u32, 0);
    for byte in text.trim_end_matches('=').bytes() {
        bits = (bits << 6) | u32::from(digit(byte)?);
        count += 6;
        if count >= 8 {
            count -= 8;
            bytes.push((bits >> count) as u8);
        }
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoint() -> TokenEndpoint {
        let url = ("url", "http://user:hidden@auth.example/token");
        TokenEndpoint::new(url, ("ann", "s3cret"), None, None).unwrap()
    }

    fn given(status: u16, answer: &str) -> std::result::Result<AccessToken, String> {
        let now = UNIX_EPOCH + Duration::from_secs(1000);
        let status = StatusCode::from_u16(status).unwrap();
        endpoint().token(status, answer.as_bytes(), now).map_err(|error| error.to_string())
    }

    #[test]
    fn a_token_ends_when_it_says_so_or_the_answer() {
        let at = |seconds| UNIX_EPOCH + Duration::from_secs(seconds);
        // {"alg":"none"} . {"sub":"Grüße","exp":1300.5} . nothing
        let token = "eyJhbGciOiJub25lIn0.eyJzdWIiOiJHcsO8w59lIiwiZXhwIjoxMzAwLjV9.";
        let found = given(200, &format!("{{\"access_token\": \"{token}\", \"expires_in\": 60}}")).unwrap();
        assert_eq!((found.value.as_str(), found.principal.as_str()), (token, "Grüße"));
        assert_eq!((found.begins, found.ends), (at(1000), at(1300) + Duration::from_millis(500)));
        for life in ["60", "\"60\""] {
            let found =
                given(200, &format!("{{\"access_token\": \"opaque.-_\", \"expires_in\": {life}}}")).unwrap();
            assert_eq!((found.principal.as_str(), found.ends), ("ann", at(1060)));
        }
        assert_eq!(base64("-_8="), Some(vec![0xFB, 0xFF]));
        assert_eq!(base64("a+b"), None);
    }

    #[test]
    fn answers_without_a_token_have_a_reason() {
        let error = |status, answer: &str| given(status, answer).unwrap_err();
        let check = |status, answer: &str, expected: &str| {
            let error = error(status, answer);
            assert!(error.contains(expected) && error.contains("http://auth.example/token"), "{error}");
            assert!(!error.contains("hidden") && !error.contains("s3cret"), "{error}");
        };
        check(
            401,
            r#"{"error": "invalid_client", "error_description": "no such client"}"#,
            "client 'ann' no token",
        );
        check(401, "", "check sasl.oauthbearer.client.id");
        check(400, r#"{"error": "invalid_scope"}"#, "(400 Bad Request: invalid_scope)");
        check(503, "<html>", "503 Service Unavailable: no reason");
        check(200, "<html>", "has no access_token");
        check(200, r#"{"access_token": "x"}"#, "has no expires_in");
        check(200, r#"{"access_token": "x", "expires_in": -5}"#, "has no expires_in");
        check(200, r#"{"access_token": "x", "expires_in": 1e300}"#, "has no expires_in");
        check(200, r#"{"access_token": "x", "expires_in": 0}"#, "has expired");
        let wrong = TokenEndpoint::new(("url", "auth"), ("a", "b"), None, None).unwrap_err().to_string();
        assert!(wrong.contains("option 'url' is 'auth', but an address such as"), "{wrong}");
        let wrong = TokenEndpoint::new(
            ("url", "http://a/"),
            ("a", "b"),
            None,
            Some(b"-----BEGIN CERTIFICATE-----\nx"),
        );
        assert!(wrong.unwrap_err().to_string().contains("no certificates in PEM"));
        assert!(!format!("{:?}", endpoint()).contains("s3cret"));
    }
}
