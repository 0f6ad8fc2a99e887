//! `GET /api/overview`: the state of the engine and the history of its epochs, as JSON.

use std::collections::VecDeque;
use std::fmt::Write;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use millstream_engine::{ActiveBatch, Batch, History, Sample, Second};
use serde_json::{Map, Value, json};

use crate::health::{Problem, shown};
use crate::reading::Read;

/// The age of a reading in seconds from which on it is a problem.
const OLD_SECONDS: u64 = 5;

/// The time for which pages that ask the same get the same answer.
const SHARED: Duration = Duration::from_millis(500);

/// Maximum number of answers that are shared.
const ANSWERS_MAX: usize = 16;

/// An answer, and when it was made.
type Answer = ((u64, u64), Instant, Arc<str>);

/// The last answers, by the second and the epoch from which on the page asked. Open pages ask the same once a second.
#[derive(Debug, Default)]
pub(crate) struct Answers(Mutex<VecDeque<Answer>>);

impl Answers {
    /// Returns an answer that was made within a moment.
    pub(crate) fn find(&self, asked: (u64, u64)) -> Option<Arc<str>> {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let found = all.iter().find(|(of, at, _)| *of == asked && at.elapsed() < SHARED);
        found.map(|(.., text)| text.clone())
    }

    /// Keeps an answer for others who ask the same.
    pub(crate) fn keep(&self, asked: (u64, u64), text: Arc<str>) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|(of, at, _)| *of != asked && at.elapsed() < SHARED);
        all.truncate(ANSWERS_MAX - 1);
        all.push_front((asked, Instant::now(), text));
    }
}

/// Returns the history from the second `since` on, with the batch that is running.
pub(crate) fn history(history: &History, since: u64, now_ms: u64) -> Value {
    // The seconds end before the one that `now` names.
    let now = history.now();
    let seconds = history.seconds(since);
    json!({
        "version": env!("CARGO_PKG_VERSION"),
        "began_ms": history.began_ms(),
        "now_ms": now_ms,
        "history": seconds_json(&seconds, now),
        "samples": samples_json(&history.samples(since)),
        "active": history.active().as_ref().map(active_json),
    })
}

/// Returns the batch that is running, with those that wait for it.
fn active_json(active: &ActiveBatch) -> Value {
    let ActiveBatch { batch, running, queued, queued_count, merging } = active;
    let inputs: Map<String, Value> =
        batch.inputs.iter().map(|(name, rows)| (name.to_string(), (*rows).into())).collect();
    json!({
        "epoch": batch.epoch.0,
        "batch_time": batch.time.0 / 1000,
        "inputs": inputs,
        "input_rows": batch.input_rows(),
        "scheduling_delay_us": batch.scheduling_delay.as_micros() as u64,
        "running_us": running.as_micros() as u64,
        "queued": queued.iter().map(|time| time.0 / 1000).collect::<Vec<_>>(),
        "queued_count": queued_count,
        "merging": merging,
    })
}

/// Returns an answer as text, with the state of an engine that was read, its problems, and the epochs that the page
/// doesn't have. Many pages ask for parts of one reading, so it becomes text once.
pub(crate) fn with_reading(answer: &Value, read: &Read, batches: &[Arc<Batch>]) -> String {
    let Read { reading, age } = read;
    let mut health: Vec<Problem> = reading.problems.iter().map(Problem::of).collect();
    if age.as_secs() >= OLD_SECONDS {
        let reason = format!("has not answered for {} s: its figures are of then", age.as_secs());
        let statement = "SELECT * FROM millstream.jobs".into();
        let (level, object) = ("warning".into(), "the engine".into());
        health.insert(0, Problem { level, object, reason, statement, since: None });
    }
    let health: Vec<Value> = shown(health).iter().map(Problem::json).collect();
    let own = json!({ "state": "running", "age_ms": age.as_millis() as u64, "health": health });
    let parts = [answer.to_string(), own.to_string(), reading.text().to_string()];
    let fields: Vec<&str> = parts.iter().map(|part| &part[1..part.len() - 1]).collect();
    let mut text = format!("{{{},\"batches\":[", fields.join(","));
    for (at, batch) in batches.iter().rev().enumerate() {
        text.push_str(if at == 0 { "" } else { "," });
        add_batch(&mut text, batch);
    }
    text.push_str("]}");
    text
}

/// Adds an epoch as a JSON object.
fn add_batch(text: &mut String, batch: &Batch) {
    let us = |time: Duration| time.as_micros();
    let added = write!(
        text,
        "{{\"epoch\":{},\"batch_time\":{},\"input_rows\":{},\"output_rows\":{},\"processing_us\":{},\
         \"scheduling_delay_us\":{},\"total_delay_us\":{},\"merged_intervals\":{},\"inputs\":{}}}",
        batch.epoch.0,
        batch.time.0 / 1000,
        batch.input_rows(),
        batch.output_rows,
        us(batch.processing_time),
        us(batch.scheduling_delay),
        us(batch.total_delay()),
        batch.merged_intervals,
        batch.inputs_json(),
    );
    debug_assert!(added.is_ok(), "a String takes all");
}

/// Adds the reason why there is no reading.
pub(crate) fn add_absence(answer: &mut Value, reason: &str) {
    answer["state"] = "absent".into();
    answer["health"] = json!([
        { "level": "error", "object": "the engine:", "reason": reason, "statement": null }
    ]);
}

/// Returns seconds in columns.
fn seconds_json(seconds: &[Second], now: u64) -> Value {
    let column = |of: fn(&Second) -> u64| seconds.iter().map(of).collect::<Vec<u64>>();
    json!({
        "from": seconds.first().map_or(now, |second| second.number),
        "next": seconds.last().map_or(now, |second| second.number + 1),
        "epochs": column(|second| second.epochs),
        "rows_in": column(|second| second.rows_in),
        "rows_out": column(|second| second.rows_out),
        "processing_us": column(|second| second.processing_us),
        "processing_max_us": column(|second| second.processing_max_us),
        "scheduling_max_us": column(|second| second.scheduling_max_us),
        "total_max_us": column(|second| second.total_max_us),
    })
}

/// Returns the samples of memory and of the checkpoint's age in columns.
fn samples_json(samples: &[Sample]) -> Value {
    let column = |name: &str| samples.iter().map(|sample| sample.value(name)).collect::<Vec<_>>();
    json!({
        "at": samples.iter().map(|sample| sample.number).collect::<Vec<_>>(),
        "state_bytes": column("millstream_state_bytes"),
        "spilled_bytes": column("millstream_spilled_bytes"),
        "resident_bytes": column("process_resident_memory_bytes"),
        "checkpoint_age_ms": samples
            .iter()
            .map(|sample| Some(sample.value("millstream_checkpoint_age_seconds")? * 1e3))
            .collect::<Vec<_>>(),
    })
}

#[cfg(test)]
mod tests {
    use millstream_engine::Engine;

    use super::*;
    use crate::reading::{Reading, Readings, number};

    /// Returns the newest epoch of an answer.
    fn newest(answer: &Value) -> Option<u64> {
        number(answer["batches"][0].as_object()?, "epoch")
    }

    #[test]
    fn json_has_a_column_for_each_figure() {
        let second = Second { number: 1, rows_in: 5, total_max_us: 5_000, ..Second::default() };
        let json = seconds_json(&[second, Second { number: 2, ..Second::default() }], 3);
        assert_eq!((&json["from"], &json["next"]), (&json!(1), &json!(3)));
        assert_eq!((&json["rows_in"], &json["total_max_us"]), (&json!([5, 0]), &json!([5_000, 0])));
        let json = seconds_json(&[], 7);
        assert_eq!((&json["from"], &json["next"], &json["epochs"]), (&json!(7), &json!(7), &json!([])));
        assert_eq!(samples_json(&[])["state_bytes"], json!([]));
    }

    #[test]
    fn pages_that_ask_the_same_within_a_moment_get_the_same() {
        let answers = Answers::default();
        answers.keep((1, 2), "a".into());
        answers.keep((1, 3), "b".into());
        answers.keep((1, 2), "c".into());
        let find = |asked| answers.find(asked).map(|text| text.to_string());
        assert_eq!([find((1, 2)), find((1, 3)), find((2, 2))], [Some("c".into()), Some("b".into()), None]);
        (0..100).for_each(|since| answers.keep((since, 0), "d".into()));
        let count = answers.0.lock().unwrap().len();
        assert_eq!((count, find((99, 0))), (ANSWERS_MAX, Some("d".into())));
        std::thread::sleep(SHARED);
        assert_eq!(find((99, 0)), None);
    }

    #[test]
    fn an_old_reading_is_called_old() {
        let read =
            |seconds| Read { reading: Arc::new(Reading::default()), age: Duration::from_secs(seconds) };
        let parsed = |read: &Read| -> Value {
            serde_json::from_str(&with_reading(&json!({ "version": 1 }), read, &[])).unwrap()
        };
        assert_eq!(parsed(&read(1))["health"], json!([]));
        let mut answer = parsed(&read(7));
        assert_eq!((&answer["version"], &answer["batches"]), (&json!(1), &json!([])));
        assert_eq!(answer["health"][0]["reason"], "has not answered for 7 s: its figures are of then");
        add_absence(&mut answer, "gone");
        assert_eq!((&answer["state"], &answer["health"][0]["reason"]), (&json!("absent"), &json!("gone")));
    }

    #[test]
    fn an_epoch_is_in_the_answer_once() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let engine = Engine::start().unwrap();
        let read = runtime.block_on(async {
            let mut session = engine.session();
            for sql in ["CREATE TABLE \"t\"\"<\" (id BIGINT)", "INSERT INTO \"t\"\"<\" VALUES (1)"] {
                session.execute(sql).await.unwrap();
            }
            Readings::default().read(&engine).await.unwrap()
        });
        let answer = |after| -> Value {
            let (of, batches) = (engine.history(), engine.history().batches(after));
            let text = with_reading(&history(&of, 0, 9), &read, &batches);
            serde_json::from_str(&text).unwrap()
        };
        let epoch = newest(&answer(0)).unwrap();
        let batches = answer(0)["batches"].clone();
        assert_eq!((&batches[0]["inputs"], &batches[0]["input_rows"]), (&json!({ "t\"<": 1 }), &json!(1)));
        assert!(
            number(batches[0].as_object().unwrap(), "batch_time")
                .is_some_and(|time| time > 1_600_000_000_000)
        );
        assert_eq!(newest(&answer(epoch)), None);
    }
}
