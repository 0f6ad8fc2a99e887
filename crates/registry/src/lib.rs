//! A client of schema registries that speak [Confluent's REST
//! API](https://docs.confluent.io/platform/current/schema-registry/develop/api.html), as Apicurio, Karapace and Redpanda
//! do, and of the servers that give [tokens](TokenEndpoint) to clients.
//!
//! Deliberately absent: deletes, compatibility checks, contexts, and other authentication than HTTP's basic.

mod token;

use std::collections::BTreeSet;
use std::time::Duration;

use async_trait::async_trait;
use millstream_connect::{Error, Options, RegisteredSchema, Result, SchemaRegistry};
use reqwest::{Client, Method, RequestBuilder, StatusCode, Url};
use serde_json::{Value, json};
pub use token::{AccessToken, TokenEndpoint};

/// How long a registry may take to answer.
const ANSWER: Duration = Duration::from_secs(10);

/// Longest answer.
const ANSWER_BYTES_MAX: usize = 16 << 20;

/// Most schemas that one schema refers to, with those that these refer to.
const REFERENCES_MAX: usize = 100;

/// The codes of answers that a schema, a subject or a version doesn't exist.
const UNKNOWN: [i64; 3] = [40401, 40402, 40403];

/// A registry at one or several addresses.
#[derive(Clone, Debug)]
pub struct Registry {
    addresses: Vec<Url>,
    client: Client,
    login: Option<Login>,
}

#[derive(Clone)]
struct Login {
    user: String,
    password: String,
}

impl std::fmt::Debug for Login {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Login({}, ***)", self.user)
    }
}

/// An answer of a registry.
enum Answer {
    Found(Value),
    /// The registry has no such schema.
    Unknown,
}

/// A step of fetching schemas with those that they refer to.
enum Step {
    /// Fetches a version of a subject.
    Fetch((String, i64)),
    /// Adds a schema after those that it refers to.
    Add(String),
}

impl Registry {
    /// Creates a client for the options `schema.registry`, `schema.registry.username` and `schema.registry.password`.
    /// `None` if they name no registry.
    pub fn from_options(options: &Options) -> Result<Option<Registry>> {
        let (user, password) =
            (options.get("schema.registry.username"), options.get("schema.registry.password"));
        let Some(addresses) = options.get("schema.registry") else {
            return match user.or(password) {
                None => Ok(None),
                Some(_) => Err(Error::Invalid(
                    "option 'schema.registry' is missing, which the user's name and password are for: add \
                     schema.registry = 'http://host:8081'"
                        .into(),
                )),
            };
        };
        let addresses: Result<Vec<Url>> =
            addresses.split(',').map(|text| address("schema.registry", text)).collect();
        let login = match (user, password) {
            (None, None) => None,
            (Some(user), password) => {
                Some(Login { user: user.into(), password: password.unwrap_or_default().into() })
            }
            (None, Some(_)) => {
                return Err(Error::Invalid(
                    "option 'schema.registry.username' is missing, but there is a password: add it".into(),
                ));
            }
        };
        let client = Client::builder().timeout(ANSWER).connect_timeout(ANSWER).build();
        let client =
            client.map_err(|error| Error::External(format!("no client of HTTP can be made: {error}")))?;
        Ok(Some(Registry { addresses: addresses?, client, login }))
    }

    /// Asks each address until one answers. One that doesn't know the schema may only be late.
    async fn ask(&self, method: Method, path: &[&str], body: Option<String>) -> Result<Answer> {
        let mut failure = Err(Error::Invalid("option 'schema.registry' names no address".into()));
        for address in &self.addresses {
            match self.ask_one(address, method.clone(), path, body.clone()).await {
                Ok(Answer::Unknown) => failure = Ok(Answer::Unknown),
                Err(error) if failure.is_err() => failure = Err(error),
                Err(_) => {}
                found => return found,
            }
        }
        failure
    }

    async fn ask_one(
        &self,
        address: &Url,
        method: Method,
        path: &[&str],
        body: Option<String>,
    ) -> Result<Answer> {
        let mut url = address.clone();
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.pop_if_empty().extend(path);
        }
        let named = shown(&url);
        let failed = |error: reqwest::Error| {
            Error::External(format!(
                "the schema registry doesn't answer at {named}: {}",
                causes(&error.without_url())
            ))
        };
        // No registry has such an id, and some answer as if the path were wrong.
        let is_impossible =
            matches!(path, ["schemas", "ids", id] if id.parse().is_ok_and(|id: u32| id > i32::MAX as u32));
        let posts = method == Method::POST;
        let mut request = self
            .client
            .request(method, url)
            .header("Accept", "application/vnd.schemaregistry.v1+json, application/json");
        if let Some(Login { user, password }) = &self.login {
            request = request.basic_auth(user, Some(password));
        }
        if let Some(body) = body {
            request = request.header("Content-Type", "application/vnd.schemaregistry.v1+json").body(body);
        }
        let (status, bytes) = sent(request, ANSWER_BYTES_MAX).await.map_err(failed)?;
        let bytes = bytes.ok_or_else(|| {
            Error::External(format!(
                "the schema registry's answer at {named} is longer than {ANSWER_BYTES_MAX} bytes"
            ))
        })?;
        if is_impossible && status == StatusCode::NOT_FOUND {
            return Ok(Answer::Unknown);
        }
        answer(status, &bytes, &named, posts)
    }

    /// Fetches the schemas that a schema refers to, each once, those that they refer to first.
    async fn references(&self, schema: &Value) -> Result<Vec<String>> {
        let (mut texts, mut seen) = (Vec::new(), BTreeSet::new());
        let mut open: Vec<Step> = references(schema).into_iter().rev().map(Step::Fetch).collect();
        while let Some(step) = open.pop() {
            let (subject, version) = match step {
                Step::Add(text) => {
                    texts.push(text);
                    continue;
                }
                Step::Fetch(reference) if seen.contains(&reference) => continue,
                Step::Fetch(reference) => reference,
            };
            if seen.len() >= REFERENCES_MAX {
                return Err(Error::Invalid(format!(
                    "a schema refers to more than {REFERENCES_MAX} others in the schema registry"
                )));
            }
            let path = ["subjects", &subject, "versions", &version.to_string()];
            let Answer::Found(found) = self.ask(Method::GET, &path, None).await? else {
                return Err(Error::Invalid(format!(
                    "the schema registry has no version {version} of subject '{subject}', which a schema refers to"
                )));
            };
            seen.insert((subject, version));
            open.push(Step::Add(text(&found, "schema")?));
            open.extend(references(&found).into_iter().rev().map(Step::Fetch));
        }
        Ok(texts)
    }

    async fn registered(&self, id: u32, found: &Value) -> Result<RegisteredSchema> {
        Ok(RegisteredSchema {
            id,
            kind: found.get("schemaType").and_then(Value::as_str).unwrap_or("AVRO").to_string(),
            text: text(found, "schema")?,
            references: self.references(found).await?,
        })
    }
}

#[async_trait]
impl SchemaRegistry for Registry {
    async fn schema(&self, id: u32) -> Result<Option<RegisteredSchema>> {
        match self.ask(Method::GET, &["schemas", "ids", &id.to_string()], None).await? {
            Answer::Found(found) => self.registered(id, &found).await.map(Some),
            Answer::Unknown => Ok(None),
        }
    }

    async fn latest(&self, subject: &str) -> Result<Option<RegisteredSchema>> {
        match self.ask(Method::GET, &["subjects", subject, "versions", "latest"], None).await? {
            Answer::Found(found) => {
                let id = number(&found, "id")?;
                self.registered(id, &found).await.map(Some)
            }
            Answer::Unknown => Ok(None),
        }
    }

    async fn register(&self, subject: &str, kind: &str, schema: &str) -> Result<u32> {
        // Registries take Avro if nothing is said, and old ones know nothing else.
        let body = match kind {
            "AVRO" => json!({ "schema": schema }),
            _ => json!({ "schema": schema, "schemaType": kind }),
        }
        .to_string();
        match self.ask(Method::POST, &["subjects", subject, "versions"], Some(body)).await? {
            Answer::Found(found) => number(&found, "id"),
            Answer::Unknown => Err(Error::External(format!(
                "the schema registry takes no schema of subject '{subject}': it answers that it doesn't exist"
            ))),
        }
    }
}

fn answer(status: StatusCode, bytes: &[u8], named: &str, posts: bool) -> Result<Answer> {
    let json: Option<Value> = serde_json::from_slice(bytes).ok();
    if status.is_success() {
        return json.map(Answer::Found).ok_or_else(|| {
            Error::External(format!("the answer at {named} is no JSON: is it a schema registry's address?"))
        });
    }
    let code = json.as_ref().and_then(|json| json.get("error_code")).and_then(Value::as_i64);
    if status == StatusCode::NOT_FOUND && code.is_some_and(|code| UNKNOWN.contains(&code)) {
        return Ok(Answer::Unknown);
    }
    let message =
        json.as_ref().and_then(|json| json.get("message")).and_then(Value::as_str).unwrap_or("no reason");
    let message: String = message.chars().take(500).collect();
    match status {
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Err(Error::External(format!(
            "the schema registry refuses at {named} ({status}: {message}): check schema.registry.username and \
             schema.registry.password"
        ))),
        // The registry works, but not with this schema.
        StatusCode::CONFLICT | StatusCode::UNPROCESSABLE_ENTITY if posts => Err(Error::Invalid(format!(
            "the schema registry refuses the schema at {named} ({status}): {message}"
        ))),
        _ => Err(Error::External(format!("the schema registry answers {status} at {named}: {message}"))),
    }
}

/// Parses the address that an option gives.
fn address(option: &str, text: &str) -> Result<Url> {
    let text = text.trim();
    let wrong = || {
        let shown = text.rsplit_once('@').map_or(text, |(_, host)| host);
        Error::Invalid(format!(
            "option '{option}' is '{shown}', but an address such as 'http://host:8081' was expected"
        ))
    };
    let url = Url::parse(text).map_err(|_| wrong())?;
    match url.scheme() {
        "http" | "https" if url.has_host() => Ok(url),
        _ => Err(wrong()),
    }
}

/// Sends a request. Returns the status and the body of its answer; `None` if the body is longer than `max` bytes.
async fn sent(request: RequestBuilder, max: usize) -> Result<(StatusCode, Option<Vec<u8>>), reqwest::Error> {
    let mut response = request.send().await?;
    let mut bytes = Vec::new();
    while let Some(chunk) = response.chunk().await? {
        bytes.extend_from_slice(&chunk);
        if bytes.len() > max {
            return Ok((response.status(), None));
        }
    }
    Ok((response.status(), Some(bytes)))
}

/// Returns an error with its causes.
fn causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut inner = error.source();
    while let Some(cause) = inner {
        text = format!("{text}: {cause}");
        inner = cause.source();
    }
    text
}

/// Returns an address without a user and a password.
fn shown(url: &Url) -> String {
    let mut url = url.clone();
    let _ = url.set_username("");
    let _ = url.set_password(None);
    url.to_string()
}

/// Returns the subjects and versions that a schema refers to.
fn references(schema: &Value) -> Vec<(String, i64)> {
    let all = schema.get("references").and_then(Value::as_array);
    let one = |reference: &Value| {
        let subject = reference.get("subject")?.as_str()?;
        Some((subject.to_string(), reference.get("version")?.as_i64()?))
    };
    all.into_iter().flatten().filter_map(one).collect()
}

fn text(json: &Value, name: &str) -> Result<String> {
    let text = json.get(name).and_then(Value::as_str).map(str::to_string);
    text.ok_or_else(|| Error::External(format!("the schema registry's answer has no '{name}'")))
}

fn number(json: &Value, name: &str) -> Result<u32> {
    let number = json.get(name).and_then(Value::as_u64).and_then(|number| u32::try_from(number).ok());
    number.ok_or_else(|| Error::External(format!("the schema registry's answer has no '{name}'")))
}
