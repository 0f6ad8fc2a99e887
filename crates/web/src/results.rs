//! Results that the server keeps for the SQL page: a page reads any part of a large result, and saves all of it.
//!
//! Small results are in memory, the rows of others in a temporary file without a name, which ends with the process.

mod save;
mod spool;

use std::collections::BTreeMap;
use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde_json::json;

pub(crate) use save::Format;
pub(crate) use spool::Spool;

/// The time after which a result that no page has asked for is dropped.
const IDLE_MAX: Duration = Duration::from_secs(600);

/// Maximum number of results that are kept. Beyond it, the one that was used least recently is dropped.
const RESULTS_MAX: usize = 16;

/// Maximum bytes of all results in files.
pub(crate) const BYTES_MAX: u64 = 4 << 30;

/// Maximum number of rows that a page reads at a time.
const ROWS_MAX: usize = 1000;

/// Maximum bytes of such an answer, about; a row that has more is alone.
const ANSWER_BYTES_MAX: usize = 16 << 20;

/// The answer of a result that is not there.
pub(crate) const GONE: &str = "the result is no longer kept: run the statement again";

/// A result, and when it was last used.
#[derive(Debug)]
struct Kept {
    spool: Arc<Spool>,
    used: Instant,
}

/// All results that are kept.
#[derive(Debug, Default)]
pub(crate) struct Results {
    kept: Mutex<BTreeMap<String, Kept>>,
    /// Bytes of all files.
    bytes: Arc<AtomicU64>,
    next: AtomicU64,
    keys: RandomState,
}

impl Results {
    /// Returns the counter of bytes, which spools share.
    pub(crate) fn bytes(&self) -> Arc<AtomicU64> {
        self.bytes.clone()
    }

    /// Keeps a result, and returns its name. Another page can't guess it.
    pub(crate) fn keep(&self, spool: Spool) -> String {
        let mut hasher = self.keys.build_hasher();
        hasher.write_u64(self.next.fetch_add(1, Ordering::Relaxed));
        let name = format!("{:016x}", hasher.finish());
        let mut kept = self.lock();
        while kept.len() >= RESULTS_MAX {
            let oldest = kept.iter().min_by_key(|(_, kept)| kept.used).map(|(name, _)| name.clone());
            oldest.and_then(|name| kept.remove(&name));
        }
        kept.insert(name.clone(), Kept { spool: Arc::new(spool), used: Instant::now() });
        name
    }

    /// Returns a result.
    pub(crate) fn find(&self, name: &str) -> Option<Arc<Spool>> {
        let mut kept = self.lock();
        let found = kept.get_mut(name)?;
        found.used = Instant::now();
        Some(found.spool.clone())
    }

    /// Drops a result.
    pub(crate) fn drop_result(&self, name: &str) {
        self.lock().remove(name);
    }

    /// Drops the results that no page has used for a time.
    pub(crate) fn drop_idle(&self) {
        self.lock().retain(|_, kept| kept.used.elapsed() < IDLE_MAX);
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Kept>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Returns rows of a result as JSON, from a row on.
pub(crate) fn rows_json(spool: &Spool, from: usize, count: usize) -> Result<String, String> {
    let mut text = String::from("{\"rows\":[");
    let is_first = text.len();
    spool.read(from, count.min(ROWS_MAX), &mut |row| {
        if text.len() > is_first {
            text.push(',');
        }
        text.push_str(&json!(row).to_string());
        text.len() < ANSWER_BYTES_MAX
    })?;
    text.push_str("]}");
    Ok(text)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringViewArray};

    use super::*;

    fn numbers(from: i64, to: i64) -> RecordBatch {
        let ids: ArrayRef = Arc::new(Int64Array::from_iter_values(from..to));
        let texts: ArrayRef = Arc::new(StringViewArray::from_iter(
            (from..to).map(|id| (id % 10 > 0).then(|| format!("a \"{id}\""))),
        ));
        RecordBatch::try_from_iter_with_nullable([("id", ids, true), ("v", texts, true)]).unwrap()
    }

    fn spool(results: &Results, rows: i64) -> Spool {
        let mut spool = Spool::new(&numbers(0, 0).schema(), results.bytes());
        let all = numbers(0, rows);
        for begin in (0..rows).step_by(1000) {
            let length = 1000.min(rows - begin);
            assert!(spool.add(&all.slice(begin as usize, length as usize)).unwrap());
        }
        spool.finish().unwrap();
        spool
    }

    #[test]
    fn any_part_of_a_large_result_is_read() {
        let results = Results::default();
        let name = results.keep(spool(&results, 300_000));
        let spool = results.find(&name).unwrap();
        assert_eq!(spool.rows(), 300_000);
        assert!(results.bytes.load(Ordering::Relaxed) > 1_000_000);
        for from in [0, 8191, 8192, 123_456, 299_999] {
            let text = rows_json(&spool, from, 2).unwrap();
            let rows: serde_json::Value = serde_json::from_str(&text).unwrap();
            let first = if from % 10 > 0 { json!(format!("a \"{from}\"")) } else { json!(null) };
            assert_eq!(rows["rows"][0], json!([from.to_string(), first]), "{text}");
            assert_eq!(rows["rows"].as_array().unwrap().len(), 2.min(300_000 - from));
        }
        assert_eq!(rows_json(&spool, 300_000, 5).unwrap(), "{\"rows\":[]}");
        assert_eq!(rows_json(&spool, usize::MAX, usize::MAX).unwrap(), "{\"rows\":[]}");
        // Dropping the result frees its place.
        results.drop_result(&name);
        drop(spool);
        assert_eq!(results.bytes.load(Ordering::Relaxed), 0);
        assert!(results.find(&name).is_none());
    }

    #[test]
    fn results_have_a_bound_and_names_of_their_own() {
        let results = Results::default();
        let names: Vec<String> = (0..RESULTS_MAX + 3).map(|_| results.keep(spool(&results, 3))).collect();
        let found = names.iter().filter(|name| results.find(name).is_some()).count();
        assert_eq!(found, RESULTS_MAX);
        assert!(results.find(&names[0]).is_none() && results.find(&names[RESULTS_MAX]).is_some());
        results.drop_idle();
        assert!(results.find(&names[RESULTS_MAX]).is_some());
    }

    #[test]
    fn a_result_without_room_takes_no_more_rows() {
        let results = Results::default();
        results.bytes.store(BYTES_MAX, Ordering::Relaxed);
        let mut spool = Spool::new(&numbers(0, 0).schema(), results.bytes());
        let mut rows = 0;
        while rows < 1_000_000 && spool.add(&numbers(rows, rows + 5000)).unwrap() {
            rows += 5000;
        }
        spool.finish().unwrap();
        assert!((5000..200_000).contains(&rows), "{rows}");
        assert_eq!(rows_json(&spool, 7, 1).unwrap(), r#"{"rows":[["7","a \"7\""]]}"#);
    }
}
