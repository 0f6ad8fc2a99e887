//! Numbers in few characters.

/// The text of a number that is not known.
pub const UNKNOWN: &str = "-";

/// Returns a count or a rate: `950`, `1.2k`, `34.5M`.
pub fn count(number: Option<f64>) -> String {
    let Some(number) = number else { return UNKNOWN.to_owned() };
    let (mut value, mut unit) = (number, 0);
    let units = ["", "k", "M", "G", "T", "P"];
    // 999.95 would be shown as 1000.0.
    while value.abs() >= 999.95 && unit + 1 < units.len() {
        (value, unit) = (value / 1000.0, unit + 1);
    }
    let text = if unit == 0 && (value >= 99.95 || value.fract() == 0.0) {
        format!("{value:.0}")
    } else {
        format!("{value:.1}")
    };
    text + units[unit]
}

/// Returns a number of bytes in the units of the settings: `1.5 MB` are 1.5 times 2 to the 20.
pub fn bytes(number: Option<f64>) -> String {
    let Some(number) = number else { return UNKNOWN.to_owned() };
    let units = ["B", "kB", "MB", "GB", "TB", "PB"];
    let (mut value, mut unit) = (number, 0);
    while value >= 1023.95 && unit + 1 < units.len() {
        (value, unit) = (value / 1024.0, unit + 1);
    }
    if unit == 0 { format!("{value:.0} B") } else { format!("{value:.1} {}", units[unit]) }
}

/// Returns a time: `12 us`, `3.4 ms`, `5.6 s`, `7 min`, `8 h 9 min`, `10 d 11 h`.
pub fn time(seconds: Option<f64>) -> String {
    let Some(seconds) = seconds else { return UNKNOWN.to_owned() };
    let whole = seconds.round() as i64;
    match seconds {
        _ if seconds < 0.0 => format!("-{}", time(Some(-seconds))),
        _ if seconds == 0.0 => "0 s".to_owned(),
        _ if seconds < 0.001 => format!("{:.0} us", seconds * 1e6),
        _ if seconds < 0.99995 => format!("{:.1} ms", seconds * 1e3),
        _ if seconds < 59.95 => format!("{seconds:.1} s"),
        _ if whole < 3600 => format!("{} min", whole / 60),
        _ if whole < 86_400 => format!("{} h {} min", whole / 3600, whole % 3600 / 60),
        _ => format!("{} d {} h", whole / 86_400, whole % 86_400 / 3600),
    }
}

/// Returns a share: `7 %`.
pub fn percent(share: Option<f64>) -> String {
    share.map_or_else(|| UNKNOWN.to_owned(), |share| format!("{:.0} %", share * 100.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short() {
        let counts =
            [0.0, 0.5, 7.0, 99.96, 950.0, 999.96, 1234.0, 34_500_000.0].map(|number| count(Some(number)));
        assert_eq!(counts, ["0", "0.5", "7", "100", "950", "1.0k", "1.2k", "34.5M"]);
        let sizes = [0.0, 1023.0, 1023.99, 1536.0, 3.0 * 1024.0 * 1024.0].map(|number| bytes(Some(number)));
        assert_eq!(sizes, ["0 B", "1023 B", "1.0 kB", "1.5 kB", "3.0 MB"]);
        let times = [0.0, 0.000_012, 0.0034, 0.99999, 5.6, 420.0, 29_340.0, 903_600.0, -1.0]
            .map(|time| super::time(Some(time)));
        assert_eq!(
            times,
            ["0 s", "12 us", "3.4 ms", "1.0 s", "5.6 s", "7 min", "8 h 9 min", "10 d 11 h", "-1.0 s"]
        );
        assert_eq!(
            (percent(Some(0.074)), percent(None), count(None)),
            ("7 %".into(), "-".into(), "-".into())
        );
    }
}
