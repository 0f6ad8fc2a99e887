//! The settings by topic.

use std::time::Duration;

use super::{IdleTimeoutAction, MissedBatches, sizes};

/// The settings of batches.
#[derive(Clone, Debug)]
pub struct BatchSettings {
    /// `max_batch_rows`; `None`: adaptive.
    pub rows_max: Option<usize>,
    /// `max_batch_bytes`
    pub bytes_max: usize,
    /// `max_queued_batches`
    pub queued_max: usize,
    /// `missed_batches`
    pub missed: MissedBatches,
}

/// The settings of the journal and of checkpoints.
#[derive(Clone, Debug)]
pub struct DurabilitySettings {
    /// `checkpoint_interval`; `None`: off.
    pub checkpoint_interval: Option<Duration>,
    /// `journal_interval`; `None`: auto.
    pub journal_interval: Option<Duration>,
}

/// The settings of sources without an option of their own.
#[derive(Clone, Debug)]
pub struct SourceSettings {
    /// `event_time_ahead_max`; `None`: no bound.
    pub event_time_ahead_max: Option<Duration>,
    /// `source_idle_timeout`
    pub idle_timeout: Duration,
    /// `source_idle_timeout_action`
    pub idle_action: IdleTimeoutAction,
    /// `source_rate_limit`: rows a second.
    pub rate_limit: Option<f64>,
    /// `max_record_bytes`
    pub record_bytes_max: usize,
}

/// The settings of the rows that are kept for readers of changes.
#[derive(Clone, Debug)]
pub struct ReaderSettings {
    /// `history_buffer_max`
    pub history_buffer_max: usize,
    /// `history_retention`; `None`: none.
    pub history_retention: Option<Duration>,
    /// `sink_buffer_max`
    pub sink_buffer_max: usize,
    /// `subscription_buffer_max`
    pub subscription_buffer_max: usize,
}

/// The settings of memory, in bytes.
#[derive(Clone, Debug)]
pub struct MemorySettings {
    /// `memory_limit`
    pub limit: Option<usize>,
    /// `query_memory_limit`; `None`: half of `memory_limit`.
    pub query_limit: Option<usize>,
}

/// The settings of alerts.
#[derive(Clone, Debug)]
pub struct AlertSettings {
    /// `log_slow_epochs`; `None`: none.
    pub slow_epochs: Option<Duration>,
    /// `warn_stalled_after`; `None`: none.
    pub stalled_after: Option<Duration>,
    /// `warn_state_above`, in bytes; `None`: none.
    pub state_above: Option<usize>,
}

impl Default for BatchSettings {
    fn default() -> BatchSettings {
        BatchSettings { rows_max: None, bytes_max: 64 << 20, queued_max: 10, missed: MissedBatches::Run }
    }
}

impl Default for DurabilitySettings {
    fn default() -> DurabilitySettings {
        DurabilitySettings { checkpoint_interval: Some(Duration::from_secs(10)), journal_interval: None }
    }
}

impl Default for SourceSettings {
    fn default() -> SourceSettings {
        SourceSettings {
            event_time_ahead_max: Some(Duration::from_secs(86_400)),
            idle_timeout: Duration::from_secs(30),
            idle_action: IdleTimeoutAction::Hold,
            rate_limit: None,
            record_bytes_max: 16 << 20,
        }
    }
}

impl Default for ReaderSettings {
    fn default() -> ReaderSettings {
        ReaderSettings {
            history_buffer_max: 1 << 30,
            history_retention: None,
            sink_buffer_max: 1 << 30,
            subscription_buffer_max: 64 << 20,
        }
    }
}

impl Default for MemorySettings {
    fn default() -> MemorySettings {
        MemorySettings { limit: sizes::most_memory(), query_limit: None }
    }
}

impl Default for AlertSettings {
    fn default() -> AlertSettings {
        AlertSettings {
            slow_epochs: Some(Duration::from_secs(10)),
            stalled_after: Some(Duration::from_secs(300)),
            state_above: Some(1 << 30),
        }
    }
}
