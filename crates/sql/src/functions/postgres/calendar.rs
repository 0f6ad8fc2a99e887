//! The proleptic Gregorian calendar as arithmetic on days since 1970-01-01, also for years that chrono lacks.
//!
//! The year before 1 is 0, which is shown as 1 BC.

/// The Julian day of 1970-01-01.
pub(in crate::functions) const EPOCH_JULIAN: i64 = 2_440_588;

/// A date: the year, the month from 1, and the day from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::functions) struct Date {
    pub(in crate::functions) year: i64,
    pub(in crate::functions) month: i64,
    pub(in crate::functions) day: i64,
}

impl Date {
    /// Returns the date of a number of days since 1970.
    ///
    /// Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms", civil_from_days.
    pub(in crate::functions) fn of_days(days: i64) -> Date {
        let days = days + 719_468;
        let era = days.div_euclid(146_097);
        let day_of_era = days.rem_euclid(146_097);
        let year_of_era =
            (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
        let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let shifted = (5 * day_of_year + 2) / 153;
        let day = day_of_year - (153 * shifted + 2) / 5 + 1;
        let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
        Date { year: year_of_era + era * 400 + i64::from(month <= 2), month, day }
    }

    /// Returns the days since 1970. A day beyond its month counts into the next one.
    pub(in crate::functions) fn days(self) -> i64 {
        let year = self.year - i64::from(self.month <= 2);
        let era = year.div_euclid(400);
        let year_of_era = year.rem_euclid(400);
        let shifted = if self.month > 2 { self.month - 3 } else { self.month + 9 };
        let day_of_year = (153 * shifted + 2) / 5 + self.day - 1;
        let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
        era * 146_097 + day_of_era - 719_468
    }

    /// Returns the day of the year, from 1.
    pub(in crate::functions) fn day_of_year(self) -> i64 {
        self.days() - Date { year: self.year, month: 1, day: 1 }.days() + 1
    }

    /// Returns the year, from 1, and the week, from 1, of the ISO calendar.
    pub(in crate::functions) fn iso_week(self) -> (i64, i64) {
        let days = self.days();
        // The Thursday of a week is in the week's year.
        let thursday = days - (day_of_week(days) + 6) % 7 + 3;
        let year = Date::of_days(thursday).year;
        (year, (thursday - Date { year, month: 1, day: 1 }.days()) / 7 + 1)
    }

    /// Returns the day of the year of the ISO calendar, from 1.
    pub(in crate::functions) fn iso_day_of_year(self) -> i64 {
        self.days() - iso_week_start(self.iso_week().0, 1) + 1
    }
}

/// Returns the day of the week; 0 is Sunday.
pub(in crate::functions) fn day_of_week(days: i64) -> i64 {
    (days + 4).rem_euclid(7)
}

/// Returns the day of the Monday of an ISO week.
pub(in crate::functions) fn iso_week_start(year: i64, week: i64) -> i64 {
    let fourth = Date { year, month: 1, day: 4 }.days();
    fourth - (day_of_week(fourth) + 6) % 7 + (week - 1) * 7
}

/// Returns true if a year has 366 days.
pub(in crate::functions) fn is_leap(year: i64) -> bool {
    year.rem_euclid(4) == 0 && (year.rem_euclid(100) != 0 || year.rem_euclid(400) == 0)
}

/// Returns the days of a month from 1 to 12.
pub(in crate::functions) fn days_of_month(year: i64, month: i64) -> i64 {
    match month {
        2 if is_leap(year) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_and_days_convert_into_each_other() {
        for days in (-1_000_000..1_000_000).step_by(97) {
            assert_eq!(Date::of_days(days).days(), days);
        }
        assert_eq!(Date { year: 1970, month: 1, day: 1 }.days(), 0);
        assert_eq!(
            Date { year: 2000, month: 2, day: 31 }.days(),
            Date { year: 2000, month: 3, day: 2 }.days()
        );
    }

    #[test]
    fn iso_weeks_belong_to_the_year_of_their_thursday() {
        let week = |year, month, day| Date { year, month, day }.iso_week();
        assert_eq!(week(2006, 1, 1), (2005, 52));
        assert_eq!(week(2026, 3, 9), (2026, 11));
        assert_eq!(week(2020, 12, 31), (2020, 53));
        assert_eq!(Date { year: 2026, month: 3, day: 9 }.iso_day_of_year(), 71);
        assert_eq!(day_of_week(0), 4);
    }
}
