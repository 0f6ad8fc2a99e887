//! How long queries keep what they keep: `state_ttl`, `allowed_lateness`.

use std::time::Duration;

use millstream_connect::Options;
use millstream_flow::Limits;
use millstream_sql::Result;

use super::interval;

/// After which time a query forgets keys that no row touches; none: never.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StateTtl(pub Option<Duration>);

impl StateTtl {
    /// The value of a setting or an option.
    pub fn parse(value: &str) -> Result<StateTtl> {
        if value.eq_ignore_ascii_case("off") {
            return Ok(StateTtl(None));
        }
        Ok(StateTtl(Some(interval("state_ttl", value, "off or ")?)))
    }

    /// In microseconds.
    pub fn us(self) -> Option<i64> {
        self.0.map(|ttl| i64::try_from(ttl.as_micros()).unwrap_or(i64::MAX))
    }
}

/// By how much the watermark must have passed the end of a window when it closes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AllowedLateness(pub Duration);

impl AllowedLateness {
    /// The value of a setting or an option.
    pub fn parse(value: &str) -> Result<AllowedLateness> {
        if value.trim() == "0" {
            return Ok(AllowedLateness(Duration::ZERO));
        }
        Ok(AllowedLateness(interval("allowed_lateness", value, "0 or ")?))
    }

    /// In microseconds.
    pub fn us(self) -> i64 {
        i64::try_from(self.0.as_micros()).unwrap_or(i64::MAX)
    }
}

/// How long a query keeps what it keeps; of what isn't said the settings count that are in force when it is made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Keeping {
    /// `state_ttl`
    pub state_ttl: Option<StateTtl>,
    /// `allowed_lateness`
    pub allowed_lateness: Option<AllowedLateness>,
}

impl Keeping {
    /// What the options say.
    pub fn of(options: &Options) -> Result<Keeping> {
        Ok(Keeping {
            state_ttl: options.get("state_ttl").map(StateTtl::parse).transpose()?,
            allowed_lateness: options.get("allowed_lateness").map(AllowedLateness::parse).transpose()?,
        })
    }

    /// The limits of a query that says so.
    pub(crate) fn within(self, limits: Limits) -> Limits {
        Limits {
            state_ttl_us: self.state_ttl.map_or(limits.state_ttl_us, StateTtl::us),
            allowed_lateness_us: self
                .allowed_lateness
                .map_or(limits.allowed_lateness_us, AllowedLateness::us),
            ..limits
        }
    }
}
