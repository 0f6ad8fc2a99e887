//! The retention of a query's state: `state_ttl`, `allowed_lateness`.

use std::time::Duration;

use millstream_connect::Options;
use millstream_flow::Limits;
use millstream_sql::Result;

use super::interval;

/// The time after which a query forgets idle keys; `None`: never.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StateTtl(pub Option<Duration>);

impl StateTtl {
    /// Parses the value of a setting or an option.
    pub fn parse(value: &str) -> Result<StateTtl> {
        if value.eq_ignore_ascii_case("off") {
            return Ok(StateTtl(None));
        }
        Ok(StateTtl(Some(interval("state_ttl", value, "off or ")?)))
    }

    /// Returns the time in microseconds.
    pub fn us(self) -> Option<i64> {
        self.0.map(|ttl| i64::try_from(ttl.as_micros()).unwrap_or(i64::MAX))
    }
}

/// The distance by which the watermark must pass a window's end before the window closes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AllowedLateness(pub Duration);

impl AllowedLateness {
    /// Parses the value of a setting or an option.
    pub fn parse(value: &str) -> Result<AllowedLateness> {
        if value.trim() == "0" {
            return Ok(AllowedLateness(Duration::ZERO));
        }
        Ok(AllowedLateness(interval("allowed_lateness", value, "0 or ")?))
    }

    /// Returns the time in microseconds.
    pub fn us(self) -> i64 {
        i64::try_from(self.0.as_micros()).unwrap_or(i64::MAX)
    }
}

/// The retention options of a query. For those not given, the settings at its creation apply.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Keeping {
    /// `state_ttl`
    pub state_ttl: Option<StateTtl>,
    /// `allowed_lateness`
    pub allowed_lateness: Option<AllowedLateness>,
}

impl Keeping {
    /// Returns the values given in the options.
    pub fn of(options: &Options) -> Result<Keeping> {
        Ok(Keeping {
            state_ttl: options.get("state_ttl").map(StateTtl::parse).transpose()?,
            allowed_lateness: options.get("allowed_lateness").map(AllowedLateness::parse).transpose()?,
        })
    }

    /// Returns the limits of a query with these options.
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
