//! Sessions of few keys and of many, with the same rows an epoch.

use millstream_benches::Result;

use crate::Run;

/// Number of measured epochs.
const EPOCHS: usize = 60;

/// Counts rows by session, for a hundredth of the keys, a tenth and all. Sessions stay open: the state
/// covers all keys before epochs are measured, and every epoch has the same number of rows.
pub async fn run(rows: usize, keys: usize) -> Result<()> {
    println!("{rows} rows an epoch in sessions, {EPOCHS} epochs measured");
    let sql = "SELECT k, window_start, window_end, count(*) AS n \
               FROM SESSION(s PARTITION BY k, ts, INTERVAL '1 hour') GROUP BY k, window_start, window_end";
    let mut first = None;
    for share in [100, 10, 1] {
        let keys = (keys / share).max(1);
        // After twice as many rows as the maximum number of keys, nearly all keys have occurred.
        let before = (2 * keys * share).div_ceil(rows.max(1));
        let run = Run { rows, keys, late: 0, before, epochs: EPOCHS };
        let taken = run.query(&format!("sessions of {keys} keys"), sql).await?;
        let least = *first.get_or_insert(taken.cpu_ms);
        println!("    {:.2} times what the fewest keys cost (CPU)", taken.cpu_ms / least);
    }
    Ok(())
}
