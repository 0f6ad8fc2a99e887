//! The paths of the page and their answers.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::Router;
use axum::body::{Body, Bytes, to_bytes};
use axum::extract::{RawQuery, Request, State};
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use millstream_engine::{Engine, MetricValue};
use serde_json::Value;

use crate::details::Detail;
use crate::metrics::expose;
use crate::reading::Read;
use crate::results::{self, Format, Spool};
use crate::{Shared, assets, guard, openmetrics, overview, sql, sql_stream};

/// The answer while the engine starts.
const STARTING: &str = "the engine is starting: it recovers from its data directory";

/// Maximum time for which a request waits for the values of metrics. A busy engine gives those of its epochs alone.
const METRICS_MAX: Duration = Duration::from_secs(5);

/// Maximum time for the body of a request.
const BODY_TIME: Duration = Duration::from_secs(20);

/// Maximum bytes of the body of a request.
const BODY_BYTES: usize = 2 << 20;

/// The answer to statements while the server stops.
const STOPPING: &str = "the server is stopping: connect again when it is back";

/// The answer after the engine has ended.
const STOPPED: &str = "the engine has stopped";

/// Returns the paths, behind the rules for requests.
pub(crate) fn router(shared: Arc<Shared>) -> Router {
    assets::add_to(Router::new())
        .route("/healthz", get(|| plain(StatusCode::OK, "alive")))
        .route("/readyz", get(ready))
        .route("/metrics", get(metrics))
        .route("/api/overview", get(show_overview))
        .route("/api/graph", get(graph))
        .route("/api/batch", get(batch))
        .route("/api/busy", get(busy))
        .route("/api/partitions", get(|shared| detail(shared, Detail::Partitions)))
        .route("/api/state", get(|shared| detail(shared, Detail::State)))
        .route("/api/sql", post(run_sql))
        .route("/api/sql/stream", post(stream_sql))
        .route("/api/complete", post(complete))
        .route("/api/result/rows", post(result_rows))
        .route("/api/result/save", post(save_result))
        .route("/api/result/drop", post(drop_result))
        .fallback(|| plain(StatusCode::NOT_FOUND, "there is no such page: / has the overview"))
        .method_not_allowed_fallback(|| {
            let reason = "this path takes another method: POST /api/sql, /api/complete and those below /api/sql and \
                          /api/result, GET for the others";
            plain(StatusCode::METHOD_NOT_ALLOWED, reason)
        })
        .layer(from_fn_with_state(shared.clone(), guarded))
        .with_state(shared)
}

/// Returns the current time, in milliseconds since 1970.
pub(crate) fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis() as u64
}

async fn guarded(State(shared): State<Arc<Shared>>, request: Request, next: Next) -> Response {
    let mut response =
        match guard::check(shared.address, request.method(), request.uri().path(), request.headers()) {
            Ok(()) => match whole(request).await {
                Ok(request) => next.run(request).await,
                Err((status, reason)) => plain(status, reason).await,
            },
            Err((status, reason)) => plain(status, reason).await,
        };
    guard::secure(response.headers_mut());
    response
}

/// Returns a request with its whole body, which a client must not send too slowly.
async fn whole(request: Request) -> Result<Request, (StatusCode, String)> {
    let (head, body) = request.into_parts();
    match tokio::time::timeout(BODY_TIME, to_bytes(body, BODY_BYTES)).await {
        Ok(Ok(body)) => Ok(Request::from_parts(head, Body::from(body))),
        Ok(Err(error)) => Err((
            StatusCode::PAYLOAD_TOO_LARGE,
            format!("the body could not be read: {error}; it may have {BODY_BYTES} bytes"),
        )),
        Err(_) => Err((
            StatusCode::REQUEST_TIMEOUT,
            format!("the body did not arrive within {} seconds", BODY_TIME.as_secs()),
        )),
    }
}

async fn plain(status: StatusCode, text: impl Into<String>) -> Response {
    let kind = [(CONTENT_TYPE, "text/plain; charset=utf-8")];
    (status, kind, format!("{}\n", text.into())).into_response()
}

fn json_answer(text: impl Into<String>) -> Response {
    ([(CONTENT_TYPE, "application/json")], text.into()).into_response()
}

/// The engine as a request finds it.
enum Found<'a> {
    Running(&'a Engine),
    /// No engine runs; the reason.
    Absent(&'static str),
}

impl Shared {
    fn found(&self) -> Found<'_> {
        match self.engine.get() {
            None => Found::Absent(STARTING),
            Some(engine) if engine.has_stopped() => Found::Absent(STOPPED),
            Some(engine) => Found::Running(engine),
        }
    }

    /// Returns a reading of the running engine, or the reason why there is none.
    async fn read(&self) -> Result<Read, String> {
        match self.found() {
            Found::Absent(reason) => Err(reason.into()),
            Found::Running(engine) => self.readings.read(engine).await.map_err(|unread| unread.to_string()),
        }
    }
}

/// Returns the reason why the engine is not ready, if there is one.
async fn unready(shared: &Shared) -> Option<String> {
    let read = match shared.read().await {
        Ok(read) => read,
        Err(reason) => return Some(reason),
    };
    if let Err(unread) = shared.readings.check() {
        return Some(unread.to_string());
    }
    shared.history().falls_behind(read.reading.interval)
}

async fn ready(State(shared): State<Arc<Shared>>) -> Response {
    match unready(&shared).await {
        None => plain(StatusCode::OK, "ready").await,
        Some(reason) => plain(StatusCode::SERVICE_UNAVAILABLE, reason).await,
    }
}

async fn metrics(State(shared): State<Arc<Shared>>) -> Response {
    let (is_ready, values) = match shared.found() {
        Found::Absent(_) => (false, Vec::new()),
        Found::Running(engine) => values(engine, &shared).await,
    };
    ([(CONTENT_TYPE, openmetrics::CONTENT_TYPE)], expose(is_ready, values)).into_response()
}

async fn values(engine: &Engine, shared: &Shared) -> (bool, Vec<MetricValue>) {
    match tokio::time::timeout(METRICS_MAX, engine.metrics()).await {
        Ok(Ok(values)) => (true, values),
        Ok(Err(_)) => (false, engine.history().metrics()),
        Err(_) => (shared.readings.check().is_ok(), engine.history().metrics()),
    }
}

/// Returns a number of the query string; 0 if it isn't there.
fn parameter(query: Option<&str>, name: &str) -> Result<u64, String> {
    let Some(value) = text_parameter(query, name) else { return Ok(0) };
    value.parse().map_err(|_| format!("{name} is \"{value}\", expected a whole number"))
}

async fn show_overview(State(shared): State<Arc<Shared>>, RawQuery(query): RawQuery) -> Response {
    let (since, after) = match (parameter(query.as_deref(), "since"), parameter(query.as_deref(), "after")) {
        (Ok(since), Ok(after)) => (since, after),
        (Err(reason), _) | (_, Err(reason)) => return plain(StatusCode::BAD_REQUEST, reason).await,
    };
    if let Some(text) = shared.answers.find((since, after)) {
        return json_answer(&*text);
    }
    let read = shared.read().await;
    let history = shared.history();
    let mut answer = overview::history(&history, since, now_ms());
    match read {
        Ok(read) => {
            let text: Arc<str> = overview::with_reading(&answer, &read, &history.batches(after)).into();
            shared.answers.keep((since, after), text.clone());
            json_answer(&*text)
        }
        Err(reason) => {
            overview::add_absence(&mut answer, &reason);
            json_answer(answer.to_string())
        }
    }
}

/// Returns a text of the query string, decoded.
fn text_parameter(query: Option<&str>, name: &str) -> Option<String> {
    let mut pairs = form_urlencoded::parse(query.unwrap_or_default().as_bytes());
    pairs.find(|(key, _)| key == name).map(|(_, value)| value.into_owned())
}

async fn detail(State(shared): State<Arc<Shared>>, detail: Detail) -> Response {
    let read = match shared.found() {
        Found::Absent(reason) => Err(reason.to_string()),
        Found::Running(engine) => {
            shared.details.read(engine, detail).await.map_err(|unread| unread.to_string())
        }
    };
    match read {
        Ok(text) => json_answer(&*text),
        Err(reason) => plain(StatusCode::SERVICE_UNAVAILABLE, reason).await,
    }
}

async fn graph(shared: State<Arc<Shared>>, RawQuery(query): RawQuery) -> Response {
    let query = text_parameter(query.as_deref(), "query");
    detail(shared, query.map_or(Detail::Graph, Detail::Query)).await
}

async fn batch(shared: State<Arc<Shared>>, RawQuery(query): RawQuery) -> Response {
    match parameter(query.as_deref(), "epoch") {
        Ok(epoch) => detail(shared, Detail::Batch(epoch)).await,
        Err(reason) => plain(StatusCode::BAD_REQUEST, reason).await,
    }
}

async fn busy(shared: State<Arc<Shared>>, RawQuery(query): RawQuery) -> Response {
    match parameter(query.as_deref(), "second") {
        Ok(second) => detail(shared, Detail::Busy(second)).await,
        Err(reason) => plain(StatusCode::BAD_REQUEST, reason).await,
    }
}

/// A body with statements, or the answer to another one.
fn statements(body: &Bytes) -> Result<(String, Value), (StatusCode, &'static str)> {
    let sent = serde_json::from_slice::<Value>(body).unwrap_or_default();
    match sent.get("sql").and_then(Value::as_str) {
        Some(text) => Ok((text.to_string(), sent)),
        None => Err((StatusCode::BAD_REQUEST, "the body is not what was expected: {\"sql\": \"SELECT 1\"}")),
    }
}

impl Shared {
    /// Returns the engine and the statements of a body, or the status and the reason why there are none.
    fn asked(&self, body: &Bytes) -> Result<(&Engine, String, Value), (StatusCode, &'static str)> {
        let (text, sent) = statements(body)?;
        match self.found() {
            Found::Absent(reason) => Err((StatusCode::SERVICE_UNAVAILABLE, reason)),
            Found::Running(engine) => Ok((engine, text, sent)),
        }
    }
}

async fn run_sql(State(shared): State<Arc<Shared>>, body: Bytes) -> Response {
    match shared.asked(&body) {
        Ok((engine, text, _)) => match shared.ending.begin() {
            Some(running) => json_answer(sql::run(engine, &text, running).await),
            None => plain(StatusCode::SERVICE_UNAVAILABLE, STOPPING).await,
        },
        Err((status, reason)) => plain(status, reason).await,
    }
}

async fn stream_sql(State(shared): State<Arc<Shared>>, body: Bytes) -> Response {
    match shared.asked(&body) {
        Ok((engine, text, _)) => match shared.ending.begin() {
            Some(running) => sql_stream::respond(shared.clone(), engine, text, running),
            None => plain(StatusCode::SERVICE_UNAVAILABLE, STOPPING).await,
        },
        Err((status, reason)) => plain(status, reason).await,
    }
}

/// A kept result that a body names, with the body; or the answer to another one.
type Named = Result<(Arc<Spool>, Value), (StatusCode, String)>;

impl Shared {
    fn kept(&self, body: &Bytes) -> Named {
        let sent = serde_json::from_slice::<Value>(body).unwrap_or_default();
        let Some(name) = sent.get("result").and_then(Value::as_str) else {
            let reason =
                "the body is not what was expected: {\"result\": \"…\"}, as the end of a result names it";
            return Err((StatusCode::BAD_REQUEST, reason.into()));
        };
        match self.results.find(name) {
            Some(spool) => Ok((spool, sent)),
            None => Err((StatusCode::NOT_FOUND, results::GONE.into())),
        }
    }
}

async fn result_rows(State(shared): State<Arc<Shared>>, body: Bytes) -> Response {
    let (spool, sent) = match shared.kept(&body) {
        Ok(kept) => kept,
        Err((status, reason)) => return plain(status, reason).await,
    };
    let number = |name| sent.get(name).and_then(Value::as_u64).map(|number| number as usize);
    let (Some(from), Some(count)) = (number("from"), number("count")) else {
        let reason = "the body is not what was expected: {\"result\": \"…\", \"from\": 0, \"count\": 100}";
        return plain(StatusCode::BAD_REQUEST, reason).await;
    };
    let read = tokio::task::spawn_blocking(move || results::rows_json(&spool, from, count)).await;
    match read.unwrap_or_else(|error| Err(error.to_string())) {
        Ok(text) => json_answer(text),
        Err(reason) => plain(StatusCode::INTERNAL_SERVER_ERROR, reason).await,
    }
}

async fn save_result(State(shared): State<Arc<Shared>>, body: Bytes) -> Response {
    let (spool, sent) = match shared.kept(&body) {
        Ok(kept) => kept,
        Err((status, reason)) => return plain(status, reason).await,
    };
    let name = sent.get("format").and_then(Value::as_str).unwrap_or_default();
    let Some(format) = Format::find(name) else {
        let reason = format!("format is \"{name}\", expected csv or parquet");
        return plain(StatusCode::BAD_REQUEST, reason).await;
    };
    if let Err(reason) = format.check(&spool) {
        return plain(StatusCode::UNPROCESSABLE_ENTITY, reason).await;
    }
    let (sender, pieces) = tokio::sync::mpsc::channel(4);
    tokio::task::spawn_blocking(move || {
        let failures = sender.clone();
        if let Err(reason) = format.write(&spool, sender) {
            // The reader sees that the file is not complete.
            let _ = failures.blocking_send(Err(std::io::Error::other(reason)));
        }
    });
    let pieces = futures::stream::unfold(pieces, |mut pieces| async {
        let piece = pieces.recv().await?;
        Some((piece, pieces))
    });
    ([(CONTENT_TYPE, format.content_type())], Body::from_stream(pieces)).into_response()
}

async fn drop_result(State(shared): State<Arc<Shared>>, body: Bytes) -> Response {
    let sent = serde_json::from_slice::<Value>(&body).unwrap_or_default();
    if let Some(name) = sent.get("result").and_then(Value::as_str) {
        shared.results.drop_result(name);
    }
    json_answer("{}")
}

async fn complete(State(shared): State<Arc<Shared>>, body: Bytes) -> Response {
    match shared.asked(&body) {
        Ok((engine, text, sent)) => {
            let cursor =
                sent.get("cursor").and_then(Value::as_u64).map_or(text.len(), |cursor| cursor as usize);
            json_answer(shared.completion.words(engine, &text, cursor).to_string())
        }
        Err((status, reason)) => plain(status, reason).await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_parameter_is_decoded() {
        assert_eq!(text_parameter(Some("a=1&query=%22a%26b%22+c"), "query"), Some("\"a&b\" c".to_string()));
        assert_eq!(text_parameter(Some("querys=1"), "query"), None);
    }

    #[test]
    fn parameters_are_numbers() {
        assert_eq!(parameter(None, "since"), Ok(0));
        assert_eq!(parameter(Some("a=1&since=7"), "since"), Ok(7));
        assert_eq!(
            parameter(Some("since=<b>"), "since"),
            Err("since is \"<b>\", expected a whole number".to_string())
        );
    }
}
