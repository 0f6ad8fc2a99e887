//! Wall and CPU time of this process, as counted by Linux.

use std::future::Future;
use std::time::Instant;

use crate::Result;

/// The kernel's unit of CPU time in /proc, the same on every architecture that Rust supports.
const TICKS_PER_SECOND: f64 = 100.0;

/// The cost of some work.
#[derive(Clone, Copy, Debug, Default)]
pub struct Cost {
    /// Seconds of wall time.
    pub wall_s: f64,
    /// CPU seconds of all threads, kernel included.
    pub cpu_s: f64,
}

/// Returns the CPU seconds of this process so far, of all its threads, kernel included.
pub fn cpu_seconds() -> Result<f64> {
    fields_sum(&[11, 12])
}

/// Returns the CPU seconds of all children that were waited for.
pub fn children_cpu_seconds() -> Result<f64> {
    fields_sum(&[13, 14])
}

/// Returns the sum of fields of /proc/self/stat, counted from the one after the program's name.
fn fields_sum(fields: &[usize]) -> Result<f64> {
    let stat = std::fs::read_to_string("/proc/self/stat")?;
    let (_, rest) = stat.rsplit_once(')').ok_or("/proc/self/stat has no program name")?;
    let values: Vec<&str> = rest.split_whitespace().collect();
    let mut ticks = 0.0;
    for field in fields {
        ticks += values.get(*field).ok_or("/proc/self/stat is too short")?.parse::<f64>()?;
    }
    Ok(ticks / TICKS_PER_SECOND)
}

/// Returns the resident memory of this process in MiB.
pub fn resident_mib() -> Result<f64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line =
        status.lines().find_map(|line| line.strip_prefix("VmRSS:")).ok_or("no VmRSS in /proc/self/status")?;
    let kib: f64 = line.trim().trim_end_matches("kB").trim().parse()?;
    Ok(kib / 1024.0)
}

/// Runs some work and returns its cost.
pub async fn measure<T>(work: impl Future<Output = Result<T>>) -> Result<(T, Cost)> {
    let (cpu, start) = (cpu_seconds()?, Instant::now());
    let done = work.await?;
    let wall_s = start.elapsed().as_secs_f64();
    Ok((done, Cost { wall_s, cpu_s: cpu_seconds()? - cpu }))
}

/// Returns the median; the upper one of an even number of values.
pub fn median(values: impl IntoIterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.into_iter().collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

/// Returns the medians of wall and of CPU time.
pub fn median_cost(costs: &[Cost]) -> Cost {
    Cost {
        wall_s: median(costs.iter().map(|cost| cost.wall_s)),
        cpu_s: median(costs.iter().map(|cost| cost.cpu_s)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_process_can_be_measured() {
        let before = cpu_seconds().unwrap();
        let start = Instant::now();
        let mut sum = 0_u64;
        while start.elapsed().as_millis() < 60 {
            sum = sum.wrapping_add(start.elapsed().as_nanos() as u64);
        }
        assert!(cpu_seconds().unwrap() > before, "{sum}");
        assert!(resident_mib().unwrap() > 1.0);
    }

    #[test]
    fn a_median_is_one_of_the_values() {
        assert_eq!(median([3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median([4.0, 1.0, 2.0, 3.0]), 3.0);
    }
}
