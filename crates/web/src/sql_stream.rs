//! `POST /api/sql/stream`: runs statements as `POST /api/sql` does, and sends their results as they arrive, one JSON
//! object a line. A result without an end is sent as long as its reader is there.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::body::{Body, Bytes};
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use futures::stream;
use millstream_engine::Engine;
use serde_json::json;
use tokio::sync::mpsc::{self, Receiver};

use crate::Shared;
use crate::ending::Running;
use crate::sql::{End, Limits, Part, answer};

/// The bounds of an answer. The page reads further rows from the kept result.
const LIMITS: Limits = Limits { rows: 1000, bytes: 16 << 20, endless: None };

/// Pause after which an empty line tells the reader that the statement still runs.
const QUIET: Duration = Duration::from_secs(5);

/// An answer that is being sent.
struct Sending {
    parts: Receiver<Part>,
    began: Instant,
    has_ended: bool,
    /// The page waits for its readers when it stops.
    _running: Running,
}

/// Returns the answer to a text of statements. If its reader goes away, the statement that runs is cancelled.
pub(crate) fn respond(shared: Arc<Shared>, engine: &Engine, sql: String, running: Running) -> Response {
    let (sender, parts) = mpsc::channel(4);
    let (engine, of_answer) = (engine.clone(), running.clone());
    tokio::spawn(
        async move { answer(&engine, &sql, LIMITS, Some(&shared.results), (sender, of_answer)).await },
    );
    let sending = Sending { parts, began: Instant::now(), has_ended: false, _running: running };
    let lines = stream::unfold(sending, |mut sending| async {
        let line = sending.line().await?;
        Some((Ok::<_, Infallible>(Bytes::from(line)), sending))
    });
    ([(CONTENT_TYPE, "application/x-ndjson")], Body::from_stream(lines)).into_response()
}

impl Sending {
    /// Returns the next line; `None` after the last one.
    async fn line(&mut self) -> Option<String> {
        if self.has_ended {
            return None;
        }
        match tokio::time::timeout(QUIET, self.parts.recv()).await {
            Err(_) => Some("\n".into()),
            Ok(Some(part)) => Some(line_of(part)),
            Ok(None) => {
                self.has_ended = true;
                Some(format!("{{\"milliseconds\":{}}}\n", self.began.elapsed().as_millis()))
            }
        }
    }
}

fn line_of(part: Part) -> String {
    match part {
        Part::Done { tag, notices } => format!("{{\"done\":{{\"notices\":{notices},\"tag\":{tag}}}}}\n"),
        Part::Begin { columns, types, is_endless } => {
            format!("{{\"begin\":{{\"columns\":{columns},\"is_endless\":{is_endless},\"types\":{types}}}}}\n")
        }
        Part::Rows(rows) => format!("{{\"rows\":[{}]}}\n", rows.join(",")),
        Part::Count(rows) => format!("{{\"count\":{rows}}}\n"),
        Part::End(End { tag, notices, is_cut, rows, kept }) => {
            let kept = json!(kept);
            format!(
                "{{\"end\":{{\"is_cut\":{is_cut},\"notices\":{notices},\"result\":{kept},\"rows\":{rows},\"tag\":{tag}}}}}\n"
            )
        }
        Part::Failed(error) => format!("{{\"error\":{error}}}\n"),
    }
}
