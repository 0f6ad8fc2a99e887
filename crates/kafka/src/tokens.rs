//! Tokens of SASL's OAUTHBEARER that an OAuth 2.0 server gives (`sasl.oauthbearer.method = 'oidc'`).
//!
//! librdkafka would need libcurl to ask for them. So the properties stay here, and each client gets its token before it
//! connects, and a new one when 80 % of the token's life are over.

use std::collections::BTreeMap;
use std::ffi::{CString, c_char};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use millstream_connect::{Error, Result};
use millstream_registry::{AccessToken, TokenEndpoint};
use rdkafka::bindings::rd_kafka_oauthbearer_set_token;
use rdkafka::client::{Client, ClientContext};
use rdkafka::types::RDKafkaRespErr;

use crate::options::Properties;

const METHOD: &str = "sasl.oauthbearer.method";
const URL: &str = "sasl.oauthbearer.token.endpoint.url";
const GRANT: &str = "sasl.oauthbearer.grant.type";
const SCOPE: &str = "sasl.oauthbearer.scope";
const EXTENSIONS: &str = "sasl.oauthbearer.extensions";
const CA_FILE: &str = "https.ca.location";
const CA_TEXT: &str = "https.ca.pem";

/// The client's id and secret, each with the other name that librdkafka has for it.
const ID: [&str; 2] = ["sasl.oauthbearer.client.id", "sasl.oauthbearer.client.credentials.client.id"];
const SECRET: [&str; 2] =
    ["sasl.oauthbearer.client.secret", "sasl.oauthbearer.client.credentials.client.secret"];

/// The part of a token's life after which it is renewed.
const RENEWAL: f64 = 0.8;

/// The pause after a failure, as long as the token that there is lives.
const PAUSE: Duration = Duration::from_secs(10);

/// The tokens of all clients of a source or a sink.
#[derive(Debug)]
pub(crate) struct Tokens {
    endpoint: TokenEndpoint,
    /// Keys and values that go to the broker with a token.
    extensions: Vec<CString>,
    held: Mutex<Option<Held>>,
}

/// The present token.
#[derive(Debug)]
struct Held {
    token: AccessToken,
    /// The time of the next question to the endpoint.
    renewed_at: SystemTime,
}

/// The tokens of one client.
#[derive(Debug)]
pub(crate) struct ClientTokens {
    tokens: Option<Arc<Tokens>>,
    /// The end of the token that the client has.
    given: Mutex<Option<SystemTime>>,
}

impl ClientTokens {
    /// Creates the tokens of a client with these properties.
    pub fn of(properties: &Properties) -> ClientTokens {
        ClientTokens { tokens: properties.tokens.clone(), given: Mutex::default() }
    }

    /// Returns true if the client needs tokens of an endpoint.
    pub fn are_needed(&self) -> bool {
        self.tokens.is_some()
    }

    /// Gives the client the present token, unless the client has it. May wait for the endpoint.
    pub fn renew<C: ClientContext>(&self, client: &Client<C>) -> Result<()> {
        let Some(tokens) = &self.tokens else { return Ok(()) };
        let token = tokens.present()?;
        let mut given = self.given.lock().unwrap_or_else(PoisonError::into_inner);
        if *given != Some(token.ends) {
            tokens.set(client, &token)?;
            *given = Some(token.ends);
        }
        Ok(())
    }
}

impl Tokens {
    /// Takes the properties of tokens out of those of librdkafka. `None` if tokens aren't fetched.
    pub fn take(properties: &mut BTreeMap<String, String>) -> Result<Option<Arc<Tokens>>> {
        let is_oidc = properties.get(METHOD).is_some_and(|method| method.eq_ignore_ascii_case("oidc"));
        if !is_oidc {
            return match properties.contains_key(URL) {
                true => Err(invalid(
                    URL,
                    format!("is only for tokens of a server: add properties.{METHOD} = 'oidc'"),
                )),
                false => Ok(None),
            };
        }
        let mechanism = properties.get("sasl.mechanism").or(properties.get("sasl.mechanisms"));
        if mechanism.is_none_or(|mechanism| mechanism != "OAUTHBEARER") {
            return Err(invalid(METHOD, "needs properties.sasl.mechanism = 'OAUTHBEARER': add it".into()));
        }
        let unsupported = |name: &&String| {
            name.starts_with("sasl.oauthbearer.assertion.") || name.starts_with("sasl.oauthbearer.metadata.")
        };
        if let Some(name) = properties.keys().find(unsupported) {
            return Err(invalid(
                name,
                "isn't supported: tokens are fetched by the client's id and secret".into(),
            ));
        }
        properties.remove(METHOD);
        if let Some(grant) = properties.remove(GRANT).filter(|grant| grant != "client_credentials") {
            return Err(invalid(GRANT, format!("is '{grant}', but only client_credentials is supported")));
        }
        let mut of = |names: &[&str]| names.iter().filter_map(|name| properties.remove(*name)).next_back();
        let missing = |name: &str| {
            invalid(name, format!("is missing, which properties.{METHOD} = 'oidc' needs: add it"))
        };
        let url = of(&[URL]).ok_or_else(|| missing(URL))?;
        let id = of(&ID).ok_or_else(|| missing(ID[0]))?;
        let secret = of(&SECRET).ok_or_else(|| missing(SECRET[0]))?;
        let (scope, extensions) = (of(&[SCOPE]), of(&[EXTENSIONS]));
        let authorities =
            match (of(&[CA_TEXT]), of(&[CA_FILE]).filter(|file| file != "probe")) {
                (Some(text), _) => Some(text.into_bytes()),
                (None, Some(file)) => Some(std::fs::read(&file).map_err(|error| {
                    invalid(CA_FILE, format!("is '{file}', which can't be read: {error}"))
                })?),
                (None, None) => None,
            };
        let endpoint = TokenEndpoint::new(
            (&format!("properties.{URL}"), &url),
            (&id, &secret),
            scope.as_deref(),
            authorities.as_deref(),
        )?;
        let extensions = pairs(extensions.as_deref().unwrap_or_default())?;
        Ok(Some(Arc::new(Tokens { endpoint, extensions, held: Mutex::default() })))
    }

    /// Returns the present token: a new one if that is due. If there is none to be had, the present one as long as it lives.
    fn present(&self) -> Result<AccessToken> {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        let now = SystemTime::now();
        if let Some(held) = held.as_ref().filter(|held| now < held.renewed_at) {
            return Ok(held.token.clone());
        }
        match (self.fetch(), held.as_mut()) {
            (Ok(token), _) => {
                let life = token.ends.duration_since(token.begins).unwrap_or_default();
                let renewed_at = token.begins + life.mul_f64(RENEWAL);
                *held = Some(Held { token: token.clone(), renewed_at });
                Ok(token)
            }
            (Err(error), Some(held)) if now < held.token.ends => {
                tracing::warn!(%error, "a token of OAUTHBEARER can't be renewed yet");
                held.renewed_at = (now + PAUSE).min(held.token.ends);
                Ok(held.token.clone())
            }
            (Err(error), _) => Err(error),
        }
    }

    /// Asks the endpoint, on a thread of its own: the caller's may belong to a runtime.
    fn fetch(&self) -> Result<AccessToken> {
        let stopped =
            |error: &dyn std::fmt::Display| Error::External(format!("no token can be asked for: {error}"));
        std::thread::scope(|scope| {
            let asked =
                std::thread::Builder::new().name("millstream-kafka-token".into()).spawn_scoped(scope, || {
                    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
                    runtime.map_err(|error| stopped(&error))?.block_on(self.endpoint.fetch())
                });
            let asked = asked.map_err(|error| stopped(&error))?;
            asked.join().unwrap_or_else(|_| Err(Error::Bug("asking for a token ended early".into())))
        })
    }

    #[allow(unsafe_code)]
    fn set<C: ClientContext>(&self, client: &Client<C>, token: &AccessToken) -> Result<()> {
        let ends = token.ends.duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
        let text = |text: &str| {
            CString::new(text).map_err(|_| Error::External("the token has a zero byte within".into()))
        };
        let (value, principal) = (text(&token.value)?, text(&token.principal)?);
        let mut extensions: Vec<*const c_char> = self.extensions.iter().map(|text| text.as_ptr()).collect();
        let mut reason = [0_u8; 512];
        // SAFETY: the client lives as long as the reference to it. librdkafka copies all texts, which outlive the call, and
        // writes at most as many bytes of a reason as there is room for, the last one zero.
        let code = unsafe {
            rd_kafka_oauthbearer_set_token(
                client.native_ptr(),
                value.as_ptr(),
                i64::try_from(ends).unwrap_or(i64::MAX / 1000),
                principal.as_ptr(),
                extensions.as_mut_ptr(),
                extensions.len(),
                reason.as_mut_ptr().cast(),
                reason.len(),
            )
        };
        if code == RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR {
            return Ok(());
        }
        let reason = reason.split(|byte| *byte == 0).next().map(String::from_utf8_lossy).unwrap_or_default();
        Err(Error::External(format!("the Kafka client refuses the token of the endpoint: {reason}")))
    }
}

fn invalid(property: &str, what: String) -> Error {
    Error::Invalid(format!("option 'properties.{property}' {what}"))
}

/// Returns keys and values in turn.
fn pairs(text: &str) -> Result<Vec<CString>> {
    let wrong =
        || invalid(EXTENSIONS, format!("is '{text}', but key=value, separated by commas, was expected"));
    let mut all = Vec::new();
    for pair in text.split(',').map(str::trim).filter(|pair| !pair.is_empty()) {
        let (key, value) = pair.split_once('=').ok_or_else(wrong)?;
        for text in [key.trim(), value.trim()] {
            all.push(CString::new(text).map_err(|_| wrong())?);
        }
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The tokens, and the properties that are left.
    type Taken = (Option<Arc<Tokens>>, BTreeMap<String, String>);

    fn taken(more: &[(&str, &str)]) -> Result<Taken> {
        let given = [
            ("security.protocol", "sasl_ssl"),
            ("sasl.mechanism", "OAUTHBEARER"),
            (METHOD, "OIDC"),
            (URL, "http://auth.example/token"),
            (ID[0], "ann"),
            (SECRET[1], "s3cret"),
        ];
        let all = given.iter().chain(more).filter(|(_, value)| !value.is_empty());
        let mut properties: BTreeMap<String, String> =
            all.map(|(name, value)| (name.to_string(), value.to_string())).collect();
        more.iter()
            .filter(|(_, value)| value.is_empty())
            .for_each(|(name, _)| drop(properties.remove(*name)));
        let tokens = Tokens::take(&mut properties)?;
        Ok((tokens, properties))
    }

    #[test]
    fn properties_of_tokens_are_not_for_librdkafka() {
        let (tokens, left) =
            taken(&[(SCOPE, "kafka"), (EXTENSIONS, "logicalCluster=lkc-1, pool = x=y")]).unwrap();
        let tokens = tokens.unwrap();
        assert_eq!(left.keys().collect::<Vec<_>>(), ["sasl.mechanism", "security.protocol"]);
        let extensions: Vec<&str> = tokens.extensions.iter().map(|text| text.to_str().unwrap()).collect();
        assert_eq!(extensions, ["logicalCluster", "lkc-1", "pool", "x=y"]);
        assert!(!format!("{tokens:?}").contains("s3cret"));
        let (tokens, left) = taken(&[(METHOD, "default"), (URL, "")]).unwrap();
        assert!(tokens.is_none() && left.contains_key(ID[0]));
    }

    #[test]
    fn properties_that_lack_something_are_refused() {
        for (more, expected) in [
            ((ID[0], ""), "option 'properties.sasl.oauthbearer.client.id' is missing"),
            ((SECRET[1], ""), "option 'properties.sasl.oauthbearer.client.secret' is missing"),
            ((URL, ""), "option 'properties.sasl.oauthbearer.token.endpoint.url' is missing"),
            ((URL, "auth"), "token.endpoint.url' is 'auth', but an address such as"),
            ((METHOD, ""), "add properties.sasl.oauthbearer.method = 'oidc'"),
            (("sasl.mechanism", "PLAIN"), "needs properties.sasl.mechanism = 'OAUTHBEARER'"),
            ((GRANT, "urn:ietf:params:oauth:grant-type:jwt-bearer"), "only client_credentials is supported"),
            (("sasl.oauthbearer.assertion.algorithm", "RS256"), "isn't supported"),
            ((EXTENSIONS, "x"), "is 'x', but key=value, separated by commas, was expected"),
            ((CA_FILE, "/nowhere/ca.pem"), "is '/nowhere/ca.pem', which can't be read"),
            ((CA_TEXT, "-----BEGIN CERTIFICATE-----\nx"), "no certificates in PEM"),
        ] {
            let error = taken(&[more]).map(drop).unwrap_err().to_string();
            assert!(error.contains(expected), "{more:?}: {error}");
        }
    }
}
